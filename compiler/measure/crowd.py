"""Whether anything else uses this machine's cores while something is timed."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

STAT = Path("/proc/stat")
MOST = 0.2  # of the cores, that others may use: a core they have left is slower too, by its caches
SHORTEST = 0.5  # seconds; the system counts in hundredths

# user, nice, system, irq, softirq, steal: columns of the first line of /proc/stat, in ticks
_BUSY_COLUMNS = (1, 2, 3, 6, 7, 8)


class CrowdedMachine(UserWarning):
    """Files were timed while other programs ran."""


@contextmanager
def watched(workers: Callable[[], float] = lambda: 0.0) -> Generator[None]:
    """Warn where others took more than `MOST` of the cores meanwhile; where the system does not
    tell, say nothing. `workers`: seconds of processors that processes of ours have used."""
    started, busy, own = time.monotonic(), _busy_seconds(), time.process_time() + workers()
    yield
    took, ended = time.monotonic() - started, _busy_seconds()
    if busy is None or ended is None or took < SHORTEST:
        return
    ours = time.process_time() + workers() - own
    others = (ended - busy - ours) / (took * (os.cpu_count() or 1))
    if others > MOST:
        warnings.warn(
            "other programs use this machine's cores while files are timed, so times and what is "
            "decided by them are unsure; run again when it is idle",
            CrowdedMachine,
            stacklevel=3,
        )


def _busy_seconds() -> float | None:
    """Of all cores together, since the system started."""
    try:
        first = STAT.read_text().partition("\n")[0].split()
        ticks = sum(int(first[column]) for column in _BUSY_COLUMNS)
        return ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):  # not Linux
        return None
