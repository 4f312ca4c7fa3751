"""Boards that are played: what runs on them sleeps."""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shrinkc.compiler.devices.jobs import (
    CPU_RUNTIMES,
    REFERENCE,
    Array,
    Failed,
    Measured,
    Method,
    Model,
    Ran,
    Setup,
)
from shrinkc.compiler.profile.measure import TINY
from shrinkc.errors import DeviceError, DeviceLostError

ROUNDS = 20
NOISE = 0.02  # standard deviation of a round, as a share
_DICE = random.Random(0)
_NOISES = [[_DICE.gauss(1, NOISE) for _ in range(ROUNDS)] for _ in range(101)]


@dataclass
class SleepingBoard:
    """A device, and its only session.

    slower    its times over another board's
    sleep_s   what one model takes to be measured
    lasts     models after which it disappears, once
    away      it cannot be reached
    factor    its outputs over those of other machines
    """

    name: str
    slower: float = 1.0
    sleep_s: float = 0.0
    lasts: int | None = None
    away: bool = False
    version: str = "2.1"
    factor: float = 1.0
    seen: int = 0
    setups: list[Setup] = field(default_factory=list[Setup])
    conditions: Mapping[str, Any] = field(default_factory=lambda: {"temperature_c": 40.0})
    runtimes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: CPU_RUNTIMES)

    @property
    def environment(self) -> Mapping[str, Any]:
        return {
            **{"device": "Played Board", "cpu": "played", "system": "Linux 6"},
            **{"runtime": "ai-edge-litert", "runtime_version": self.version},
        }

    @contextmanager
    def open(self, setup: Setup) -> Generator[SleepingBoard]:
        if self.away:
            raise DeviceError(
                f"{self.name}: no route to it: is it switched on and in this network?"
            )
        self.setups.append(setup)
        yield self

    def measure(self, models: Sequence[Model], method: Method) -> Iterator[Measured | Failed]:
        time.sleep(self.sleep_s * len(models))
        for model in models:
            self.seen += 1
            if self.lasts is not None and self.seen > self.lasts:
                self.lasts = None
                text = f"{self.name}: lost while running {model.name}: the connection was lost"
                raise DeviceLostError(text, model.name, crashed=False)
            if model.name != REFERENCE:
                yield self._measured(model, min(ROUNDS, method.rounds[1]), models[0])

    def _measured(self, model: Model, rounds: int, first: Model) -> Measured:
        usual = (3.0 if model.name == TINY else 40.0 + len(model.name)) * self.slower  # µs
        noise = _NOISES[(self.seen * 7 + len(self.name) + ord(self.name[-1])) % len(_NOISES)]
        times = tuple(round(usual * one, 3) for one in noise[:rounds])
        reference = (20.0 * self.slower,) * rounds if first.name == REFERENCE else ()
        return Measured(model.name, times, reference)

    def run(self, model: Model, inputs: Sequence[Array] | None) -> Ran | Failed:
        if self.lasts == 0:
            raise DeviceLostError(
                f"{self.name}: the connection was lost", model.name, crashed=False
            )
        zeros = np.zeros((1, 3), np.float32)
        outputs = (zeros + np.float32(self.factor),)
        return Ran((zeros,), outputs, 10_000_000, 12_000_000, f"ai-edge-litert {self.version}")


def fleet_file(path: Path, boards: Sequence[Mapping[str, Any]]) -> Path:
    """A TOML file of these boards."""
    sections = (
        "\n".join(["[[boards]]", *(f"{key} = {value!r}" for key, value in board.items())])
        for board in boards
    )
    path.write_text("\n\n".join(sections) + "\n")
    return path


def lab(path: Path, count: int, **more: Any) -> Path:
    """lab-1, lab-2, … of kind pi4, whose table is pi4-lab."""
    boards = (
        {"name": f"lab-{i}", "address": f"ssh://pi@lab-{i}", "kind": "pi4", **more}
        for i in range(1, count + 1)
    )
    return fleet_file(path, [{"target": "pi4-lab", **board} for board in boards])


def play(patch: pytest.MonkeyPatch, boards: Sequence[SleepingBoard]) -> None:
    """Addresses lead to these boards."""
    known = {board.name: board for board in boards}
    patch.setattr(
        "shrinkc.compiler.devices.fleet.file.parse_device", lambda address, _: known[address]
    )
