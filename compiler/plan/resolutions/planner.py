"""The image size as one more choice: a planner for every size, and what loses least of their plans.

A size is planned for like the network itself, with times of its own. What a choice costs is taken
from the network's own size, and what is judged is the same for all: the answers of the user's
network there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from math import inf

from shrinkc.compiler.plan.comparing.finalists import NEAR, Candidate, Ranked
from shrinkc.compiler.plan.finished_plans import Planned
from shrinkc.compiler.plan.plan_file import Plan
from shrinkc.compiler.plan.planner import Planner, cost_of
from shrinkc.compiler.recover.layer_problems import size_of
from shrinkc.errors import UnreachableGoalError

Found = tuple[float, Planner, list[Candidate]]  # the least damage, whose, what may become the plan
MOST, CLOSE = 2, 1.5  # sizes that are planned in full; times what the best loses, fitted quickly


class Resolutions(Planner):
    """The planner of a network at its own size that asks those of `smaller` sizes, too."""

    def __init__(self, whole: Planner, smaller: Sequence[Planner]) -> None:
        super().__init__(**{field.name: getattr(whole, field.name) for field in fields(Planner)})
        self.own, self.smaller = whole, tuple(smaller)

    @property
    def most(self) -> float:
        return max(one.most for one in self._all)

    @property
    def useful(self) -> float:
        return max(one.useful for one in self._all)

    def within(self, budget_ms: float, rows: list[Ranked] | None = None) -> Planned:
        """As each size's, of which the plan that loses least; of equals the one with the smaller
        error. Sizes whose choices look much worse than another's, alone or fitted quickly, are not
        planned."""
        plans = [planner.within(budget_ms, some) for planner, some in self._nearest(budget_ms)]
        self._tell()
        best = min(plans, key=lambda one: cost_of(one.plan.promise))
        return self.or_known(best, budget_ms)

    def _look(self, budget_ms: float) -> object:
        return self._near(budget_ms)

    def known(self) -> dict[str, Plan]:
        return {
            f"{number}/{name}": plan
            for number, planner in enumerate(self._all)
            for name, plan in planner.known().items()
        }

    def kept(self, name: str) -> Planned | None:
        number, _, own = name.partition("/")
        return self._all[int(number)].kept(own)

    @property
    def _all(self) -> tuple[Planner, ...]:
        """The largest images first."""
        return self.own, *self.smaller

    def _nearest(self, budget_ms: float) -> list[tuple[Planner, list[Ranked]]]:
        """Of the sizes that come near those that a quick fit likes best, the best first."""
        near = self._near(budget_ms)
        rows = [(planner, planner.ranked(some)) for _, planner, some in near]
        rows.sort(key=_fitted)
        limit = CLOSE * _fitted(rows[0])
        return [row for row in rows if _fitted(row) <= limit][:MOST]

    def _near(self, budget_ms: float) -> list[Found]:
        """What every size has for the budget, where it comes near the least damage; the largest
        images first. A size that costs too much by itself is not looked at."""
        rows: list[Found] = []
        missed: list[UnreachableGoalError] = []
        for planner in sorted(self._all, key=_alone):
            if rows and _alone(planner) > NEAR * min(damage for damage, *_ in rows):
                break
            try:
                some = planner.chosen(budget_ms)
            except UnreachableGoalError as error:
                missed.append(error)
                continue
            rows.append((_alone(planner) + min(one.damage for one in some), planner, some))
        if not rows:
            raise min(missed, key=lambda error: error.fastest_ms or inf)
        limit = NEAR * min(damage for damage, *_ in rows)
        order: Callable[[Found], int] = lambda row: self._all.index(row[1])  # noqa: E731
        return sorted((row for row in rows if row[0] <= limit), key=order)

    def _tell(self) -> None:
        """Notes of all sizes, each once."""
        told = [f"{_said(one)}: {note}" for one in self.smaller for note in one.notes]
        self.notes += [note for note in told if note not in self.notes]


def _fitted(row: tuple[Planner, list[Ranked]]) -> float:
    """What the size's best way loses, fitted quickly."""
    return row[1][0][0]


def _alone(planner: Planner) -> float:
    """What the size alone costs."""
    return 0.0 if planner.size_damage is None else max(0.0, planner.size_damage.loss)


def _said(planner: Planner) -> str:
    return "×".join(map(str, size_of(planner.original)))
