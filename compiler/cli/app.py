"""The application that commands register with, and what all of them have in common."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from shrinkc.compiler.cli.options import PANELS, JsonOption, LogOption, NoCacheOption, QuietOption
from shrinkc.compiler.cli.output import Log, Run
from shrinkc.compiler.support.disk.cache import kept, nothing_kept
from shrinkc.errors import EXIT_CODES, InputError, StoppedError

DEFAULT = "compile"  # `shrinkc MODEL …` is short for `shrinkc compile MODEL …`


@cache
def _shared() -> tuple[Any, ...]:
    """--json, --quiet, --log and --no-cache, as typer reads them off a function."""
    of_all = typer.Typer(add_completion=False)

    @of_all.command()
    def shared(  # pyright: ignore[reportUnusedFunction]
        as_json: JsonOption = False,
        quiet: QuietOption = False,
        log: LogOption = None,
        no_cache: NoCacheOption = False,
    ) -> None: ...

    return tuple(typer.main.get_command(of_all).params)


def _with_shared(own: list[Any]) -> list[Any]:
    """Panel by panel, so that every command's help has one order."""
    known = dict(zip(PANELS, range(len(PANELS)), strict=True))
    return sorted([*own, *_shared()], key=lambda p: known.get(p.rich_help_panel, len(PANELS)))


def _spoken(context: Any, invoke: Callable[[Any], Any]) -> Any:
    """Run a command, its answer alone on stdout. Raises StoppedError when it is interrupted."""
    run: Run = context.find_root().obj
    given = {shared.name: context.params.pop(shared.name) for shared in _shared()}
    run.as_json, run.quiet = run.as_json or given["as_json"], run.quiet or given["quiet"]
    known = context.command.get_params(context)
    run.flags = {p.name: p.opts[0] if p.opts[0].startswith("-") else p.name.upper() for p in known}
    if given["log"] is not None:
        log = Log(given["log"])
        log.write(f"{run.typed}\n")
        run.log = log
    with ExitStack() as stack:
        if given["no_cache"]:
            run.keeps = False
            stack.enter_context(nothing_kept())
        # read when matplotlib is imported, for a plot; else it fills folders of its own
        os.environ.setdefault("MPLCONFIGDIR", str(kept("fonts") or os.devnull))
        stack.enter_context(run.only_answers())
        try:
            return invoke(context)
        except KeyboardInterrupt as stop:  # a stopped training names its file
            raise StoppedError(str(stop) or "interrupted; nothing was written") from None


def _prepare_help() -> None:
    """typer's help imports rich's Markdown, with a parser and pygments behind it, and uses it in
    markdown mode alone: 45 of 220 ms that nobody needs here."""
    if "typer.rich_utils" in sys.modules or "rich.markdown" in sys.modules:
        return
    stand_in: Any = ModuleType("rich.markdown")
    stand_in.Markdown = None
    sys.modules["rich.markdown"] = stand_in
    try:
        import_module("typer.rich_utils")
    finally:
        del sys.modules["rich.markdown"]


class Command(TyperCommand):
    """A command that takes the shared options too."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _prepare_help()
        super().format_help(ctx, formatter)

    def get_params(self, ctx: Any) -> list[Any]:
        return _with_shared(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        return _spoken(ctx, super().invoke)


class Group(TyperGroup):
    """Commands below a command."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _prepare_help()
        super().format_help(ctx, formatter)

    def get_params(self, ctx: Any) -> list[Any]:
        return _with_shared(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        return _spoken(ctx, super().invoke)


class Root(TyperGroup):
    """All commands. What is none of them is a model to compile, if there is such a file."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _prepare_help()
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {flag for param in self.get_params(ctx) for flag in param.opts}
        if args and args[0] not in self.commands and args[0].partition("=")[0] not in own:
            if not ctx.resilient_parsing:  # a shell asks what could follow
                self._require_model(args[0])
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def _require_model(self, word: str) -> None:
        if word.startswith("-") or Path(word).exists():
            return
        near = get_close_matches(word, self.commands, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(
            f"'{word}' is no command{meant}, and there is no file of that name to compile",
            "shrinkc --help lists the commands",
        )


_CODES = ", ".join(f"{code} {kind}" for kind, code in EXIT_CODES.items())

app = typer.Typer(
    cls=Root,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Compile a trained CNN into the ONNX and TFLite files that run fastest on one device, "
    "with proof that they compute the same. `shrinkc MODEL --target rpi4` is short for "
    "`shrinkc compile MODEL --target rpi4`.",
    epilog=f"Exit codes: 0 done, {_CODES}. With --json, a failure prints one object too: "
    '{"error": {"kind", "message", "hint"}}.',
)
