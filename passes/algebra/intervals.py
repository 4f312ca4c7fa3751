"""The best set of disjoint intervals, by dynamic programming."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import fx


@dataclass(frozen=True, slots=True)
class Interval:
    """Positions first … last, both included, and what choosing it is worth."""

    first: int
    last: int
    value: float


def best_disjoint(intervals: Sequence[Interval]) -> list[int]:
    """Indices of the disjoint intervals of largest total value, in order of position.

    Intervals that are worth nothing are never chosen. O(n log n).
    """
    order = sorted(range(len(intervals)), key=lambda i: intervals[i].last)
    lasts = [intervals[i].last for i in order]
    best = [0.0]
    taken: list[bool] = []
    before: list[int] = []
    for position, index in enumerate(order):
        interval = intervals[index]
        before.append(bisect_left(lasts, interval.first))
        value = best[before[position]] + interval.value
        taken.append(value > best[-1])
        best.append(max(value, best[-1]))
    chosen: list[int] = []
    position = len(order) - 1
    while position >= 0:
        if taken[position]:
            chosen.append(order[position])
            position = before[position] - 1
        else:
            position -= 1
    return chosen[::-1]


def region_order(nodes: Iterable[fx.Node]) -> dict[fx.Node, int]:
    """Positions in which the nodes of every region with one source and one sink are neighbours:
    the depth-first postorder, walked from the outputs.

    Depth first from the sink, the source is finished before any node of the region is, and from
    then on only the region is left to visit. So disjoint regions are disjoint intervals, and
    choosing among them is exact on any graph, branches included. (Constants may lie in between.)
    """
    order: dict[fx.Node, int] = {}
    seen: set[fx.Node] = set()
    for root in reversed(list(nodes)):
        if root in seen:
            continue
        seen.add(root)
        stack = [(root, iter(root.all_input_nodes))]
        while stack:
            node, inputs = stack[-1]
            child = next((x for x in inputs if x not in seen), None)
            if child is None:
                order[node] = len(order)
                stack.pop()
            else:
                seen.add(child)
                stack.append((child, iter(child.all_input_nodes)))
    return order
