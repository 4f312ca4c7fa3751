"""A device that throttles: noticed, paced, said."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from shrinkc.compiler.profile.pace import Pace

COOL: Mapping[str, Any] = {"temperature_c": 55.0, "frequency_mhz": 1800.0}
HOT: Mapping[str, Any] = {"temperature_c": 84.2, "frequency_mhz": 1000.0}
SLOW: Mapping[str, Any] = {"temperature_c": 71.0, "frequency_mhz": 1400.0}
IDLE: Mapping[str, Any] = {"temperature_c": 45.0, "frequency_mhz": 600.0}
UNKNOWN: Mapping[str, Any] = {"temperature_c": None, "frequency_mhz": None}


class Board:
    """Its conditions after each measurement, the last ones for ever; measurements are numbered."""

    def __init__(self, *conditions: Mapping[str, Any]) -> None:
        self.conditions, self.measured = conditions, 0

    def measure(self) -> int:
        self.measured += 1
        return self.measured

    def now(self) -> Mapping[str, Any]:
        return self.conditions[min(self.measured, len(self.conditions)) - 1]


def pace(seconds: float = 60.0) -> Pace:
    return Pace(time.monotonic() + seconds, rests_s=(0.01, 0.02))


@pytest.mark.parametrize("quiet", [COOL, IDLE, UNKNOWN])
def test_a_cool_device_is_measured_once(quiet: Mapping[str, Any]) -> None:
    board, own = Board(COOL, quiet), pace()
    assert [own.settled(board.measure, board.now) for _ in range(3)] == [1, 2, 3]
    assert (str(own), own.rested_s) == ("", 0.0)


@pytest.mark.parametrize("throttled", [HOT, SLOW])
def test_what_a_hot_device_gave_is_measured_again(throttled: Mapping[str, Any]) -> None:
    board, own = Board(COOL, throttled, COOL), pace()
    assert own.settled(board.measure, board.now) == 1
    assert own.settled(board.measure, board.now) == 3
    assert own.rested_s == pytest.approx(0.01)
    assert f"{throttled['temperature_c']:.0f} °C" in str(own)
    assert "slow clock" not in str(own)


def test_one_that_stays_hot_is_taken_as_it_is_and_said() -> None:
    board, own = Board(HOT), pace()
    assert own.settled(board.measure, board.now) == 3
    assert "84 °C, 1000 MHz" in str(own)
    assert "1 measurements are of the slow clock" in str(own)


def test_the_time_that_is_left_is_not_slept_away() -> None:
    board, own = Board(HOT), Pace(time.monotonic() + 0.5)
    started = time.monotonic()
    assert own.settled(board.measure, board.now) == 1
    stopped = Pace(time.monotonic() + 1e3, threading.Event())
    stopped.stop.set()
    assert stopped.settled(board.measure, board.now) == 2
    assert time.monotonic() - started < 5
    assert stopped.over
