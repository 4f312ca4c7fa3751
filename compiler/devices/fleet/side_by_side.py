"""One thread a board: what each does is waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
PAUSE_S = 1.0  # after which Ctrl-C gets through, on Windows too


class _Work(Generic[R]):
    """A call in a thread that does not keep Python from ending."""

    def __init__(self, call: Callable[[], R], name: str, stop: threading.Event) -> None:
        self._call, self._stop = call, stop
        self._error: BaseException | None = None
        self.results: list[R] = []
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.results.append(self._call())
        except BaseException as error:
            self._error = error
            self._stop.set()

    def wait(self) -> None:
        while self._thread.is_alive():
            self._thread.join(PAUSE_S)

    def require(self) -> None:
        """Raises what the call raised."""
        if self._error is not None:
            raise self._error


def side_by_side(
    items: Sequence[T],
    work: Callable[[T], R],
    stop: threading.Event,
    stopped: Callable[[list[R]], None] | None = None,
) -> list[R]:
    """What `work` gives for each, in order.

    Ctrl-C sets `stop`, and so does an exception of `work`: what the others do then is up to them.
    They are waited for before it goes on; after Ctrl-C not where there is `stopped`, which is given
    what is there by then.
    """
    threads = [
        _Work(lambda item=item: work(item), f"device {number}", stop)
        for number, item in enumerate(items, 1)
    ]
    try:
        for thread in threads:
            thread.wait()
    except BaseException:
        stop.set()
        if stopped is None:
            for thread in threads:
                thread.wait()
        else:
            stopped([result for thread in threads for result in thread.results])
        raise
    for thread in threads:
        thread.require()
    return [result for thread in threads for result in thread.results]
