"""DropNet (Tan and Motani, Reducing Neural Network Complexity via Iterative Pruning, ICML 2020).

The importance of a node is its expected absolute value after the activation. Iteratively: train,
drop a fraction of the remaining nodes, the least of each layer or of all, set what is left back to
its initial weights (or not), train again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, fx

from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Groups, channel_groups
from shrinkc.passes.base import copy_graph
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import Scores, lowest, uniform
from shrinkc.passes.criteria.shared.data import Batches
from shrinkc.passes.criteria.shared.feature_maps import mean_of_maps
from shrinkc.passes.criteria.spec import CriterionSpec

Scope = Literal["layer", "global"]


@dataclass(frozen=True, eq=False)
class DropNet:
    """Needs images, no labels. A channel that several layers make has the mean over them."""

    batches: Batches
    name: ClassVar[str] = "dropnet"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        return mean_of_maps(graph_module, groups, self.batches, magnitude)


def magnitude(maps: Tensor) -> Tensor:
    """(n, channels, …) → (n, channels): the mean absolute value."""
    return maps.abs().reshape(*maps.shape[:2], -1).mean(2)


def drop(groups: Groups, scores: Scores, fraction: float, scope: Scope) -> Selection:
    """The least important `fraction` goes: of every group ("minimum layer"), or of all channels
    ("minimum"), where every group keeps at least one channel (of each cell)."""
    if not 0 < fraction < 1:
        raise InputError(f"a fraction of {fraction:g} to drop: give a number between 0 and 1")
    if scope == "layer":
        return uniform(groups, scores, 1 - fraction)
    return lowest(groups, scores, fraction, vanish="keep one")


def drop_iteratively(
    graph_module: fx.GraphModule,
    criterion: DropNet,
    train: Callable[[fx.GraphModule], object],
    rounds: int,
    fraction: float = 0.2,
    scope: Scope = "global",
    initial: fx.GraphModule | None = None,
) -> fx.GraphModule:
    """`rounds` times: score, drop, train. Returns a smaller network; the given one stays as it is.

    train    trains a network in place
    initial  the same network before it was trained: what is left of it is where each training
             starts (the paper's reset); None: trainings go on
    """
    current = copy_graph(graph_module)
    start = None if initial is None else copy_graph(initial)
    for _ in range(rounds):
        groups = channel_groups(current)
        slicing = SliceChannels(drop(groups, criterion.scores(current, groups), fraction, scope))
        current = slicing(current).graph_module
        if start is not None:
            start = slicing(start).graph_module
            current = copy_graph(start)
        train(current)
    return current


DROPNET = CriterionSpec("dropnet", DropNet, lambda given: DropNet(given.batches), "images")
