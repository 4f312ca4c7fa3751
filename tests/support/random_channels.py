"""Hypothesis strategies: random graphs in which channels move."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from hand_built import Net
from hypothesis import strategies as st
from random_graphs import CHANNELS, STEPS, Draw, Value
from torch import fx, nn

from shrinkc.passes.ir import amax, mean, slice_dim

MOST = 24  # channels


@st.composite
def channel_graphs(draw: Draw, most_steps: int = 8) -> fx.GraphModule:
    """The steps of `conv_graphs` and all that moves, joins, scales or normalises channels; a
    flatten and a linear layer at the end, or not; now and then a second output."""
    height, width = draw(st.sampled_from((4, 6))), draw(st.sampled_from((4, 5, 6)))
    channels = draw(st.sampled_from(CHANNELS))
    net = Net(draw(st.integers(1, 2)), channels, height, width, seed=draw(st.integers(0, 99)))
    values = [Value(net.x, channels, height, width)]
    for _ in range(draw(st.integers(2, most_steps))):
        usual = values[-1].channels in CHANNELS
        steps = (*STEPS, *MOVES, *MOVES) if usual else (*MOVES, _usual, _usual, _usual)
        step = draw(st.sampled_from(steps))
        value = step(draw, net, values)
        if value.channels <= MOST and min(value.height, value.width) > 0:
            values.append(value)
    outputs = [_head(draw, net, values[-1])]
    if draw(st.integers(0, 4)) == 0:
        outputs.append(draw(st.sampled_from(values)).node)
    return net.build(*outputs)


def _head(draw: Draw, net: Net, x: Value) -> fx.Node:
    """As it is, a convolution, or flattened into a linear layer."""
    kind = draw(st.sampled_from(("as it is", "convolution", "linear", "linear")))
    if kind == "convolution":
        return net.conv(x.node, x.channels, 3, 1)
    if kind == "linear":
        size = x.channels * x.height * x.width
        flat = net.function(torch.reshape, x.node, (-1, size))
        return net.call(nn.Linear(size, 3), flat)
    return x.node


def _usual(draw: Draw, net: Net, values: list[Value]) -> Value:
    """Back to a width that the steps of `conv_graphs` know."""
    x, outputs = values[-1], draw(st.sampled_from(CHANNELS))
    return Value(net.conv(x.node, x.channels, outputs, 1), outputs, *x.shape[1:])


def _cat(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    others = [v for v in values if v.shape[1:] == x.shape[1:]]
    other = draw(st.sampled_from(others))
    node = net.function(torch.cat, (x.node, other.node), 1)
    return Value(node, x.channels + other.channels, *x.shape[1:])


def _chunk(draw: Draw, net: Net, values: list[Value]) -> Value:
    """One half through a convolution, then both together."""
    x = values[-1]
    cut = draw(st.integers(1, x.channels - 1)) if x.channels > 1 else 1
    if x.channels < 2:
        return x
    first = net.function(slice_dim, x.node, 1, 0, cut, 1)
    second = net.function(slice_dim, x.node, 1, cut, x.channels, 1)
    made = draw(st.sampled_from(CHANNELS))
    node = net.function(torch.cat, (first, net.conv(second, x.channels - cut, made, 1)), 1)
    return Value(node, cut + made, *x.shape[1:])


def _every_second(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    if x.channels < 2:
        return x
    node = net.function(slice_dim, x.node, 1, draw(st.integers(0, 1)), x.channels, 2)
    start = int(str(node.args[2]))
    return Value(node, (x.channels - start + 1) // 2, *x.shape[1:])


def _shuffle(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if x.channels % g == 0]))
    split = net.function(
        torch.reshape, x.node, (-1, groups, x.channels // groups, x.height, x.width)
    )
    turned = net.function(torch.permute, split, (0, 2, 1, 3, 4))
    return Value(net.function(torch.reshape, turned, (-1, *x.shape)), *x.shape)


def _pixels(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    if x.channels % 4 == 0 and x.height < 12:
        node = net.call(nn.PixelShuffle(2), x.node)
        return Value(node, x.channels // 4, 2 * x.height, 2 * x.width)
    if x.height % 2 == 0 and x.width % 2 == 0:
        node = net.call(nn.PixelUnshuffle(2), x.node)
        return Value(node, x.channels * 4, x.height // 2, x.width // 2)
    return x


def _excite(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    pooled = net.call(nn.AdaptiveAvgPool2d(1), x.node)
    hidden = net.call(nn.ReLU(), net.conv(pooled, x.channels, 4, 1))
    gate = net.call(nn.Sigmoid(), net.conv(hidden, 4, x.channels, 1))
    return Value(net.function(operator.mul, x.node, gate), *x.shape)


def _spatial_gate(draw: Draw, net: Net, values: list[Value]) -> Value:
    """CBAM: mean and maximum over channels, one map that scales all of them."""
    x = values[-1]
    parts = [net.function(f, x.node, (1,), True) for f in (mean, amax)]
    both = net.function(torch.cat, tuple(parts), 1)
    gate = net.call(nn.Sigmoid(), net.conv(both, 2, 1, 3, padding=1))
    return Value(net.function(operator.mul, x.node, gate), *x.shape)


def _layer_norm(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    last = net.function(torch.permute, x.node, (0, 2, 3, 1))
    affine = draw(st.booleans())
    normed = net.call(nn.LayerNorm(x.channels, elementwise_affine=affine), last)
    return Value(net.function(torch.permute, normed, (0, 3, 1, 2)), *x.shape)


def _group_norm(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    groups = draw(st.sampled_from([g for g in (1, 2, x.channels) if x.channels % g == 0]))
    return Value(net.call(nn.GroupNorm(groups, x.channels), x.node), *x.shape)


def _grouped(draw: Draw, net: Net, values: list[Value]) -> Value:
    """Two groups, or depthwise with a multiplier, forwards or transposed."""
    x = values[-1]
    options = [g for g in (2, 3, x.channels) if x.channels % g == 0]
    groups = draw(st.sampled_from(options or [1]))
    outputs = 2 * x.channels
    kind = draw(st.sampled_from((nn.Conv2d, nn.ConvTranspose2d)))
    layer: Any = kind(x.channels, outputs, 3, padding=1, groups=groups, bias=draw(st.booleans()))
    return Value(net.call(layer, x.node), outputs, *x.shape[1:])


def _prelu(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    return Value(net.call(nn.PReLU(x.channels), x.node), *x.shape)


def _pad_channels(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    front, back = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    amounts = (0, 0, 0, 0, front, back)
    node = net.function(F.pad, x.node, amounts, "constant", draw(st.sampled_from((0.0, 0.5))))
    return Value(node, x.channels + front + back, *x.shape[1:])


def _attention(draw: Draw, net: Net, values: list[Value]) -> Value:
    """softmax(q·kᵀ)·v of positions, one head, added to the input."""
    x, hidden, positions = values[-1], 4, values[-1].height * values[-1].width
    q, k, v = (
        net.function(torch.reshape, net.conv(x.node, x.channels, c, 1), (-1, c, positions))
        for c in (hidden, hidden, x.channels)
    )
    scores = net.function(torch.matmul, net.function(torch.permute, q, (0, 2, 1)), k)
    weights = net.function(torch.permute, net.call(nn.Softmax(2), scores), (0, 2, 1))
    mixed = net.function(torch.matmul, v, weights)
    return Value(net.add(x.node, net.function(torch.reshape, mixed, (-1, *x.shape))), *x.shape)


def _mix_positions(draw: Draw, net: Net, values: list[Value]) -> Value:
    """A linear layer over positions, the same for every channel (MLP-Mixer)."""
    x, positions = values[-1], values[-1].height * values[-1].width
    flat = net.function(torch.reshape, x.node, (-1, x.channels, positions))
    hidden = net.call(nn.GELU(), net.call(nn.Linear(positions, 5), flat))
    mixed = net.call(nn.Linear(5, positions), hidden)
    return Value(net.function(torch.reshape, mixed, (-1, *x.shape)), *x.shape)


MOVES = (
    *(_cat, _cat, _chunk, _chunk, _every_second, _shuffle, _shuffle, _pixels, _excite),
    *(_spatial_gate, _layer_norm, _group_norm, _grouped, _grouped, _prelu, _pad_channels),
    *(_attention, _mix_positions),
)
