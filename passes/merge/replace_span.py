"""Put something smaller in the place of a span: a fitted convolution, nothing, or itself narrower.

All three are lossy: what makes them good is the numbers, which come from images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, fx, nn

from shrinkc.passes.algebra.affine_map import AffineMap
from shrinkc.passes.analysis.linear.spans import Span
from shrinkc.passes.base import PassResult
from shrinkc.passes.merge.merge_region import put_layer
from shrinkc.passes.rewrite import Rewriter


@dataclass(frozen=True, eq=False)
class DenseSpan:
    """The span becomes one convolution: weight (out, in, kh, kw), bias (out,)."""

    span: Span
    weight: Tensor
    bias: Tensor
    name: ClassVar[str] = "dense-span"
    exact: ClassVar[bool] = False

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        nodes = {node.name: node for node in rewriter.nodes}
        span = self.span
        constant = self.bias.double()[:, None, None]
        merged = AffineMap(span.window, self.weight, constant, span.in_size, span.out_size)
        kernel = "×".join(map(str, span.window.kernel))
        gone = "1 activation" if len(span.removed) == 1 else f"{len(span.removed)} activations"
        detail = f"{gone} removed, one fitted {kernel} convolution"
        put_layer(rewriter, rewriter.graph_module, span, nodes, merged, detail)
        return rewriter.finish()


@dataclass(frozen=True, eq=False)
class DropSpan:
    """What read the span's sink reads its source, which has the same shape."""

    span: Span
    name: ClassVar[str] = "drop-span"
    exact: ClassVar[bool] = False

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        nodes = {node.name: node for node in rewriter.nodes}
        source, sink = nodes[self.span.source], nodes[self.span.sink]
        inside = [nodes[name] for name in reversed(self.span.nodes) if name != sink.name]
        sink.args = (source, source)  # what the rest of the span computed is read no more
        rewriter.absorb_input(sink, inside, "left out")
        rewriter.bypass(sink, source, "the span is left out, its shortcut stays")
        return rewriter.finish()


@dataclass(frozen=True, eq=False)
class NarrowSpan:
    """Hidden channels are left out and the consumer gets new numbers.

    kept    indices of the hidden channels that stay, rising
    weight  of the consumer (out, kept, kh, kw), bias (out,)
    """

    span: Span
    kept: Tensor
    weight: Tensor
    bias: Tensor
    name: ClassVar[str] = "narrow-span"
    exact: ClassVar[bool] = False

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        hidden = self.span.hidden
        assert hidden is not None, "a span without hidden channels"
        rewriter = Rewriter(graph_module)
        nodes = {node.name: node for node in rewriter.nodes}
        detail = f"{hidden.channels} → {len(self.kept)} hidden channels"
        with torch.no_grad():
            if len(self.kept) < hidden.channels:
                for name in (hidden.producer, *hidden.between):
                    _narrow(rewriter, nodes[name], self.kept, name != hidden.producer)
                    rewriter.absorb_input(nodes[name], [], detail)
            _refit(rewriter, nodes[hidden.consumer], self.weight, self.bias)
        rewriter.absorb_input(nodes[hidden.consumer], [], f"{detail}, refitted")
        return rewriter.finish()


def _narrow(rewriter: Rewriter, node: fx.Node, kept: Tensor, depthwise: bool) -> None:
    old = cast(nn.Conv2d, rewriter.module(node))
    inputs, groups = (len(kept), len(kept)) if depthwise else (old.in_channels, old.groups)
    new = _conv_like(old, inputs, len(kept), groups)
    new.weight = nn.Parameter(old.weight[kept].clone(), old.weight.requires_grad)
    new.bias = None if old.bias is None else nn.Parameter(old.bias[kept].clone())
    rewriter.set_module(cast(str, node.target), new)


def _refit(rewriter: Rewriter, node: fx.Node, weight: Tensor, bias: Tensor) -> None:
    old = cast(nn.Conv2d, rewriter.module(node))
    new = _conv_like(old, weight.shape[1] * old.groups, weight.shape[0], old.groups)
    new.weight = nn.Parameter(weight.to(old.weight), old.weight.requires_grad)
    new.bias = nn.Parameter(bias.to(old.weight), old.weight.requires_grad)
    rewriter.set_module(cast(str, node.target), new)


def _conv_like(old: nn.Conv2d, inputs: int, outputs: int, groups: int) -> nn.Conv2d:
    """Without numbers, its geometry."""
    new = nn.Conv2d(
        *(inputs, outputs, cast("tuple[int, int]", old.kernel_size)),
        *(cast("tuple[int, int]", old.stride), cast("tuple[int, int]", old.padding)),
        *(cast("tuple[int, int]", old.dilation), groups),
        device="meta",
    )
    return new.train(old.training)
