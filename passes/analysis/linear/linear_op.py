"""One node as a linear window map of its inputs: the terms in which it is said.

Two layouts: `conv2d` maps (N, C, H, W), `linear` maps (…, C) and is the 1×1 case on a map of one
position. Constant operands (numbers and `get_attr` tensors) are part of the map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from math import prod
from typing import Any, Literal, cast

import torch
from torch import Tensor, fx

from shrinkc.passes.algebra.window import Pair, Window, pointwise
from shrinkc.passes.analysis.op_spec import OpSpec, elementwise_spec
from shrinkc.passes.analysis.shapes import Shapes
from shrinkc.passes.analysis.usage import Usage
from shrinkc.passes.rewrite import float64

Layout = Literal["conv2d", "linear"]
LAYOUTS: tuple[Layout, ...] = ("conv2d", "linear")


class ConstantPart(IntEnum):
    """The constant part of a map: none, one vector, or one that differs by position."""

    ZERO = 0
    UNIFORM = 1
    MAP = 2


@dataclass(frozen=True)
class Numbers:
    """float64: `weights` (out, in/groups, kh, kw), one per input; `shift` (out, 1, 1) or
    (out, h, w)."""

    weights: tuple[Tensor, ...]
    shift: Tensor


@dataclass(frozen=True, eq=False)
class LinearOp:
    """Σ over `inputs` of `window`, plus a constant. `numbers()` reads the weights when asked.

    `spec` is what it costs as its own operator; None: nothing.
    """

    inputs: tuple[fx.Node, ...]
    window: Window
    constant: ConstantPart
    numbers: Callable[[], Numbers] = field(repr=False)
    spec: OpSpec | None


@dataclass(frozen=True, eq=False)
class LinearContext:
    """What reading a node takes."""

    graph_module: fx.GraphModule
    shapes: Shapes
    usage: Usage

    def size(self, node: fx.Node, layout: Layout) -> Pair:
        """(height, width) of the node's value; (1, 1) in the linear layout."""
        shape = self.shapes[node.name]
        return (shape[2], shape[3]) if layout == "conv2d" else (1, 1)

    def channels(self, node: fx.Node, layout: Layout) -> int:
        shape = self.shapes[node.name]
        return shape[1] if layout == "conv2d" else shape[-1]

    def rows(self, node: fx.Node) -> int:
        """Positions of a value in the linear layout, at batch 1."""
        return prod(self.shapes[node.name][1:-1])

    def elementwise(self, op: str, node: fx.Node, layout: Layout) -> OpSpec:
        """The cost of an operator that acts on every element of the node's value."""
        size = self.size(node, layout) if layout == "conv2d" else (self.rows(node), 1)
        return elementwise_spec(op, self.channels(node, layout), size)

    def identity(self, node: fx.Node, layout: Layout) -> LinearOp | str:
        """The node's only input as it is; a reason where the node changes the shape."""
        inputs = node.all_input_nodes
        if len(inputs) != 1 or self.shapes[inputs[0].name] != self.shapes[node.name]:
            return "it changes the shape of its input"
        channels = self.channels(node, layout)
        window = pointwise(channels)
        numbers = lambda: pointwise_numbers(channels)  # noqa: E731
        return LinearOp((inputs[0],), window, ConstantPart.ZERO, numbers, None)


def pair(value: Any) -> Pair:
    """One number for both dimensions, or one for each."""
    return (value, value) if isinstance(value, int) else cast(Pair, tuple(value))


def bias_numbers(bias: Tensor | None, channels: int) -> Tensor:
    """(channels, 1, 1)"""
    if bias is None:
        return torch.zeros(channels, 1, 1, dtype=torch.float64)
    return float64(bias)[:, None, None]


def pointwise_numbers(
    channels: int, scale: Tensor | None = None, shift: Tensor | None = None
) -> Numbers:
    """`scale` (channels,); `shift` (channels,) or (channels, h, w)."""
    if scale is None:
        scale = torch.ones(channels, dtype=torch.float64)
    if shift is None or shift.ndim == 1:
        shift = bias_numbers(shift, channels)
    return Numbers((scale[:, None, None, None],), shift)
