"""Hypothesis strategies: random small canonical convolution graphs in float64."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from hand_built import Net
from hypothesis import strategies as st
from torch import fx, nn

from shrinkc.passes.ir import slice_dim

Draw = st.DrawFn
CHANNELS = (2, 4, 6)


@dataclass(frozen=True)
class Value:
    """A map in the making: its node and its shape without the batch."""

    node: fx.Node
    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


@st.composite
def conv_graphs(draw: Draw, most_steps: int = 8) -> fx.GraphModule:
    """Chains of convolutions of all kinds (even kernels, strides, groups, dilation, padding up to
    k − 1), batch norm, pooling, explicit padding, constants, activations, residual adds and
    parallel branches; now and then a module called twice or a second output."""
    height, width = draw(st.integers(3, 9)), draw(st.integers(3, 9))
    channels = draw(st.sampled_from(CHANNELS))
    net = Net(draw(st.integers(1, 2)), channels, height, width, seed=draw(st.integers(0, 99)))
    values = [Value(net.x, channels, height, width)]
    for _ in range(draw(st.integers(1, most_steps))):
        step = draw(st.sampled_from(STEPS))
        values.append(step(draw, net, values))
    outputs = [values[-1].node]
    if draw(st.integers(0, 4)) == 0:
        outputs.append(draw(st.sampled_from(values)).node)
    return net.build(*outputs)


# --- steps: each takes the values so far and gives the next --------------------------------------


def _conv(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    kernel = _kernel(draw, x)
    dilation = draw(st.sampled_from((1, 1, 1, 2)))
    stride = draw(st.sampled_from((1, 1, 2)))
    padding = tuple(draw(st.integers(0, k - 1)) for k in kernel)
    groups = draw(st.sampled_from([g for g in (1, 2, x.channels) if x.channels % g == 0]))
    outputs = draw(st.sampled_from([c for c in (2, 4, 6, 12) if c % groups == 0]))
    conv = nn.Conv2d(
        *(x.channels, outputs, kernel, stride, padding, dilation, groups),
        bias=draw(st.booleans()),
    )
    return _call(net, conv, x, outputs)


def _same_conv(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    kernel = draw(st.sampled_from((1, 1, 3)))
    depthwise = kernel == 3 and draw(st.booleans())
    return _call(net, _same(x.channels, x.channels, kernel, 1, depthwise), x, x.channels)


def _inverted_residual(draw: Draw, net: Net, values: list[Value]) -> Value:
    """1×1, 3×3 depthwise with padding, 1×1, without activations."""
    x, hidden = values[-1], 6
    stride = draw(st.sampled_from((1, 2)))
    a = _call(net, nn.Conv2d(x.channels, hidden, 1), x, hidden)
    b = _call(net, _same(hidden, hidden, 3, stride, True), a, hidden)
    c = _call(net, nn.Conv2d(hidden, x.channels, 1), b, x.channels)
    return _sum(net, x, c) if c.shape == x.shape else c


def _batch_norm(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    norm = nn.BatchNorm2d(x.channels, affine=draw(st.booleans()))
    return _call(net, norm, x, x.channels)


def _activation(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    kind = draw(st.sampled_from((nn.ReLU, nn.ReLU6, nn.Hardswish)))
    return _call(net, kind(), x, x.channels)


def _pool(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    kernel = min(draw(st.sampled_from((2, 3))), x.height, x.width)
    pool = nn.AvgPool2d(
        kernel,
        draw(st.sampled_from((1, 2))),
        draw(st.integers(0, kernel // 2)),
        ceil_mode=draw(st.booleans()),
        count_include_pad=draw(st.booleans()),
    )
    return _call(net, pool, x, x.channels)


def _explicit_pad(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    left, right, top, bottom = (draw(st.integers(0, 2)) for _ in range(4))
    node = net.pad(x.node, left, right, top, bottom)
    return Value(node, x.channels, x.height + top + bottom, x.width + left + right)


def _constant(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    function = draw(st.sampled_from((operator.add, operator.sub, operator.mul, operator.truediv)))
    shape = draw(st.sampled_from([(x.channels, 1, 1), (1, x.channels, 1, 1), (1, *x.shape)]))
    numbers = torch.rand(shape, generator=net.generator) + 0.5
    constant = draw(st.sampled_from((0, 1, 2.0, None)))
    other = net.constant(numbers) if constant is None else constant
    swapped = function is not operator.truediv and draw(st.booleans())
    if function is operator.truediv and other == 0:
        other = 1
    node = (
        net.function(function, other, x.node) if swapped else net.function(function, x.node, other)
    )
    return Value(node, *x.shape)


def _nothing(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    kind = draw(st.sampled_from(("identity", "dropout", "slice", "reshape", "permute")))
    if kind in ("identity", "dropout"):
        return _call(net, nn.Identity() if kind == "identity" else nn.Dropout(0.3), x, x.channels)
    if kind == "slice":
        node = net.function(slice_dim, x.node, 1, 0, x.channels, 1)
    elif kind == "reshape":
        flat = net.function(torch.reshape, x.node, (-1, x.channels, x.height * x.width))
        node = net.function(torch.reshape, flat, (-1, *x.shape))
    else:
        last = net.function(torch.permute, x.node, (0, 2, 3, 1))
        node = net.function(torch.permute, last, (0, 3, 1, 2))
    return Value(node, *x.shape)


def _residual(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    partners = [v for v in values if v.shape == x.shape]
    other = draw(st.sampled_from(partners))
    function = draw(st.sampled_from((operator.add, operator.sub)))
    return Value(net.function(function, other.node, x.node), *x.shape)


def _branches(draw: Draw, net: Net, values: list[Value]) -> Value:
    """Parallel branches with batch norms, summed (RepVGG)."""
    x, stride = values[-1], draw(st.sampled_from((1, 2)))
    outputs = draw(st.sampled_from((x.channels, 4)))
    total: Value | None = None
    for kernel in draw(st.lists(st.sampled_from((1, 3, 5)), min_size=2, max_size=3)):
        y = _call(net, _same(x.channels, outputs, kernel, stride, False), x, outputs)
        y = _call(net, nn.BatchNorm2d(outputs), y, outputs) if draw(st.booleans()) else y
        total = y if total is None else _sum(net, total, y)
    assert total is not None
    return _sum(net, total, x) if total.shape == x.shape and draw(st.booleans()) else total


def _twice(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    first = _call(net, _same(x.channels, x.channels, 1, 1, False), x, x.channels)
    return Value(net.again(first.node, first.node), *x.shape)


def _transposed(draw: Draw, net: Net, values: list[Value]) -> Value:
    x = values[-1]
    stride, groups = draw(st.sampled_from((1, 2))), draw(st.sampled_from((1, 2)))
    return _call(net, nn.ConvTranspose2d(x.channels, 4, 2, stride, groups=groups), x, 4)


STEPS = (
    *(_conv, _conv, _conv, _same_conv, _same_conv, _inverted_residual, _batch_norm, _batch_norm),
    *(_activation, _pool, _explicit_pad, _constant, _nothing, _residual, _residual, _branches),
    *(_twice, _transposed),
)


# --- small things --------------------------------------------------------------------------------


def _call(net: Net, module: nn.Module, x: Value, channels: int) -> Value:
    out = module.eval()(torch.zeros(1, *x.shape))
    return Value(net.call(module, x.node), channels, *out.shape[2:])


def _sum(net: Net, a: Value, b: Value) -> Value:
    return Value(net.add(a.node, b.node), *a.shape)


def _same(inputs: int, outputs: int, kernel: int, stride: int, depthwise: bool) -> nn.Conv2d:
    groups = inputs if depthwise else 1
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)


def _kernel(draw: Draw, x: Value) -> tuple[int, int]:
    """Square or not, odd or even, and never larger than the map."""
    options = [k for k in (1, 2, 3, 4, 5) if 2 * (k - 1) < min(x.height, x.width)]
    kernel = draw(st.sampled_from(options))
    return (kernel, kernel) if draw(st.integers(0, 3)) else (kernel, draw(st.sampled_from(options)))
