"""Room for biases in 32 bits.

An int8 layer holds its bias in steps of scale_x · scale_w, and scale_w is the channel's largest
weight over 127. A channel that training let die, all weights zero or nearly so, leaves steps so
small that its bias overflows, and a channel that was constant becomes zero. Such a channel gets one
weight large enough that the bias fits; it adds at most 127 · 255 / 2³⁰ = 3e-5 of the bias.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.quantise.rounding import Layer, weight_scales
from shrinkc.compiler.quantise.simulate import Quantisation, grids_of
from shrinkc.passes import ir
from shrinkc.passes.base import copy_graph

MOST_STEPS = 2.0**30  # of a bias: half of what 32 bits hold


def leave_room_for_biases(
    graph_module: fx.GraphModule, quantisation: Quantisation
) -> tuple[fx.GraphModule, dict[str, int]]:
    """A copy whose biases fit, and the number of channels that were changed, by layer."""
    result = copy_graph(graph_module)
    grids = grids_of(result, quantisation)
    changed: dict[str, int] = {}
    for node in result.graph.nodes:
        layer = ir.module_of(result, node)
        grid = None if layer is None else grids.get(ir.input_of(node))
        if grid is None or not isinstance(layer, Layer) or node.name in quantisation.keep_fp32:
            continue
        count = _widen(layer, grid.scale)
        if count:
            changed[node.name] = count
    return result, changed


def _widen(layer: Layer, source_scale: float) -> int:
    """Give channels whose bias does not fit a larger weight; returns how many."""
    bias = cast("Tensor | None", cast(Any, layer).bias)
    if bias is None:
        return 0
    least = bias.detach().abs() / (source_scale * MOST_STEPS)
    wanting = [int(i) for i in torch.nonzero(weight_scales(layer) < least)]
    if not wanting:
        return 0
    weight = layer.weight.detach().clone()
    for channel in wanting:
        _one_weight(layer, weight, channel)[...] = 127 * least[channel]
    layer.weight = nn.Parameter(weight, layer.weight.requires_grad)
    return len(wanting)


def _one_weight(layer: Layer, weight: Tensor, channel: int) -> Tensor:
    """One number of the channel's filter: its centre on the first input, which padding spares."""
    if isinstance(layer, nn.Linear):
        return weight[channel, :1]
    group_size = weight.shape[1] if isinstance(layer, nn.ConvTranspose2d) else 1
    row, column = (n // 2 for n in weight.shape[2:])
    if isinstance(layer, nn.ConvTranspose2d):
        group, output = divmod(channel, group_size)
        first = group * (weight.shape[0] // layer.groups)
        return weight[first, output, row, column : column + 1]
    return weight[channel, 0, row, column : column + 1]
