"""Move the zero padding inside spans to their sources.

A convolution that pads with zeros behind another one sees zeros where the merged convolution has
values, so the merge is wrong at the border. With all padding in front of the span's first layers it
is exact and costs nothing (Kim et al., 2023); the network is another one at the border, so this
comes before fine-tuning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch.nn.functional as F
from torch import fx, nn

from shrinkc.passes.analysis.linear.linear_op import ConstantPart, LinearOp
from shrinkc.passes.analysis.linear.linear_ops import LinearOps
from shrinkc.passes.analysis.linear.spans import Span, activations, find_spans
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.analysis.usage import usage
from shrinkc.passes.base import PassResult, Skip
from shrinkc.passes.ir import slice_dim
from shrinkc.passes.rewrite import Rewriter

# Positions beyond a value's border: top, bottom, left, right.
Margin = tuple[int, int, int, int]
NONE: Margin = (0, 0, 0, 0)


@dataclass(frozen=True)
class MovePadding:
    """Pad once, at the source of each (source, sink) span of `pairs`, and nowhere inside.

    Every inner value is computed beyond its border, as far as its readers look; readers that look
    less far (a shortcut) read its middle. Values and border of the span's output change, its
    interior does not. Spans that merge into a convolution alone are left as they are. Activations
    inside may stay or be gone.

    Declined with a reason: a pair that is no span (see `find_spans`), a constant map inside.
    """

    pairs: tuple[tuple[str, str], ...]
    max_nodes: int = 64
    name: ClassVar[str] = "move-padding"
    exact: ClassVar[bool] = False

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        if not self.pairs:
            return rewriter.finish()
        copy = rewriter.graph_module
        ops = LinearOps(copy, shapes(copy), usage(copy), activations(copy))
        sinks = {sink for _, sink in self.pairs}
        found = find_spans(copy, self.max_nodes, linear=True, sinks=sinks).spans
        spans = {(span.source, span.sink): span for span in found}
        nodes = {node.name: node for node in copy.graph.nodes}
        used: set[str] = set()
        skipped: list[Skip] = []
        for pair in self.pairs:
            span = spans.get(pair)
            reason = f"no span from '{pair[0]}' ends here" if span is None else None
            if span is not None:
                reason = _why_not(span, ops, nodes, used)
            if span is None or reason:
                skipped.append(Skip(pair[1], reason or ""))
                continue
            used.update(span.nodes)
            _Mover(rewriter, ops, span, nodes).move()
        result = rewriter.finish()
        return PassResult(result.graph_module, result.changes, (*result.skipped, *skipped))


def _why_not(span: Span, ops: LinearOps, nodes: dict[str, fx.Node], used: set[str]) -> str | None:
    if span.exact and not span.border:
        return "its merge is exact already"
    if not used.isdisjoint(span.nodes):
        return "it shares nodes with another span"
    for name in span.nodes:
        if _op(ops, nodes[name]).constant == ConstantPart.MAP:
            return f"'{name}' adds a constant map, which ends at the border"
    return None


class _Mover:
    """One span."""

    def __init__(
        self, rewriter: Rewriter, ops: LinearOps, span: Span, nodes: dict[str, fx.Node]
    ) -> None:
        self.rewriter, self.ops = rewriter, ops
        self.inside = [nodes[name] for name in span.nodes]
        self.source = nodes[span.source]
        self.margins = self._margins()

    def move(self) -> None:
        for node in self.inside:
            for x in dict.fromkeys(_op(self.ops, node).inputs):
                node.replace_input_with(x, self._read(node, x))
        for node in self.inside:
            module = self.rewriter.module(node) if node.op == "call_module" else None
            if isinstance(module, nn.Conv2d | nn.AvgPool2d):
                if module.padding not in (0, (0, 0)):
                    module.padding = (0, 0)
                    self.rewriter.absorb_input(node, [], "its padding moved to the source")
            elif node.target is F.pad:
                self.rewriter.bypass(node, node.all_input_nodes[0], "padding moved to the source")

    def _margins(self) -> dict[fx.Node, Margin]:
        """How far beyond its border each inner value is needed."""
        margins = dict.fromkeys(self.inside, NONE)
        for node in reversed(self.inside):
            for x in _op(self.ops, node).inputs:
                if x in margins:
                    margins[x] = _largest(margins[x], self._need(node, margins[node], x))
        return margins

    def _need(self, node: fx.Node, margin: Margin, x: fx.Node) -> Margin:
        """How far `node`, itself needed up to `margin`, looks beyond the border of `x`."""
        need: list[int] = []
        sizes = zip(
            _op(self.ops, node).window.axes,
            self.ops.size(x, "conv2d"),
            self.ops.size(node, "conv2d"),
            (margin[:2], margin[2:]),
            strict=True,
        )
        for axis, size, out, (before, after) in sizes:
            need += [axis.pad + before * axis.stride, axis.pad_after(size, out + after)]
        return need[0], need[1], need[2], need[3]

    def _read(self, node: fx.Node, x: fx.Node) -> fx.Node:
        """`x` with the border that `node` needs."""
        need = self._need(node, self.margins[node], x)
        if x is self.source:
            return self._padded(node, x, need)
        extra = [have - max(want, 0) for have, want in zip(self.margins[x], need, strict=True)]
        margin, size = self.margins[x], self.ops.size(x, "conv2d")
        for dim in (2, 3):
            before, after = extra[2 * dim - 4], extra[2 * dim - 3]
            if before or after:
                low, high = margin[2 * dim - 4], margin[2 * dim - 3]
                stop = size[dim - 2] + low + high - after
                x = self._helper(node, slice_dim, (x, dim, before, stop, 1), "crop")
        return x

    def _padded(self, node: fx.Node, x: fx.Node, need: Margin) -> fx.Node:
        top, bottom, left, right = (max(n, 0) for n in need)
        if not any((top, bottom, left, right)):
            return x
        return self._helper(node, F.pad, (x, (left, right, top, bottom), "constant", 0.0), "pad")

    def _helper(self, node: fx.Node, function: Any, args: Any, kind: str) -> fx.Node:
        graph = self.rewriter.graph_module.graph
        with graph.inserting_before(node):
            made = graph.create_node("call_function", function, args, name=f"{node.name}_{kind}")
        return self.rewriter.helper(node, made)


def _largest(a: Margin, b: Margin) -> Margin:
    return cast(Margin, tuple(max(x, y) for x, y in zip(a, b, strict=True)))


def _op(ops: LinearOps, node: fx.Node) -> LinearOp:
    op = ops.read(node, "conv2d")
    assert isinstance(op, LinearOp)
    return op
