"""Sets of options that bring the whole network within a budget.

Options are priced one by one, and the whole network costs what it costs: two of them together may
save more than each alone, or less. So a set is asked for by its sum, and corrected by the whole
network's prediction; where that ends without a set that fits, the sets themselves are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from shrinkc.compiler.cost.budget import predicted_within
from shrinkc.compiler.depth.select import Option, frontier, most
from shrinkc.errors import UnreachableGoalError

FEW = 600  # sets that are all tried; of more, the undominated ones and steps from the fastest
FRONT = 60  # undominated ones that are tried, at most

Choose = Callable[[float], list[int]]
Cost = Callable[[Sequence[int]], float]


def fitting(
    options: Sequence[Option],
    choose: Choose,
    cost_ms: Cost,
    saving_ms: float,
    budget_ms: float,
    attempts: int,
) -> tuple[list[int], float]:
    """What `choose` takes to save `saving_ms`, or as much more as brings the whole network within
    the budget; and how much that is. Where `choose` finds nothing, the set of least damage that
    does it, among those that were tried: all of them where they are few.

    Raises UnreachableGoalError, which names the fastest.
    """
    known: dict[frozenset[int], float] = {}

    def cost(chosen: Sequence[int]) -> float:
        key = frozenset(chosen)
        if key not in known:
            known[key] = cost_ms(chosen)
        return known[key]

    if cost([]) <= budget_ms:
        return [], 0.0
    try:
        return predicted_within(choose, cost, saving_ms, budget_ms, attempts)
    except UnreachableGoalError:
        found = _tried(options, cost, budget_ms)
    if found is not None:
        return found, sum(options[i].saving for i in found)
    fastest = min(known.values())
    raise UnreachableGoalError(
        f"a budget of {budget_ms:.4g} ms cannot be reached: of {len(known)} plans the fastest "
        f"takes {fastest:.4g} ms",
        fastest_ms=fastest,
    )


def _tried(options: Sequence[Option], cost: Cost, budget_ms: float) -> list[int] | None:
    sets = list(islice(compatible_sets(options), FEW + 1))
    if len(sets) <= FEW:
        return _first(options, sets, cost, budget_ms)
    front = [plan.indices() for plan in frontier(options, most(options))]
    found = _first(options, front[:: max(1, len(front) // FRONT)], cost, budget_ms)
    if found is not None:
        return found
    steps = _descended(options, min(front, key=cost), cost, budget_ms)
    return steps if cost(steps) <= budget_ms else None


def _first(
    options: Sequence[Option], sets: Sequence[list[int]], cost: Cost, budget_ms: float
) -> list[int] | None:
    """Of the sets that fit the one of least damage."""
    ordered = sorted(sets, key=lambda chosen: sum(options[i].damage for i in chosen))
    return next((chosen for chosen in ordered if cost(chosen) <= budget_ms), None)


def _descended(
    options: Sequence[Option], start: list[int], cost: Cost, budget_ms: float
) -> list[int]:
    """One option more, in place of those that it excludes, or one less, as long as that is faster
    and the budget is not met."""
    best = start
    while cost(best) > budget_ms:
        nearby = [[i for i in best if i != gone] for gone in best]
        for index, option in enumerate(options):
            if index not in best:
                beside = [i for i in best if options[i].goes_with(option)]
                nearby.append([*beside, index])
        faster = min(nearby, key=cost, default=best)
        if cost(faster) >= cost(best):
            break
        best = faster
    return sorted(best, key=lambda i: options[i].first)


def compatible_sets(options: Sequence[Option]) -> Iterator[list[int]]:
    """All sets of options that go together, the empty one first, small indices first."""
    stack: list[list[int]] = [[]]
    while stack:
        chosen = stack.pop()
        yield chosen
        after = chosen[-1] + 1 if chosen else 0
        stack += [
            [*chosen, index]
            for index in range(len(options) - 1, after - 1, -1)
            if all(options[i].goes_with(options[index]) for i in chosen)
        ]
