"""What a run says: its one JSON object or its report on stdout, progress and warnings on stderr,
and all of it, with the time, in the file of `--log`."""

from __future__ import annotations

import io
import os
import re
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType, RenderHook, RenderResult
from rich.markup import escape
from rich.segment import Segment

from shrinkc.compiler.support.json_values import finite, json_text
from shrinkc.compiler.support.progress import Advance, Progress, Silent, Terminal
from shrinkc.compiler.support.reading.regular_file import require_writable
from shrinkc.compiler.support.text import visible
from shrinkc.errors import InputError

NOT_JUDGED = "not judged: give --evaluation DIR, images that it has not seen"
_STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours, in a terminal's own language
_QUOTED = re.compile(r"`([^`]*)`")


@dataclass(frozen=True)
class Log:
    """Lines appended to a file, each behind its date and time."""

    path: Path
    _rest: list[str] = field(default_factory=list[str])

    def write(self, text: str) -> None:
        """Whole lines go to the file, the rest of the last one waits. Raises InputError."""
        text = visible(_STYLES.sub("", text))
        *lines, rest = ("".join(self._rest) + text).split("\n")
        self._rest[:] = [rest]
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            require_writable(self.path)
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(f"{now} {line.rstrip()}\n" for line in lines)
        except OSError as error:
            raise InputError(f"`log` {self.path}: cannot be written ({error.strerror})") from error


@dataclass(eq=False)
class Run:
    """One run of the command line.

    typed   the whole command, as it was typed
    stdout  where answers go; everything else that is printed goes to stderr
    keeps   whether anything is kept in the cache
    flags   parameter of the running command → its flag
    answer  the JSON object so far; it is printed at the end, with the error where there is one
    """

    typed: str = ""
    as_json: bool = False
    quiet: bool = False
    keeps: bool = True
    log: Log | None = None
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    flags: Mapping[str, str] = field(default_factory=dict[str, str])
    answer: dict[str, Any] | None = None

    def flagged(self, message: str) -> str:
        """With the command's flags for its parameters, and without backticks round other words."""
        return _QUOTED.sub(lambda found: self.flags.get(found[1], found[1]), message)

    def complain(self, message: str) -> None:
        """One line on stderr."""
        line = visible(f"shrinkc: {' '.join(self.flagged(message).split())}")
        with suppress(OSError):  # nobody reads it
            print(line, file=sys.stderr)
        if self.log is not None:
            with suppress(InputError):  # what is told here may be that it cannot be written
                self.log.write(f"{line}\n")

    def print_answer(self, more: Mapping[str, Any]) -> None:
        """The JSON object, with what is added to it, on stdout."""
        text = json_text(finite({**(self.answer or {}), **more}))
        print(text, file=self.stdout, flush=True)
        if self.log is not None:
            self.log.write(f"{text}\n")

    @contextmanager
    def only_answers(self) -> Generator[None]:
        """Whatever others print (a user's own module, a library, an extension in C) goes to stderr,
        so that stdout holds answers alone."""
        before = self.stdout
        with _own_stdout(before) as own, redirect_stdout(sys.stderr):
            self.stdout = own
            try:
                yield
            finally:
                self.stdout = before
                own.flush()


@contextmanager
def _own_stdout(stdout: TextIO) -> Generator[TextIO]:
    """A copy of the process's stdout, which itself leads to stderr meanwhile; what is no file of
    the process (a test's, a notebook's) as it is."""
    try:
        whole = stdout.fileno() == 1
    except (OSError, ValueError):
        whole = False
    if not whole:
        yield stdout
        return
    stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield open(saved, "w", encoding=stdout.encoding, errors=stdout.errors, closefd=False)  # noqa: SIM115
    finally:
        os.dup2(saved, 1)
        os.close(saved)


_RUN: ContextVar[Run | None] = ContextVar("run", default=None)


@contextmanager
def running(run: Run) -> Generator[None]:
    """`current` is this run."""
    token = _RUN.set(run)
    try:
        yield
    finally:
        _RUN.reset(token)


def current() -> Run:
    """The run that the command line is in; outside of one, a run of its own."""
    return _RUN.get() or Run()


def as_json() -> bool:
    """Whether one JSON object was asked for."""
    return current().as_json


def print_json(value: dict[str, Any]) -> None:
    """The command's answer; numbers that JSON lacks become null."""
    current().answer = value


def warn(message: str) -> None:
    """One line on stderr."""
    current().complain(f"warning: {message}")


# --- for people ----------------------------------------------------------------------------------


class _Shown(io.TextIOBase):
    """Text for stdout, unless the run is quiet, and for its log."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def write(self, text: str, /) -> int:
        if not self._run.quiet:
            self._run.stdout.write(text)
        if self._run.log is not None:
            self._run.log.write(text)
        return len(text)

    def flush(self) -> None:
        self._run.stdout.flush()

    def isatty(self) -> bool:
        return self._run.stdout.isatty()


@dataclass(frozen=True)
class _Plain:
    """What a console shows, its text visible: rich's own styles are the only commands in it."""

    shown: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for text, style, control in console.render(self.shown, options):
            yield Segment(text if control else visible(text), style, control)


class _Visible(RenderHook):
    def process_renderables(self, renderables: list[Any]) -> list[Any]:
        return [_Plain(one) for one in renderables]


def wide_console() -> Console:
    """As wide as the terminal, or wide enough for tables in a file."""
    shown = cast(TextIO, _Shown(current()))  # as much of one as rich asks for
    console = Console(file=shown, highlight=False)
    console.push_render_hook(_Visible())
    if not console.is_terminal:
        console.width = 120
    return console


def narrow_console() -> Console:
    """As wide as the terminal; in a file or a pipe as wide as the narrowest usual one."""
    console = wide_console()
    if not console.is_terminal:
        console.width = 80
    return console


def show_warning(warning: str | None) -> None:
    """That a network lost much, before anything else."""
    if warning is not None:
        wide_console().print(escape(current().flagged(warning)), style="bold", soft_wrap=True)


def measured_line(speedup: float, precision: str) -> str:
    """What `on_this_machine` found of the result, for people."""
    from shrinkc.compiler.formats.registry import HOST_FORMAT

    precisions = "fp32 before and after" if precision == "fp32" else f"fp32, then {precision}"
    return f"measured here, {HOST_FORMAT.file}, {precisions}: {speedup:.2f}×"


# --- progress ------------------------------------------------------------------------------------


class Logged:
    """Progress that also tells the log when a job starts, and how long it took."""

    def __init__(self, shown: Progress, log: Log) -> None:
        self._shown, self._log = shown, log

    @contextmanager
    def task(self, text: str, total: int | None = None) -> Generator[Advance]:
        started = time.monotonic()
        self._log.write(f"{text}\n")
        with self._shown.task(text, total) as advance:
            yield advance
        self._log.write(f"{text}: done in {time.monotonic() - started:.1f} s\n")


def progress() -> Progress:
    """Bars on a terminal; nothing where stderr is piped, the run quiet, or JSON asked for."""
    run = current()
    silent = run.as_json or run.quiet or not sys.stderr.isatty()
    shown: Progress = Silent() if silent else Terminal()
    return shown if run.log is None else Logged(shown, run.log)
