"""The command line: `shrinkc MODEL --target T` and the commands of `COMMANDS`.

One line on stderr and exit code 2 for whatever a user can cause; `--json` prints one object.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from shrinkc.compiler.cli.app import app
from shrinkc.compiler.cli.commands import (  # noqa: F401  each registers itself
    apply,
    bench,
    calibrate,
    compare,
    compile,
    estimate,
    inspect,
    profile,
    prune,
    sensitivity,
    shrink,
    tables,
)
from shrinkc.errors import ShrinkcError

COMMANDS = (
    *("compile", "estimate", "inspect", "profile", "bench", "tables", "calibrate"),
    *("shrink", "prune", "sensitivity", "apply", "compare"),
)
GLOBAL_OPTIONS = ("--help", "-h", "--version")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)
    ] = False,
) -> None:
    """Reached only for options in front of any command."""
    if version:
        from shrinkc import __version__

        print(f"shrinkc {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    # OpenMP threads that spin at barriers starve on busy machines; read when torch is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as for Ctrl-C
    given = list(sys.argv[1:] if arguments is None else arguments)
    typed = shlex.join(("shrinkc", *given))
    if given and given[0] not in (*COMMANDS, *GLOBAL_OPTIONS):
        given.insert(0, "compile")
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        return _guarded(lambda: app(given, standalone_mode=False, obj=typed))


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """One line, without the place in the code."""
    print(f"shrinkc: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _guarded(run: Callable[[], Any]) -> int:
    try:
        result = run()
    except (ShrinkcError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        print(f"shrinkc: {' '.join(message.split())}", file=sys.stderr)
        return 2
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort) as stop:
        said = str(stop) or "interrupted; nothing was written"  # a stopped training names its file
        print(f"shrinkc: {said}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    return result if isinstance(result, int) else 0
