"""Progress for whoever watches: bars on a terminal, nothing when piped."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """A long job tells how far it is."""

    def task(
        self, text: str, total: int | None = None
    ) -> AbstractContextManager[Callable[[], None]]:
        """A named job; call the yielded function once per finished unit of `total`."""
        ...


class Silent:
    """For pipes, JSON and callers that do not care."""

    @contextmanager
    def task(self, text: str, total: int | None = None) -> Generator[Callable[[], None]]:
        yield lambda: None


class Terminal:
    """Bars with the time left, on stderr, gone when done."""

    @contextmanager
    def task(self, text: str, total: int | None = None) -> Generator[Callable[[], None]]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        text_column = TextColumn("{task.description}")
        columns = (
            (SpinnerColumn(), text_column)
            if total is None
            else (text_column, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        )
        with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(text, total=total)
            yield lambda: bars.advance(task)
