"""Milliseconds by the target's table: what a network costs and what is asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar

from torch import fx

from shrinkc.compiler.cost.predict import CostTable, predict
from shrinkc.compiler.export.lower import lower
from shrinkc.errors import UnreachableGoalError
from shrinkc.latency_tables.key import OpKey
from shrinkc.passes.analysis.op_spec import OpSpec, Price

STEP = 0.002  # of the budget, at least, that an attempt asks for more
MEASUREMENTS, CLOSE = 7, 0.98  # of plans, and how near to the budget is near enough

T = TypeVar("T")

# The fields are OpKey's, in its order; `dataclasses.asdict` takes as long as all the rest.
_values_of: Callable[[OpSpec], tuple[Any, ...]] = attrgetter(*(f.name for f in fields(OpSpec)))


def predicted_ms(
    graph_module: fx.GraphModule,
    table: CostTable,
    precision: str = "fp32",
    keep_fp32: Collection[str] = (),
) -> float:
    """Of the network as it is deployed. Of the original in fp32 it is what speedups are over, in
    every command."""
    return predict(lower(graph_module), table, precision, keep_fp32).total_ms


def price_of(table: CostTable, precision: str) -> Price:
    def price(spec: OpSpec) -> float:
        return table.estimate(OpKey(*_values_of(spec), precision=precision)).ms

    return price


def check_reachable(before_ms: float, best_ms: float, budget_ms: float) -> None:
    """Raise UnreachableGoalError, which says what is the best, for a budget below it."""
    if best_ms > budget_ms:
        raise UnreachableGoalError(
            f"a budget of {budget_ms:.4g} ms cannot be reached: from {before_ms:.4g} ms the best "
            f"is {best_ms:.4g} ms, {before_ms / best_ms:.2f}×"
        )


def predicted_within(
    choose: Callable[[float], T],
    cost_ms: Callable[[T], float],
    saving_ms: float,
    budget_ms: float,
    attempts: int,
) -> tuple[T, float]:
    """What `choose` takes to save so many milliseconds, as many more than `saving_ms` as bring the
    whole network within the budget; and how many those are. Raises UnreachableGoalError, which
    names the fastest."""
    fastest: float | None = None
    for _ in range(attempts):
        try:
            chosen = choose(saving_ms)
        except UnreachableGoalError as error:
            error.fastest_ms = fastest
            raise
        now = cost_ms(chosen)
        if now <= budget_ms:
            return chosen, saving_ms
        fastest = now if fastest is None else min(fastest, now)
        saving_ms += max(now - budget_ms, STEP * budget_ms)
    raise UnreachableGoalError(
        f"no plan for {budget_ms:.4g} ms was found; the fastest takes {fastest:.4g} ms",
        fastest_ms=fastest,
    )


def measured_within(
    choose: Callable[[float], T],
    cost_ms: Callable[[T], float],
    asked: tuple[float, float, float],
    budget_ms: float,
) -> tuple[T, float]:
    """The same by measuring. `asked`: lowest, first, highest; the more is asked for, the faster the
    network, mostly. By secants from the lowest and the first; halved in on where they lead out of
    what is still open, the highest where nothing fits yet. The highest that misses ends it, unless
    it is slower than what less was asked for: then what fits may lie between. What is nearest
    below the budget is taken, the lowest where that fits as it is. Raises UnreachableGoalError,
    which names the fastest."""
    low, now, high = asked
    now = min(now, high)  # by the table it may not be enough, measured it may
    last = low, cost_ms(chosen := choose(low))
    if last[1] <= budget_ms:
        return chosen, low
    best: tuple[T, float] | None = None
    fastest, highest, ended = last[1], high, False
    for _ in range(MEASUREMENTS):
        here = now, cost_ms(chosen := choose(now))
        slower, fastest = here[1] > fastest, min(fastest, here[1])
        ended = ended or now >= highest
        if here[1] <= budget_ms:
            best, high = (chosen, now), now
            if here[1] > CLOSE * budget_ms:
                break
        elif now < highest:
            low = now
        elif not slower:
            break
        if low >= high:
            break
        aimed = _aimed(last, here, (1 + CLOSE) / 2 * budget_ms)
        last = here if best or now < highest else last
        otherwise = (low + high) / 2 if ended or best else highest
        now = aimed if low < aimed < high else otherwise
    if best is None:
        raise UnreachableGoalError(
            f"no plan was measured within {budget_ms:.4g} ms; the fastest took {fastest:.4g} ms",
            fastest_ms=fastest,
        )
    return best


def _aimed(last: tuple[float, float], here: tuple[float, float], ms: float) -> float:
    """Where the line through two measurements (asked for, milliseconds) is at `ms`."""
    rise = here[1] - last[1]
    return here[0] + (ms - here[1]) * (here[0] - last[0]) / rise if rise else here[0]
