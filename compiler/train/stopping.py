"""Ctrl-C and SIGTERM end a training after the running step, with everything saved."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAME_S = 1.0  # torchrun passes on a signal that the terminal sent to everyone


class TrainingStopped(KeyboardInterrupt):
    """A training that was stopped from outside and can go on; the text says where."""


class Stop:
    """Whether to stop; set by the first signal. A later one raises KeyboardInterrupt at once."""

    def __init__(self) -> None:
        self._since: float | None = None

    @property
    def requested(self) -> bool:
        return self._since is not None

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since = now
        elif now - self._since > _SAME_S:
            raise KeyboardInterrupt


@contextmanager
def stop_on_signal() -> Generator[Stop]:
    """While the context lasts; the former handlers come back. In threads it never stops."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    former = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
