"""A budget met by measuring: few measurements, never above it, and near."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shrinkc.compiler.cost.budget import CLOSE, measured_within
from shrinkc.errors import InputError

BEFORE = 10.0


class Device:
    """Milliseconds of what is chosen when so many are asked for; savings come in steps."""

    def __init__(self, ms: Callable[[float], float], step: float = 1e-3) -> None:
        self.ms, self.step = ms, step
        self.asked: list[float] = []

    def choose(self, saving: float) -> float:
        self.asked.append(saving)
        return -(-saving // self.step) * self.step

    def within(self, budget: float, first: float | None = None) -> float:
        asked = (0.0, BEFORE - budget if first is None else first, 9.0)
        return measured_within(self.choose, self.ms, asked, budget)[0]


@pytest.mark.parametrize("share", [0.6, 0.8, 0.95, 1.1, 1.4])
@pytest.mark.parametrize("budget", [5.0, 7.0, 9.0])
def test_what_saves_more_or_less_than_promised(share: float, budget: float) -> None:
    device = Device(lambda chosen: BEFORE - share * chosen)
    chosen = device.within(budget)
    assert CLOSE * budget < BEFORE - share * chosen <= budget
    assert len(device.asked) <= 4


def test_what_bends() -> None:
    device = Device(lambda chosen: BEFORE - chosen**1.3 / 2)
    chosen = device.within(7.0)
    assert CLOSE * 7 < BEFORE - chosen**1.3 / 2 <= 7
    assert len(device.asked) <= 5


def test_steps_that_never_come_near_end_with_the_nearest_below() -> None:
    device = Device(lambda chosen: BEFORE - chosen, step=2.0)
    assert device.within(7.5) == 4.0
    assert len(device.asked) <= 8


def test_what_fits_as_it_is_stays() -> None:
    device = Device(lambda chosen: 5.0 - chosen / 10)
    assert device.within(7.0) == 0.0
    assert device.asked == [0.0]


def test_out_of_reach() -> None:
    with pytest.raises(InputError, match="no plan was measured within 3 ms"):
        Device(lambda chosen: BEFORE - chosen / 10).within(3.0)


def test_the_table_may_think_less_possible_than_there_is() -> None:
    """It asks for more than the table's most; measured, the most is enough."""
    device = Device(lambda chosen: BEFORE - 1.1 * chosen)
    assert 0 < BEFORE - 1.1 * device.within(0.2, first=9.8) <= 0.2


def test_the_most_is_measured_before_the_budget_is_given_up() -> None:
    """Nothing is gained until nearly everything is taken: halving comes near and never there."""
    device = Device(lambda chosen: 3.0 if chosen >= 8.99 else 9.0)
    assert device.within(5.0) == pytest.approx(9.0)
    with pytest.raises(InputError, match="the fastest took 3 ms"):
        device.within(2.0)


def test_the_most_may_be_slower_than_less() -> None:
    """What is left of a network may run worse than what was taken from it."""
    device = Device(lambda chosen: 12.0 if chosen > 8 else BEFORE - 0.7 * chosen)
    assert CLOSE * 6 < BEFORE - 0.7 * device.within(6.0) <= 6
    device = Device(lambda chosen: 12.0 if chosen > 8 else BEFORE - 0.9 * chosen)
    assert BEFORE - 0.9 * device.within(3.0, first=9.0) <= 3
