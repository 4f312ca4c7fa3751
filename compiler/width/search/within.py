"""From a code word to widths that meet the goal, whatever the code word is.

A search proposes; it never has to be told that a proposal is too large. A code word is carried out
as a function of a budget (`Choose`), and `Within.bring` finds the budget, in the prices that are
added up by terms, at which the whole network meets the goal exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.width.allocation import HALVINGS, Space, UnreachableError, nearest
from shrinkc.compiler.width.knapsack import Problem, cheapest, without_cliffs
from shrinkc.compiler.width.price import Price
from shrinkc.errors import InputError, UnreachableGoalError
from shrinkc.passes.analysis.channels.channel_groups import Keep

PARTS = (1.0, 0.98, 0.95, 0.9, 0.8)  # of a budget that is asked for
Choose = Callable[[float], dict[str, int]]  # widths whose price is at most this


@dataclass(frozen=True, eq=False)
class Within:
    """What a search may choose from, and what it has to keep to.

    goal     that is to be met
    space    groups, their candidate widths, and scores that say which channels stay
    problem  candidates and their price
    timed    a wider group may cost less: prices are a table's
    bring    the widths that a code word has where the network meets the goal. Raises
             UnreachableGoalError, which names the closest
    of       the same for another value of the goal
    """

    goal: Goal
    space: Space
    problem: Problem
    timed: bool
    bring: Callable[[Choose], dict[str, int]]
    of: Callable[[float], Within]

    def scaled(self, shares: Mapping[str, float], asked: float) -> dict[str, int]:
        """Widths in these proportions: of every group the candidate nearest to f · share · size,
        with the largest factor f, the same for all, that costs at most `asked`.

        Raises UnreachableError where even the cheapest widths cost more.
        """
        price = self.problem.price
        best = self._at(shares, 0.0)
        if price.total(best) > asked:
            best = cheapest(self.problem)
            if price.total(best) > asked:
                raise UnreachableError(asked, price.total(best))
        low, high = 0.0, 2 / min(shares.values())  # the first half leaves every group whole
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            found = self._at(shares, middle)
            if price.total(found) <= asked:
                best, low = found, middle
            else:
                high = middle
        return without_cliffs(self.problem, best) if self.timed else best

    def at_most(self, widths: Mapping[str, int], asked: float) -> dict[str, int]:
        """These widths where they cost no more, otherwise narrower ones in the same proportions.
        Raises UnreachableError."""
        if self.problem.price.total(widths) <= asked:
            return dict(widths)
        whole = self.space.candidates
        return self.scaled({name: width / whole[name][-1] for name, width in widths.items()}, asked)

    def budget(self) -> float:
        """In prices that are added up by terms, what the goal comes to. Raises
        UnreachableGoalError."""
        asked: list[float] = []

        def evenly(budget: float) -> dict[str, int]:
            asked.append(budget)
            return self.scaled(dict.fromkeys(self.space.candidates, 1.0), budget)

        self.bring(evenly)
        return asked[-1]

    def keep(self, choose: Choose) -> Keep:
        """The channels that stay of a code word's network."""
        return self.space.selection(self.bring(choose)).keep

    def widths(self, keep: Keep) -> dict[str, int]:
        """Of every group that a search may change."""
        whole = {name: candidates[-1] for name, candidates in self.space.candidates.items()}
        return whole | {name: int(mask.sum()) for name, mask in keep.items()}

    def _at(self, shares: Mapping[str, float], factor: float) -> dict[str, int]:
        return {
            name: nearest(candidates, factor * shares[name] * candidates[-1])
            for name, candidates in self.space.candidates.items()
        }


class Meet(Protocol):
    def __call__(self, goal: Goal, choose: Choose, by_table: bool = ..., /) -> dict[str, int]: ...


def within_of(goal: Goal, space: Space, price: Price, met: Meet) -> Within:
    """`met`: the widths that a code word has where the network meets a goal."""
    return Within(
        *(goal, space, space.problem(price), goal.unit == "ms"),
        bring=lambda choose: _brought(goal, choose, met),
        of=lambda value: within_of(Goal(goal.kind, value), space, price, met),
    )


def _brought(goal: Goal, choose: Choose, met: Meet) -> dict[str, int]:
    """Where what merging saves jumps with the widths, a code word may miss the goal time and again:
    less is asked for then. Raises UnreachableGoalError."""
    missed: InputError | None = None
    for part in PARTS:
        try:
            return met(goal, lambda asked, part=part: choose(part * asked), True)
        except UnreachableGoalError:
            raise
        except InputError as error:
            missed = error
    assert missed is not None
    raise missed
