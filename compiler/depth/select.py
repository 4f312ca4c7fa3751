"""Which choices to take: the least damage within a budget, exactly.

Spans are intervals of the graph (`region_order`), of which disjoint ones may be chosen; each has
several choices, of which one may be taken. Walking the positions in order, only the partial plans
that no other one beats in both saving and damage are kept:

    F(j) = best over choices c that end at j of F(first(c) − 1) + (saving, damage) of c, and F(j−1)

The number of partial plans is bounded by rounding savings down to `STEPS`-ths of what is asked for
once there are many, so that a budget is never exceeded.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from shrinkc.errors import UnreachableGoalError
from shrinkc.passes.algebra.intervals import Interval, best_disjoint

MANY, STEPS, COARSE = 2, 2_000, 250  # partial plans are too many when twice as many as steps


@dataclass(frozen=True)
class Option:
    """Positions first … last (included), what it saves and what it does to the network."""

    first: int
    last: int
    saving: float
    damage: float


@dataclass(frozen=True)
class _Plan:
    saving: float
    damage: float
    index: int = -1
    before: _Plan | None = None

    def indices(self) -> list[int]:
        found: list[int] = []
        plan: _Plan | None = self
        while plan is not None and plan.index >= 0:
            found.append(plan.index)
            plan = plan.before
        return found[::-1]


def select(options: Sequence[Option], saving: float) -> list[int]:
    """Indices of disjoint options that save at least `saving` and do the least damage.

    Raises UnreachableGoalError, which names the most that can be saved, when that is less.
    """
    if saving <= 0:
        return []
    frontier = _frontiers(options, saving)
    enough = [plan for plan in frontier if plan.saving >= saving]
    if not enough:  # also when only rounding stands between
        return _most(options, saving)
    return min(enough, key=lambda plan: plan.damage).indices()


def least_damage(options: Sequence[Option], savings: Sequence[float]) -> list[float]:
    """Of saving at least each of `savings`, within a `COARSE`-th of the largest; infinite where
    that cannot be."""
    asked = min(max(savings, default=0.0), most(options))
    if asked <= 0:
        return [0.0 if saving <= 0 else math.inf for saving in savings]
    frontier = _frontiers(options, asked, COARSE)
    return [
        min((plan.damage for plan in frontier if plan.saving >= saving), default=math.inf)
        for saving in savings
    ]


def _most(options: Sequence[Option], saving: float) -> list[int]:
    if most(options) < saving:
        raise UnreachableGoalError(f"at most {most(options):.4g} ms can be saved, not {saving:.4g}")
    return best_disjoint([Interval(o.first, o.last, o.saving) for o in options])


def most(options: Sequence[Option]) -> float:
    """The largest saving of disjoint options."""
    ordered = sorted(options, key=lambda o: o.last)
    lasts = [o.last for o in ordered]
    best = [0.0]
    for option in ordered:
        best.append(max(best[-1], best[bisect_left(lasts, option.first)] + option.saving))
    return best[-1]


def _frontiers(options: Sequence[Option], saving: float, steps: int = STEPS) -> list[_Plan]:
    """The undominated plans over all options."""
    order = sorted(range(len(options)), key=lambda i: options[i].last)
    lasts = [options[i].last for i in order]
    known: list[list[_Plan]] = [[_Plan(0.0, 0.0)]]
    for position, index in enumerate(order):
        option = options[index]
        start = known[bisect_left(lasts, option.first)]
        added = (
            _Plan(plan.saving + option.saving, plan.damage + option.damage, index, plan)
            for plan in start
        )
        known.append(_undominated([*known[position], *added], saving, steps))
    return known[-1]


def _undominated(plans: Iterable[_Plan], saving: float, steps: int) -> list[_Plan]:
    """Most saving first, damage falling."""
    kept = list(_falling(sorted(plans, key=lambda p: (-min(p.saving, saving), p.damage))))
    if len(kept) <= MANY * steps:
        return kept
    step = saving / steps
    rounded = (_Plan(math.floor(p.saving / step) * step, p.damage, p.index, p.before) for p in kept)
    return list(_falling(sorted(rounded, key=lambda p: (-min(p.saving, saving), p.damage))))


def _falling(plans: Iterable[_Plan]) -> Iterator[_Plan]:
    least = math.inf
    for plan in plans:
        if plan.damage < least:
            least = plan.damage
            yield plan
