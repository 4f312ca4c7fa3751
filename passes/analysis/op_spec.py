"""What a piece of graph costs is asked in these terms; passes know no latency table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from shrinkc.passes.algebra.window import Pair, Window


@dataclass(frozen=True, slots=True)
class OpSpec:
    """One deployed operator: fields, names and units of `shrinkc.latency_tables.key.OpKey`,
    without the precision.

    `op` is conv2d, depthwise_conv2d, linear, add, sub, mul, div, neg, avg_pool, pad, or an
    activation that stands alone (hard_swish, silu, …). Sizes are (height, width); for linear
    (product of the middle dimensions, 1).
    """

    op: str
    in_channels: int
    out_channels: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    groups: int = 1
    in_size: Pair = (1, 1)
    out_size: Pair = (1, 1)
    activation: str = "none"


# Milliseconds of one operator at batch 1.
Price = Callable[[OpSpec], float]


def conv_spec(window: Window, in_size: Pair, out_size: Pair) -> OpSpec:
    """A convolution with this window."""
    depthwise = window.groups == window.in_channels > 1
    return OpSpec(
        *("depthwise_conv2d" if depthwise else "conv2d", window.in_channels, window.out_channels),
        *(window.kernel, window.stride, window.dilation, window.groups, in_size, out_size),
    )


def linear_spec(window: Window, rows: int) -> OpSpec:
    """A linear layer on `rows` positions."""
    return OpSpec(
        *("linear", window.in_channels, window.out_channels),
        in_size=(rows, 1),
        out_size=(rows, 1),
    )


def elementwise_spec(op: str, channels: int, size: Pair) -> OpSpec:
    """An operator on every element alone."""
    return OpSpec(op, channels, channels, in_size=size, out_size=size)


# What runtimes run inside the operator in front of it, and inside which operators.
FUSED_ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.ReLU6: "relu6"}
LAYER_OPS = frozenset(("conv2d", "depthwise_conv2d", "linear"))
FUSING_OPS = LAYER_OPS | {"add", "sub", "mul", "div"}
ACTIVATIONS: dict[type[nn.Module], str] = {
    **FUSED_ACTIVATIONS,
    nn.LeakyReLU: "leaky_relu",
    nn.PReLU: "prelu",
    nn.ELU: "elu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.Hardtanh: "clip",
    nn.Hardsigmoid: "hard_sigmoid",
    nn.Hardswish: "hard_swish",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.GELU: "gelu",
    nn.Softplus: "softplus",
}
