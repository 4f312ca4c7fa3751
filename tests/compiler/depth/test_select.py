"""The choice under a budget equals trying everything."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from shrinkc.compiler.depth import select as module
from shrinkc.compiler.depth.select import Option, most, select
from shrinkc.errors import InputError


def random_options(seed: int) -> list[Option]:
    """Up to nine options over few positions, so that many overlap; savings may be equal."""
    rng = random.Random(seed)
    found: list[Option] = []
    for _ in range(rng.randint(1, 9)):
        first = rng.randint(0, 8)
        saving = rng.choice([rng.random(), 0.25, 0.5])
        found.append(Option(first, first + rng.randint(0, 3), saving, rng.random()))
    return found


def disjoint(options: list[Option], indices: tuple[int, ...]) -> bool:
    pairs = itertools.combinations((options[i] for i in indices), 2)
    return all(a.last < b.first or b.last < a.first for a, b in pairs)


def everything(options: list[Option]) -> list[tuple[float, float]]:
    """(saving, damage) of every set of disjoint options."""
    sets = itertools.chain.from_iterable(
        itertools.combinations(range(len(options)), n) for n in range(len(options) + 1)
    )
    return [
        (sum(options[i].saving for i in s), sum(options[i].damage for i in s))
        for s in sets
        if disjoint(options, s)
    ]


@pytest.mark.parametrize("seed", range(200))
def test_equals_brute_force(seed: int) -> None:
    options = random_options(seed)
    plans = everything(options)
    best = max(saving for saving, _ in plans)
    assert most(options) == pytest.approx(best)
    for share in (0.2, 0.6, 0.95):
        found = tuple(select(options, share * best))
        assert disjoint(options, found)
        assert sum(options[i].saving for i in found) >= share * best
        least = min(damage for saving, damage in plans if saving >= share * best)
        assert sum(options[i].damage for i in found) == pytest.approx(least)


@pytest.mark.parametrize("seed", range(60))
def test_equals_an_integer_program(seed: int) -> None:
    """HiGHS, on instances too large to try everything."""
    rng = random.Random(seed)
    options = [
        Option(first, first + rng.randint(0, 2), rng.random(), rng.random())
        for first in (rng.randint(0, 14) for _ in range(30))
    ]
    asked = 0.7 * most(options)
    covers = [[float(o.first <= at <= o.last) for o in options] for at in range(17)]
    solved = milp(
        [o.damage for o in options],
        constraints=[
            LinearConstraint(np.array(covers), -np.inf, 1),
            LinearConstraint(np.array([[o.saving for o in options]]), asked, np.inf),
        ],
        integrality=np.ones(len(options)),
        bounds=Bounds(0, 1),
    )
    found = select(options, asked)
    assert sum(options[i].damage for i in found) == pytest.approx(solved.fun, abs=1e-6)


def test_many_plans_are_thinned_and_the_budget_still_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(0)
    options = [Option(i, i, rng.random(), rng.random()) for i in range(40) for _ in range(3)]
    exact = select(options, 12.0)
    monkeypatch.setattr(module, "MANY", 50)
    thinned = select(options, 12.0)
    assert sum(options[i].saving for i in thinned) >= 12.0
    damages = [sum(options[i].damage for i in plan) for plan in (exact, thinned)]
    assert damages[0] <= damages[1] <= 1.05 * damages[0]


def test_nothing_is_asked_for() -> None:
    assert select(random_options(0), 0.0) == []


def test_too_much_is_asked_for() -> None:
    options = [Option(0, 1, 1.0, 0.1), Option(1, 2, 2.0, 0.1), Option(3, 3, 0.5, 0.1)]
    assert select(options, 2.5) == [1, 2]
    with pytest.raises(InputError, match=r"at most 2\.5 ms can be saved, not 2\.6"):
        select(options, 2.6)
