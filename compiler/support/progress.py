"""Progress for whoever watches: bars on a terminal, nothing when piped."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from shrinkc.compiler.support.text import visible
from shrinkc.errors import InputError


class Advance(Protocol):
    """One unit of a job is finished; `note` says how it stands and replaces the last note."""

    def __call__(self, note: str = "") -> None: ...


class Progress(Protocol):
    """A long job tells how far it is."""

    def task(self, text: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """A named job; call the yielded function once per finished unit of `total`."""
        ...


class Silent:
    """For pipes, JSON and callers that do not care."""

    @contextmanager
    def task(self, text: str, total: int | None = None) -> Generator[Advance]:
        yield lambda note="": None


class Terminal:
    """Bars with the time left, on stderr, gone when done; jobs of several threads each have one."""

    def __init__(self) -> None:
        self._lock, self._tasks = threading.Lock(), 0
        self._bars: Any = None

    @contextmanager
    def task(self, text: str, total: int | None = None) -> Generator[Advance]:
        with self._lock:
            if self._tasks == 0:
                self._bars = _bars()
                self._bars.start()
            self._tasks += 1
            bars, task = self._bars, self._bars.add_task(visible(text), total=total)

        def advance(note: str = "") -> None:
            bars.update(task, advance=1, description=visible(f"{text} {note}" if note else text))

        try:
            yield advance
        finally:
            with self._lock:
                bars.remove_task(task)
                self._tasks -= 1
                if self._tasks == 0:
                    bars.stop()


def shown_by(progress: Progress | bool) -> Progress:
    """True: bars on stderr; False: nothing; or whatever shows it."""
    if isinstance(progress, bool):
        return Terminal() if progress else Silent()
    if not callable(getattr(progress, "task", None)):
        raise InputError(f"`progress` is a {type(progress).__name__}; give True or False")
    return progress


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Count(TextColumn):
        """ "3/10", and nothing for a job of unknown size."""

        def render(self, task: Task) -> Text:
            known = task.total is not None
            return Text(f"{int(task.completed)}/{int(task.total or 0)}" if known else "")

    class Left(TimeRemainingColumn):
        def render(self, task: Task) -> Text:
            return super().render(task) if task.total is not None else Text("")

    text = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), text, BarColumn(), Count(""), Left())
    return Progress(*columns, console=Console(stderr=True), transient=True)
