"""Jobs for processes: what they import is imported again by each."""

import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shrinkc.errors import UnsupportedOperatorError


def scored(model: nn.Module, table: torch.Tensor, index: int) -> tuple[float, int, int]:
    """A score, and where it was computed. Later ones are done first."""
    time.sleep(0.02 * (3 - index % 3))
    with torch.no_grad():
        score = float(model(table[index : index + 1]).sum())
    return score, os.getpid(), torch.get_num_threads()


def failing(kind: str) -> Any:
    if kind == "own":
        raise UnsupportedOperatorError("n1", "erf", "TFLite")  # does not survive pickling
    if kind == "division":
        return 1 // 0
    if kind == "exit":
        os._exit(3)
    return (lambda: 1) if kind == "closure" else 1


arrivals: list[int] = []  # of `Arriving`, in this process


class Arriving:
    """Known each time that it is unpickled."""

    def __reduce__(self) -> Any:
        return arrived, ()


def arrived() -> Arriving:
    arrivals.append(os.getpid())
    return Arriving()


def numbered(shared: Arriving, index: int) -> tuple[int, int]:
    """The index, and how often the shared one arrived in the process."""
    return index, len(arrivals)


def slowly(index: int, seconds: float) -> tuple[int, int]:
    time.sleep(seconds)
    return index, os.getpid()


def slow(folder: Path) -> None:
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(300)


def failing_later(folder: Path) -> None:
    while not (folder / "pid").exists():
        time.sleep(0.02)
    raise UnsupportedOperatorError("n1", "erf", "TFLite")
