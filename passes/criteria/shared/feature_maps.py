"""The feature maps of channels: what a layer made, behind its norm and its activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup, ChannelValues, Groups
from shrinkc.passes.analysis.channels.channel_ids import Ids
from shrinkc.passes.channels.channel_cuts import indices
from shrinkc.passes.criteria.base import Scores
from shrinkc.passes.criteria.shared.data import Batches, Observed, each_batch, evaluating
from shrinkc.passes.ir import ELEMENTWISE_MODULES, add, module_of

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout, nn.Identity)
_ACTIVATIONS = (*ELEMENTWISE_MODULES, nn.PReLU)


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """`channels[i]` of a group lie at `positions[i]` along `axis` of what `node` computes."""

    group: ChannelGroup
    node: str
    axis: int
    positions: Ids
    channels: Ids


def feature_maps(graph_module: fx.GraphModule, groups: Groups) -> tuple[FeatureMaps, ...]:
    """One for each layer that makes channels of a group: behind its norm, a sum that an activation
    follows, and the activation, as far as these are there."""
    nodes = {node.name: node for node in graph_module.graph.nodes}
    found: dict[tuple[str, str], FeatureMaps] = {}
    for group in groups.groups:
        for made in group.made:
            node = _behind(graph_module, nodes[made.node])
            found.setdefault((group.name, node.name), _maps(group, node, made))
    return tuple(found.values())


def _maps(group: ChannelGroup, node: fx.Node, made: ChannelValues) -> FeatureMaps:
    return FeatureMaps(group, node.name, made.axis, made.positions, made.channels)


def _behind(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    while len(node.users) == 1:
        (user,) = node.users
        module = module_of(graph_module, user)
        if isinstance(module, _ACTIVATIONS):
            return user
        if not isinstance(module, _NORMS) and not _activated_sum(graph_module, user):
            return node
        node = user
    return node


def _activated_sum(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if node.target is not add or len(node.users) != 1 or len(node.all_input_nodes) != 2:
        return False
    return isinstance(module_of(graph_module, next(iter(node.users))), _ACTIVATIONS)


def mean_of_maps(
    graph_module: fx.GraphModule,
    groups: Groups,
    batches: Batches,
    measure: Callable[[Tensor], Tensor],
) -> Scores:
    """What `measure` says of a channel's maps, averaged over images and over its layers.

    measure: (n, channels, …) → (n, channels). Memory: that of one run of one batch.
    """
    maps: dict[str, list[FeatureMaps]] = {}
    for one in feature_maps(graph_module, groups):
        maps.setdefault(one.node, []).append(one)
    total = {g.name: np.zeros(g.size) for g in groups.groups}
    count = {g.name: np.zeros(g.size) for g in groups.groups}

    def seen(node: fx.Node, value: Tensor) -> None:
        for one in maps.get(node.name, ()):
            part = value.movedim(one.axis, 1).index_select(1, indices(one.positions))
            found = measure(part).double().sum(0).cpu().numpy()
            np.add.at(total[one.group.name], one.channels, found)
            np.add.at(count[one.group.name], one.channels, len(part))

    with torch.no_grad(), evaluating(graph_module):
        for inputs, _ in each_batch(graph_module, batches):
            Observed(graph_module, seen).run(*inputs)
    return {name: _ratio(total[name], count[name]) for name in total}


def _ratio(
    total: npt.NDArray[np.float64], count: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return total / np.maximum(count, 1)
