"""A result that lost much says so first, and which goal would keep it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import nn
from untouched import small

import shrinkc
from shrinkc import Goal
from shrinkc.compiler.api.steps.much_lost import MUCH, milder_goal, much_lost
from shrinkc.compiler.report.sections import Judged

X = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(200, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def told(judged: Judged | None) -> str | None:
    return much_lost(judged, lambda lost: f"advice for {lost:.2f}")


def test_what_counts_as_much() -> None:
    assert told(None) is None
    assert told(Judged(400, 0.1, 0.88, 0.86)) is None  # labels count, where there are any
    assert told(Judged(400, 0.98, None, None)) is None
    assert told(Judged(400, 0.3, 0.8, 0.9)) is None  # it gained
    assert told(Judged(400, 0.1, 0.88, 0.48)) == (
        "it loses 40.0 points of top-1 (88.0% before, 48.0% after) on 400 images that it had "
        "not seen; advice for 0.40"
    )
    said = told(Judged(400, 0.12, None, None))
    assert said is not None
    assert said.startswith("it agrees with the original on only 12.0% of 400 images")


def loses(curve: Callable[[float], float], goal: Goal, most_s: float = 9.0) -> str:
    return milder_goal(goal, curve(1.0), 10.0, curve, 0.0, most_s)


def test_a_milder_goal_is_found_by_halving() -> None:
    def square(part: float) -> float:
        return 0.4 * part**2  # 3 points at 0.27 of the way

    assert loses(square, Goal.speedup(2)) == "about `speedup` 1.25 loses no more than 3%"
    assert loses(square, Goal.budget_ms(6)) == "about `budget_ms` 9 loses no more than 3%"
    assert loses(square, Goal.macs(0.6)) == "about `macs` 0.9 loses no more than 3%"


@pytest.mark.parametrize("power", [1, 2, 3, 6])
def test_what_is_named_keeps_it(power: int) -> None:
    def curve(part: float) -> float:
        return 0.5 * part**power

    for most_s in (0.0, 9.0):
        value = float(loses(curve, Goal.speedup(3), most_s).split()[2])
        assert curve((value - 1) / 2) <= MUCH + 0.002


def test_it_stops_where_time_is_up() -> None:
    tried: list[float] = []

    def slow(part: float) -> float:
        tried.append(part)
        time.sleep(0.02)
        return part

    milder_goal(Goal.speedup(2), 1.0, 10.0, slow, first_s=0.5, most_s=0.4)
    assert tried == []
    milder_goal(Goal.speedup(2), 1.0, 10.0, slow, first_s=0.02, most_s=0.03)
    assert tried == [0.5]
    assert "only a goal much milder than `speedup` 1.2" in loses(
        lambda part: part, Goal.speedup(1.2)
    )
    assert milder_goal(None, 1.0, None) == "keep more"


def test_pruning_that_ruins_a_network_says_so() -> None:
    torch.manual_seed(0)
    model = small()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight)
    given = {"goal": Goal.macs(0.1), "criterion": "random", "evaluation": IMAGES}
    found = shrinkc.prune(model, X, **given, task=shrinkc.Classification())
    assert found.judged is not None
    assert found.judged.agreement < 0.97
    assert found.warning is not None
    assert found.warning.startswith("it agrees with the original on only ")
    numbers = shrinkc.prune(model, X, **given).warning  # nothing says that they are classes
    assert numbers is not None
    assert numbers.startswith("its error over variance is ")
    assert "images that it had not seen; " in numbers
    gentle = shrinkc.prune(model, X, goal=Goal.macs(0.1))
    assert gentle.warning is None  # nobody judged it
