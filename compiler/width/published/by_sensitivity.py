"""Widths from sensitivity curves (Li et al., 2017, section 3.2): a group loses as many channels as
cost the network no more than the others', pruned alone; sensitive groups stay wide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import fx

from shrinkc.compiler.width.allocation import Space, UnreachableError
from shrinkc.compiler.width.price import Price
from shrinkc.compiler.width.prune import Look
from shrinkc.compiler.width.sensitivity import Judge, SensitivityCurve, sensitivity
from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.channels.selection import Selection


def by_sensitivity(judge: Callable[[fx.GraphModule], Judge]) -> Look:
    """For `Stages.look`. `judge`: of networks that were pruned, in one group each, of this one.
    Curves are measured once for a network."""
    known: list[tuple[fx.GraphModule, dict[str, SensitivityCurve]]] = []

    def look(
        graph: fx.GraphModule,
        groups: Groups,
        space: Space,
        price: Price,
        budget: float,
        multiple: int,
    ) -> Selection:
        if not known or known[-1][0] is not graph:
            some = replace(groups, groups=tuple(space.groups.values()))
            curves = sensitivity(graph, some, space.scores, judge(graph))
            known.append((graph, {curve.group: curve for curve in curves}))
        return space.selection(widths_within(space, known[-1][1], price, budget))

    return look


def widths_within(
    space: Space, curves: dict[str, SensitivityCurve], price: Price, budget: float
) -> dict[str, int]:
    """The least drop that, allowed to every group alone, meets the budget. Raises
    UnreachableError."""
    drops = {name: _drops(space, curves[name], name) for name in space.candidates}
    levels = sorted({0.0, *(drop for found in drops.values() for drop in found)})

    def at(allowed: float) -> dict[str, int]:
        return {
            name: next(n for n, d in zip(widths, drops[name], strict=True) if d <= allowed)
            for name, widths in space.candidates.items()
        }

    low, high = 0, len(levels) - 1
    if (lowest := price.total(at(levels[high]))) > budget:
        raise UnreachableError(budget, lowest, " with `allocation` sensitivity")
    while low < high:
        middle = (low + high) // 2
        if price.total(at(levels[middle])) <= budget:
            high = middle
        else:
            low = middle + 1
    return at(levels[high])


def _drops(space: Space, curve: SensitivityCurve, name: str) -> list[float]:
    """At each candidate width, ascending: the most that is lost at this width or a larger one."""
    size = space.groups[name].size
    shares = [1 - width / size for width in space.candidates[name]]
    lost = np.maximum(curve.values[0] - np.array(curve.at(shares)), 0.0)
    return [float(x) for x in np.maximum.accumulate(lost[::-1])[::-1]]
