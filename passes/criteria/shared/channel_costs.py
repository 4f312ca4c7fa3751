"""What one channel of a group takes: numbers that a criterion may divide by."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import cast

import numpy as np
from torch import fx, nn

from shrinkc.passes.analysis.channels.channel_groups import Groups, Keep, ParameterSlice
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.ir import input_shapes, module_of

Costs = dict[str, float]  # by group


def memory_per_channel(graph_module: fx.GraphModule, groups: Groups) -> Costs:
    """Elements that the layers that make a channel write for it, one image."""
    known, images = shapes(graph_module), next(iter(input_shapes(graph_module).values()))[0]
    found: Costs = {}
    for group in groups.groups:
        written = 0.0
        for made in group.made:
            shape = known[made.node]
            written += prod(shape) / shape[made.axis] * len(made.positions)
        found[group.name] = written / group.size / images
    return found


def macs_per_channel(
    graph_module: fx.GraphModule, groups: Groups, keep: Keep | None = None
) -> Costs:
    """Multiply-accumulates of one image in the weights that make and that read a channel, where
    layers on the other side have as many channels as `keep` leaves (all: None)."""
    macs, left = layer_macs(graph_module), _shares_left(groups, keep or {})
    found: Costs = {}
    for group in groups.groups:
        total = 0.0
        for part in _weights(group.slices):
            size = graph_module.get_parameter(part.path).shape[part.dim]
            if part.groups > 1:
                size *= part.groups
            share = len(part.positions) / size
            total += macs.get(part.layer, 0.0) * share * left.get((part.path, 1 - part.dim), 1.0)
        found[group.name] = total / group.size
    return found


def _weights(slices: Iterable[ParameterSlice]) -> list[ParameterSlice]:
    return [p for p in slices if p.parameter == "weight" and p.role in ("out", "in")]


def _shares_left(groups: Groups, keep: Keep) -> dict[tuple[str, int], float]:
    """(weight, dimension) → share of its channels that stays."""
    stays = groups.kept(keep)
    return {
        (f"{t.layer}.{t.parameter}", t.dim): float(np.mean(stays[t.ids])) for t in groups.touches
    }


def layer_macs(graph_module: fx.GraphModule) -> dict[str, float]:
    """Layer → multiply-accumulates of one image, over all its calls."""
    known, images = shapes(graph_module), next(iter(input_shapes(graph_module).values()))[0]
    found: dict[str, float] = {}
    for node in graph_module.graph.nodes:
        module = module_of(graph_module, node)
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        transposed = isinstance(module, nn.ConvTranspose2d)
        shape = known[node.all_input_nodes[0].name if transposed else node.name]
        axis = len(shape) - 1 if isinstance(module, nn.Linear) else len(shape) - 3
        positions = prod(shape) / shape[axis] / images
        path = cast(str, node.target)
        found[path] = found.get(path, 0.0) + positions * module.weight.numel()
    return found
