"""SIGINT as at a terminal, wherever the tests run.

A shell starts background jobs with SIGINT ignored, and so does `nohup make test &`. Their children
inherit that, and Python then installs no handler of its own.
"""

import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def interruptible() -> Iterator[None]:
    """While it lasts, SIGINT raises KeyboardInterrupt."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def started(
    command: Sequence[str | Path], environment: Mapping[str, str]
) -> "subprocess.Popen[str]":
    """The command, running, its streams in pipes: it starts with SIGINT's default action."""
    with interruptible():
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
