"""From the source of a linear region to any of its nodes: first the window, then the numbers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from shrinkc.passes.algebra.affine_map import AffineMap, apply, identity, sum_maps
from shrinkc.passes.algebra.window import (
    Pair,
    Window,
    add,
    compose,
    pointwise,
    reads_beyond_padding,
    reads_padding,
)
from shrinkc.passes.analysis.linear.linear_op import ConstantPart, Layout, LinearOp
from shrinkc.passes.analysis.linear.linear_ops import LinearOps


@dataclass(frozen=True, slots=True)
class Traced:
    """What a node computes from the source, without the numbers."""

    window: Window
    constant: ConstantPart


class RegionWindows:
    """Windows between any two nodes of one graph, each worked out once."""

    def __init__(self, ops: LinearOps) -> None:
        self.ops = ops
        self._known: dict[tuple[fx.Node, fx.Node, Layout], Traced | str] = {}

    def trace(self, source: fx.Node, node: fx.Node, layout: Layout) -> Traced | str:
        """`node` as a function of `source`, on which it depends through linear nodes alone; or
        why the composition is not exact or not a window map."""
        key = (source, node, layout)
        if key not in self._known:
            self._known[key] = self._trace(source, node, layout)
        return self._known[key]

    def _trace(self, source: fx.Node, node: fx.Node, layout: Layout) -> Traced | str:
        if node is source:
            return Traced(pointwise(self.ops.channels(source, layout)), ConstantPart.ZERO)
        op = self.ops.read(node, layout)
        if isinstance(op, str):
            return f"'{node.name}': {op}"
        total: Traced | None = None
        for x in op.inputs:
            part = self.step(source, x, node, op, layout)
            if isinstance(part, str):
                return part
            try:
                total = part if total is None else _add(total, part)
            except ValueError as error:
                return f"'{node.name}' adds branches whose {error}"
        return total or "it has no input"

    def step(
        self, source: fx.Node, x: fx.Node, node: fx.Node, op: LinearOp, layout: Layout
    ) -> Traced | str:
        """`node`, which is `op`, as a function of `source`, through its input `x` alone."""
        first = self.trace(source, x, layout)
        if isinstance(first, str):
            return first
        size, middle, out = (self.ops.size(n, layout) for n in (source, x, node))
        if reads_beyond_padding(first.window, size, middle, op.window, out):
            kernel = "×".join(map(str, first.window.kernel))
            return (
                f"inner zero padding of '{node.name}' after a {kernel} kernel: "
                "move the padding to the first convolution before fine-tuning"
            )
        constant = first.constant
        if constant and reads_padding(op.window, middle, out):
            constant = ConstantPart.MAP
        return Traced(compose(first.window, op.window), max(constant, op.constant))


def _add(a: Traced, b: Traced) -> Traced:
    return Traced(add(a.window, b.window), max(a.constant, b.constant))


def affine_map(ops: LinearOps, source: fx.Node, nodes: list[fx.Node], layout: Layout) -> AffineMap:
    """The numbers of a region whose trace succeeded; `nodes` in execution order, the sink last.

    Memory: the kernels alive at once, in float64.
    """
    size = ops.size(source, layout)
    maps = {source: identity(ops.channels(source, layout), size)}
    last_reader = {x: node for node in nodes for x in node.all_input_nodes}
    for node in nodes:
        maps[node] = _apply(ops, node, maps, ops.size(node, layout), layout)
        for x in node.all_input_nodes:
            if last_reader[x] is node:
                maps.pop(x, None)
    return maps[nodes[-1]]


def _apply(
    ops: LinearOps, node: fx.Node, maps: dict[fx.Node, AffineMap], out: Pair, layout: Layout
) -> AffineMap:
    op = ops.read(node, layout)
    assert not isinstance(op, str), f"'{node.name}' is no linear map: {op}"
    numbers = op.numbers()
    total: AffineMap | None = None
    for x, weight in zip(op.inputs, numbers.weights, strict=True):
        shift = numbers.shift if total is None else numbers.shift * 0
        part = apply(op.window, weight, shift, out, maps[x])
        total = part if total is None else sum_maps(total, part)
    assert total is not None
    return total
