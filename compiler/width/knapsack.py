"""Widths of least loss within a budget, where a group's cost depends on its neighbours' widths.

    minimise Σ_g loss_g(w_g)   subject to   C(w) ≤ budget

1. *Linearise* at the widths w: what changing one group alone adds to C. For these separable costs
   the multiple-choice knapsack is solved exactly by dynamic programming over budgets in
   `STEPS`-ths, costs rounded up. Its answer is the next w, until it stays. The first rounds take
   each group's costs as the mean of two linearisations, since all groups move at once.
2. *Repair and polish* with exact costs C: shrink the group that loses least per cost until the
   budget holds, then widen groups, and exchange width between two groups, while that lowers the
   loss. Widening that costs nothing is always done: no width is left that is slower than a larger
   one of its group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shrinkc.compiler.width.price import Price

STEPS = 10_000
ROUNDS = 20
POLISHED, EXCHANGES = 3, 200
ROUNDING = 1e-13  # of the budget: sums of changes and sums of costs differ by that
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Choices:
    """Widths that a group may have, ascending, the last is all of them; `loss` of each."""

    widths: tuple[int, ...]
    loss: Floats


@dataclass(frozen=True, eq=False)
class Problem:
    """`choices` by group; groups of `price` without any stay whole."""

    choices: Mapping[str, Choices]
    price: Price

    def loss(self, widths: Mapping[str, int]) -> float:
        return math.fsum(c.loss[c.widths.index(widths[name])] for name, c in self.choices.items())

    def whole(self) -> dict[str, int]:
        return {name: c.widths[-1] for name, c in self.choices.items()}


def solve(problem: Problem, budget: float) -> dict[str, int] | None:
    """Group → width; None where even the cheapest widths exceed the budget."""
    cheap = cheapest(problem)
    if problem.price.total(cheap) > budget:
        return None
    found = [cheap, *_fixed_points(problem, budget)]
    ranked = sorted(found, key=lambda w: (_excess(problem, w, budget), problem.loss(w)))
    polished = [_Local(problem, budget, dict(w)).run() for w in ranked[:POLISHED]]
    best = [w for w in polished if w is not None]
    return min(best or [cheap], key=problem.loss)


def cheapest(problem: Problem) -> dict[str, int]:
    """The lowest cost that is found by changing one group at a time."""
    widths = {name: c.widths[0] for name, c in problem.choices.items()}
    lower = True
    while lower:
        lower = False
        for name, c in problem.choices.items():
            changes = problem.price.changes(widths, name, c.widths)
            least = min(changes)
            if least < -1e-12:
                best = max(i for i, change in enumerate(changes) if change == least)
                widths[name], lower = c.widths[best], True
    return without_cliffs(problem, widths)


def without_cliffs(problem: Problem, widths: Mapping[str, int]) -> dict[str, int]:
    """Every group as wide as its width may be without costing more."""
    found = dict(widths)
    local = _Local(problem, math.inf, found)
    while local.widen(at_no_cost=True):
        pass
    return found


def _excess(problem: Problem, widths: Mapping[str, int], budget: float) -> float:
    """Above the budget; small ones are repaired with little loss."""
    over = problem.price.total(widths) / budget - 1
    return 0.0 if over < 0.02 else over


# --- linearise and solve -------------------------------------------------------------------------


def _fixed_points(problem: Problem, budget: float) -> list[dict[str, int]]:
    """Every distinct answer on the way to the last."""
    widths, found = problem.whole(), list[dict[str, int]]()
    costs: dict[str, Floats] = {}
    for number in range(ROUNDS):
        total = problem.price.total(widths)
        here = {
            name: np.array(problem.price.changes(widths, name, c.widths))
            for name, c in problem.choices.items()
        }
        if number and number < ROUNDS // 2:
            # changes are told from other widths: the old ones are moved to the new width's zero
            here = {
                name: (here[name] + costs[name] - costs[name][_at(problem, widths, name)]) / 2
                for name in here
            }
        costs = here
        following = _knapsack(problem, costs, budget - total)
        if following == widths:
            break
        widths = following
        if widths not in found:
            found.append(widths)
    return found


def _at(problem: Problem, widths: Mapping[str, int], name: str) -> int:
    return problem.choices[name].widths.index(widths[name])


def _knapsack(problem: Problem, costs: Mapping[str, Floats], room: float) -> dict[str, int]:
    """Exactly, for costs that add up to at most `room`; the cheapest where none do.

    F(g, b) = min over widths v with cost_g(v) ≤ b of F(g − 1, b − cost_g(v)) + loss_g(v)
    """
    names = sorted(problem.choices)
    floor = {name: float(costs[name].min()) for name in names}
    room -= math.fsum(floor.values())
    if room <= ROUNDING * max(float(np.abs(costs[name]).max()) for name in names):
        return {n: problem.choices[n].widths[int(costs[n].argmin())] for n in names}
    step = room / STEPS
    best = np.zeros(STEPS + 1)
    taken: list[npt.NDArray[np.int16]] = []
    bins: list[npt.NDArray[np.int64]] = []
    for name in names:
        units = np.ceil((costs[name] - floor[name]) / step - 1e-9).astype(np.int64)
        following = np.full(STEPS + 1, np.inf)
        choice = np.zeros(STEPS + 1, np.int16)
        for index, (unit, loss) in enumerate(zip(units, problem.choices[name].loss, strict=True)):
            if unit > STEPS:
                continue
            sums = best[: STEPS + 1 - unit] + loss
            better = sums < following[unit:]
            following[unit:][better] = sums[better]
            choice[unit:][better] = index
        best = following
        taken.append(choice)
        bins.append(units)
    left, widths = STEPS, dict[str, int]()
    for name, choice, units in zip(names[::-1], taken[::-1], bins[::-1], strict=True):
        index = int(choice[left])
        widths[name] = problem.choices[name].widths[index]
        left -= int(units[index])
    return {name: widths[name] for name in problem.choices}


# --- exact costs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Move:
    """One group to another width; what that adds to cost and loss."""

    name: str
    width: int
    cost: float
    loss: float


@dataclass(eq=False)
class _Local:
    """Local search; changes `widths` in place."""

    problem: Problem
    budget: float
    widths: dict[str, int]
    _rows: dict[str, list[_Move]] = field(default_factory=dict[str, list[_Move]])

    def run(self) -> dict[str, int] | None:
        """None where the budget is not met."""
        while self.room < 0:
            cuts = [m for m in self._moves() if m.cost < 0 and self._narrows(m)]
            if not cuts:
                return None
            # what is enough at once and loses least, else the best rate
            enough = [m for m in cuts if m.cost <= self.room]
            rate = min(cuts, key=lambda m: (m.loss / -m.cost, m.name, m.width))
            self._take(min(enough, key=lambda m: (m.loss, m.name)) if enough else rate)
        for _ in range(EXCHANGES):
            if not (self.widen() or self._exchange()):
                break
        while self.widen(at_no_cost=True):
            pass
        return self.widths

    @property
    def room(self) -> float:
        return self.budget - self.problem.price.total(self.widths)

    def widen(self, at_no_cost: bool = False) -> bool:
        """The one group and width that lower the loss most within the budget."""
        room = 0.0 if at_no_cost else max(self.room - ROUNDING * abs(self.budget), 0.0)
        fits = [m for m in self._moves() if not self._narrows(m) and m.cost <= room]
        free = [m for m in fits if m.cost <= 0]
        better = free or [m for m in fits if m.loss < 0]
        if not better:
            return False
        self._take(min(better, key=lambda m: (m.loss, m.cost, m.name, -m.width)))
        return True

    def _exchange(self) -> bool:
        """One group wider, another narrower, so that the loss falls."""
        moves = list(self._moves())
        up = [m for m in moves if m.loss < 0]
        down = [m for m in moves if m.cost < 0 and m.loss >= 0]
        if not up or not down:
            return False
        gain = np.array([m.loss for m in up])[:, None] + np.array([m.loss for m in down])
        cost = np.array([m.cost for m in up])[:, None] + np.array([m.cost for m in down])
        room = self.room - ROUNDING * abs(self.budget)
        # neighbours share operators, where one's change is another after the other's
        scale = 0.1 * abs(self.budget)
        pairs = np.argwhere((gain < -1e-12) & (cost <= room + scale))
        order = np.argsort(gain[pairs[:, 0], pairs[:, 1]], kind="stable")[:EXCHANGES]
        for i, j in pairs[order]:
            a, b = up[int(i)], down[int(j)]
            if a.name != b.name and self._together(a, b) <= room:
                self._take(a)
                self._take(b)
                return True
        return False

    def _together(self, a: _Move, b: _Move) -> float:
        if b.name not in self.problem.price.neighbours[a.name]:
            return a.cost + b.cost
        widths = {**self.widths, a.name: a.width}
        return a.cost + self.problem.price.changes(widths, b.name, [b.width])[0]

    def _take(self, move: _Move) -> None:
        self.widths[move.name] = move.width
        for name in self.problem.price.neighbours[move.name]:
            self._rows.pop(name, None)

    def _narrows(self, move: _Move) -> bool:
        return move.width < self.widths[move.name]

    def _moves(self) -> Iterator[_Move]:
        for name in self.problem.choices:
            if name not in self._rows:
                self._rows[name] = self._of(name)
            yield from self._rows[name]

    def _of(self, name: str) -> list[_Move]:
        choices, width = self.problem.choices[name], self.widths[name]
        others = [i for i, w in enumerate(choices.widths) if w != width]
        loss = choices.loss[choices.widths.index(width)]
        changes = self.problem.price.changes(self.widths, name, [choices.widths[i] for i in others])
        return [
            _Move(name, choices.widths[i], change, float(choices.loss[i] - loss))
            for i, change in zip(others, changes, strict=True)
        ]
