"""One goal for plan, prune and shrink: exactly one thing is asked for, and it can be meant."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nan
from typing import Any

import numpy as np
import pytest

from shrinkc.compiler.cost.goal import KINDS, PLAN_GOALS, SHRINK_GOALS, Goal
from shrinkc.errors import InputError

GOOD = {
    "speedup": 2.5,
    "budget_ms": 20,
    "max_drop": 0,
    "max_error": 0.05,
    "macs": 0.5,
    "params": 0.1,
    "channels": 0.9,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_made_in_three_ways_and_shown_in_one_line(kind: str) -> None:
    value: Any = GOOD[kind]
    goal = getattr(Goal, kind)(value)
    assert goal == Goal(kind, value) == Goal.of(**{kind: value})  # pyright: ignore
    assert (goal.kind, goal.value) == (kind, value)
    assert repr(goal) == str(goal) == f"Goal.{kind}({value:g})"
    assert hash(goal) == hash(Goal.of(**{kind: value}))


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_any_real_number_becomes_a_float(value: Any) -> None:
    assert type(Goal.macs(value).value) is float


@pytest.mark.parametrize(
    ("kind", "values", "wanted"),
    [
        ("speedup", (1, 0.5, -2, nan, inf, 10**400), "give more than 1"),
        ("budget_ms", (0, -1, nan, inf), "give milliseconds above 0"),
        ("max_drop", (-1, 100, nan, inf), "give points of top-1, 0 to 100"),
        (
            "max_error",
            (-1, 0, 1, nan, inf),
            "give a share of the variance, between 0 and 1",
        ),
        ("macs", (0, 1, -0.5, 2, nan), "give the share to keep, between 0 and 1"),
        ("params", (0, 1, nan), "give the share to keep, between 0 and 1"),
        ("channels", (0, 1, nan), "give the share to keep, between 0 and 1"),
        *((kind, (True, "2", None, [2], 1j), "give a number") for kind in KINDS),
    ],
)
def test_values_out_of_range_name_the_parameter(
    kind: str, values: tuple[Any, ...], wanted: str
) -> None:
    for value in values:
        with pytest.raises(InputError, match=f"^`{kind}` .*: {wanted}$"):
            getattr(Goal, kind)(value)


def test_exactly_one_is_given() -> None:
    with pytest.raises(InputError, match=r"^give exactly one of `speedup`, .*, `channels`$"):
        Goal.of()
    with pytest.raises(InputError, match=r"^give exactly one of `speedup`, `budget_ms`$"):
        Goal.of(kinds=SHRINK_GOALS)
    with pytest.raises(InputError, match=r"^give exactly one of `speedup`, `macs`, not several$"):
        Goal.of(macs=0.5, speedup=2)
    with pytest.raises(InputError, match="`kind` 'speed': give one of speedup, "):
        Goal("speed", 2)  # pyright: ignore


def test_a_command_says_what_it_can_aim_at() -> None:
    goal = Goal.speedup(2)
    assert goal.among(PLAN_GOALS) is goal
    with pytest.raises(InputError, match=r"^`macs` cannot be the goal here: give one of `speedup`"):
        Goal.macs(0.5).among(PLAN_GOALS)


def test_budgets_are_in_the_goals_unit() -> None:
    assert (Goal.speedup(2).unit, Goal.speedup(2).budget(30)) == ("ms", 15)
    assert (Goal.budget_ms(20).unit, Goal.budget_ms(20).budget(30)) == ("ms", 20)
    assert (Goal.macs(0.5).unit, Goal.macs(0.5).budget(1000)) == ("macs", 500)
    with pytest.raises(InputError, match="30 ms fit into 30 ms already; give less"):
        Goal.budget_ms(30).budget(30)
    with pytest.raises(ValueError, match="counts no cost"):
        _ = Goal.max_drop(1).unit
