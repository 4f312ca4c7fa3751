"""The command line: `shrinkc MODEL --target T` and the commands of `commands/`.

What a user can cause is one line on stderr and an exit code that tells its kind (`shrinkc.errors`);
with `--json` stdout holds one object, whether the command succeeds or fails.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from shrinkc.compiler.cli.app import app
from shrinkc.compiler.cli.commands import (
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
)
from shrinkc.compiler.cli.commands.kept import cache, tables
from shrinkc.compiler.cli.heap import keep_freed_memory
from shrinkc.compiler.cli.last_resort import silence_stdout, told
from shrinkc.compiler.cli.output import Run, running
from shrinkc.errors import InputError, ShrinkcError, StoppedError

COMMANDS = (  # each registered itself when it was imported
    *(compile, estimate, inspect, profile, bench, tables, calibrate),
    *(shrink, prune, sensitivity, apply, compare, cache),
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)
    ] = False,
) -> None:
    """Reached only for options in front of any command."""
    if version:
        from shrinkc.version import __version__

        print(f"shrinkc {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    # OpenMP threads that spin at barriers starve on busy machines; read when torch is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as for Ctrl-C
    given = list(sys.argv[1:] if arguments is None else arguments)
    # known before anything is parsed, for errors of parsing
    run = Run(typed=shlex.join(("shrinkc", *given)), as_json="--json" in given)

    def warned(message: Warning | str, *_: Any) -> None:
        run.complain(f"warning: {message}")

    with warnings.catch_warnings(), running(run):
        warnings.showwarning = warned
        try:
            return _guarded(run, lambda: app(given, standalone_mode=False, obj=run))
        except BrokenPipeError:
            sys.stderr.close()
            return 141


def _guarded(run: Run, call: Callable[[], Any]) -> int:
    try:
        return _answered(run, call)
    except ShrinkcError as error:
        return _failed(run, error)
    except typer.TyperException as error:  # of its own parsing
        message = error.format_message().replace("Value error, ", "")  # pydantic's words
        return _failed(run, InputError(message))
    except (KeyboardInterrupt, typer.Abort):
        return _failed(run, StoppedError("interrupted; nothing was written"))
    except BrokenPipeError:
        raise
    except Exception as error:
        return _failed(run, told(error, run.typed, run.keeps))


def _answered(run: Run, call: Callable[[], Any]) -> int:
    try:
        result = call()
    except typer.Exit as stop:
        result = stop.exit_code
    if run.answer is not None:
        run.print_answer({})
    sys.stdout.flush()  # now, while it can be told that nothing can be written
    return result if isinstance(result, int) else 0


def _failed(run: Run, error: ShrinkcError) -> int:
    """Tell the failure, on stdout too where JSON was asked for."""
    run.complain(str(error))
    if run.as_json:
        hint = None if error.hint is None else run.flagged(error.hint)
        message = " ".join(run.flagged(error.message).split())
        with suppress(OSError):  # of which this tells, perhaps
            run.print_answer({"error": {"kind": error.kind, "message": message, "hint": hint}})
    silence_stdout()
    return error.exit_code
