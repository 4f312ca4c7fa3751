"""Which choices to take: the least damage within a budget, exactly.

Spans are intervals of the graph (`region_order`), of which disjoint ones may be chosen; each has
several choices, of which one may be taken. Walking the positions in order, only the partial plans
that no other one beats in both saving and damage are kept:

    F(j) = best over choices c that end at j of F(first(c) − 1) + (saving, damage) of c, and F(j−1)

Choices may say in which state they leave the values at their ends, an activation there or none.
Those that share a value must agree on it (Kim et al., 2023, appendix B): F is then kept for every
state of the values that later choices still name.

The number of partial plans is bounded by rounding savings down to `STEPS`-ths of what is asked for
once there are many, so that a budget is never exceeded.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from shrinkc.errors import UnreachableGoalError

MANY, STEPS, COARSE = 2, 2_000, 250  # partial plans are too many when twice as many as steps


End = tuple[str, bool]  # a value, and whether an activation follows it
State = frozenset[End]


@dataclass(frozen=True)
class Option:
    """Positions first … last (included), what it saves and what it does to the network. `ends`:
    the states that it gives to values at its ends."""

    first: int
    last: int
    saving: float
    damage: float
    ends: tuple[End, ...] = ()

    def goes_with(self, other: Option) -> bool:
        """Whether both can be chosen."""
        apart = self.last < other.first or other.last < self.first
        return apart and _agree(self.ends, other.ends)


def _agree(some: Iterable[End], others: Iterable[End]) -> bool:
    known = dict(some)
    return all(known.get(value, state) == state for value, state in others)


@dataclass(frozen=True)
class Plan:
    """Options that were chosen, as a list that goes back to the first."""

    saving: float
    damage: float
    index: int = -1
    before: Plan | None = None

    def indices(self) -> list[int]:
        found: list[int] = []
        plan: Plan | None = self
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
    enough = [plan for plan in frontier(options, saving) if plan.saving >= saving]
    if not enough:  # also when only rounding stands between
        return _most(options, saving)
    return min(enough, key=lambda plan: plan.damage).indices()


def least_damage(options: Sequence[Option], savings: Sequence[float]) -> list[float]:
    """Of saving at least each of `savings`, within a `COARSE`-th of the largest; infinite where
    that cannot be."""
    asked = min(max(savings, default=0.0), most(options))
    if asked <= 0:
        return [0.0 if saving <= 0 else math.inf for saving in savings]
    plans = frontier(options, asked, COARSE)
    return [
        min((plan.damage for plan in plans if plan.saving >= saving), default=math.inf)
        for saving in savings
    ]


def _most(options: Sequence[Option], saving: float) -> list[int]:
    best = _largest(options)
    if best.saving < saving:
        raise UnreachableGoalError(f"at most {best.saving:.4g} ms can be saved, not {saving:.4g}")
    return best.indices()


def most(options: Sequence[Option]) -> float:
    """The largest saving of options that go together."""
    return _largest(options).saving


def _largest(options: Sequence[Option]) -> Plan:
    harmless = [replace(option, damage=0.0) for option in options]
    return max(frontier(harmless, math.inf), key=lambda plan: plan.saving)


def frontier(options: Sequence[Option], saving: float, steps: int = STEPS) -> list[Plan]:
    """The undominated plans over all options."""
    order = sorted(range(len(options)), key=lambda i: options[i].last)
    lasts = [options[i].last for i in order]
    named = _named_from([options[i].ends for i in order])
    known: list[dict[State, list[Plan]]] = [{frozenset(): [Plan(0.0, 0.0)]}]
    for position, index in enumerate(order):
        option, later = options[index], named[position + 1]
        found: defaultdict[State, list[Plan]] = defaultdict(list)
        for state, plans in known[position].items():
            found[_still(state, later)] += plans
        for state, plans in known[bisect_left(lasts, option.first)].items():
            if _agree(state, option.ends):
                found[_still(state.union(option.ends), later)] += [
                    Plan(plan.saving + option.saving, plan.damage + option.damage, index, plan)
                    for plan in plans
                ]
        known.append({state: _undominated(plans, saving, steps) for state, plans in found.items()})
    return known[-1][frozenset()]


def _named_from(ends: Sequence[Sequence[End]]) -> list[frozenset[str]]:
    """The values that options at each position and later name."""
    found = [frozenset[str]()]
    for some in reversed(ends):
        found.append(found[-1].union(value for value, _ in some))
    return found[::-1]


def _still(state: State, named: frozenset[str]) -> State:
    return frozenset(end for end in state if end[0] in named) if state else state


def _undominated(plans: Iterable[Plan], saving: float, steps: int) -> list[Plan]:
    """Most saving first, damage falling."""
    kept = list(_falling(sorted(plans, key=lambda p: (-min(p.saving, saving), p.damage))))
    if len(kept) <= MANY * steps:
        return kept
    step = saving / steps
    rounded = (Plan(math.floor(p.saving / step) * step, p.damage, p.index, p.before) for p in kept)
    return list(_falling(sorted(rounded, key=lambda p: (-min(p.saving, saving), p.damage))))


def _falling(plans: Iterable[Plan]) -> Iterator[Plan]:
    least = math.inf
    for plan in plans:
        if plan.damage < least:
            least = plan.damage
            yield plan
