"""Losses of single steps become rows of a log: one JSON object a line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from shrinkc.compiler.support.reading.regular_file import read_regular
from shrinkc.compiler.support.reading.strict_json import parse_json
from shrinkc.compiler.train.compute import ALONE, Ranks

Row = dict[str, Any]
MAX_BYTES = 1 << 30


@dataclass
class Tally:
    """Sums since the last row; `since` is the training time at which they started."""

    loss: float = 0.0
    correct: float = 0.0
    agreeing: float = 0.0
    steps: int = 0
    images: int = 0
    since: float = 0.0

    def add(self, loss: float, correct: float, agreeing: float, images: int) -> None:
        self.loss += loss
        self.correct += correct
        self.agreeing += agreeing
        self.steps += 1
        self.images += images

    def row(self, labelled: bool, taught: bool, seconds: float) -> Row:
        row: Row = {"loss": self.loss / max(self.steps, 1)}
        images = max(self.images, 1)
        if labelled:
            row["accuracy"] = self.correct / images
        if taught:
            row["agreement"] = self.agreeing / images
        row["seconds"] = round(seconds, 3)
        row["images_per_s"] = round(self.images / max(seconds - self.since, 1e-9), 1)
        return row


@dataclass
class Meter:
    """Collects what steps measured and asks the device for it only now and then.

    A step's measurement is a float64 tensor: mean loss, correct and agreeing images, of this
    rank. `settle` adds the ranks up.
    """

    ranks: Ranks = ALONE
    window: Tally = field(default_factory=Tally)
    epoch: Tally = field(default_factory=Tally)
    last: tuple[float, float, float] = (math.nan, 0.0, 0.0)
    _open: list[Tensor] = field(default_factory=list[Tensor])

    def add(self, measured: Tensor) -> None:
        self._open.append(measured)

    def settle(self, images: int, stop: bool) -> tuple[int | None, bool]:
        """Steps since the last call enter both tallies, each with `images`.

        Returns the number of the first of them whose loss is not finite, counted back from the
        newest (0), and whether any rank wants to stop.
        """
        rows = torch.stack(self._open) if self._open else torch.zeros(0, 3, dtype=torch.float64)
        flag = rows.new_tensor([[float(stop), 0.0, 0.0]])
        *steps, stops = rows_of(self.ranks.total(torch.cat((rows, flag))))
        self._open.clear()
        for index, (loss, correct, agreeing) in enumerate(steps):
            if not math.isfinite(loss):
                return len(steps) - 1 - index, stops[0] > 0
            self.last = (loss / self.ranks.count, correct / images, agreeing / images)
            for tally in (self.window, self.epoch):
                tally.add(self.last[0], correct, agreeing, images)
        return None, stops[0] > 0


class Log:
    """`log.jsonl`: rows go to the file as they come; None: nowhere."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def start(self, steps: int, epochs: int) -> None:
        """Keep the rows up to a checkpoint: `steps` steps and `epochs` epochs are finished."""
        if self._path is None:
            return
        rows = [] if not steps else _rows(self._path)
        kept = [row for row in rows if _before(row, steps, epochs)]
        partial = self._path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        partial.replace(self._path)

    def write(self, row: Mapping[str, Any]) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def rows_of(tensor: Tensor) -> list[list[float]]:
    return cast(Any, tensor).tolist()


def _before(row: Row, steps: int, epochs: int) -> bool:
    """Rows that hold something else do not count."""
    name, finished = ("epoch", epochs - 1) if row.get("event") == "epoch" else ("step", steps)
    return type(row.get(name)) is int and row[name] <= finished


def _rows(path: Path) -> list[Row]:
    """Complete rows; a killed process may have left half of one."""
    rows: list[Row] = []
    try:
        lines = read_regular(path, MAX_BYTES).splitlines()
    except OSError:
        return rows
    for line in lines:
        try:
            row = parse_json(line)
        except ValueError:
            continue
        rows += [cast(Row, row)] if isinstance(row, dict) else []
    return rows
