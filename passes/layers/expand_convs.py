"""Blow convolutions up into inverted residuals, to be trained and merged back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import fx, nn

from shrinkc.passes.base import PassResult
from shrinkc.passes.layers.beside import initialise, put_beside
from shrinkc.passes.rewrite import Rewriter


@dataclass(frozen=True, eq=False)
class ExpandConvs:
    """Put an inverted residual beside every dense convolution named in `layers`:

        conv(x)  →  conv(x) + γ·BN(project(act(BN(depthwise(act(BN(expand(x))))))),  γ = 0

    with `ratio` times as many hidden channels as inputs. Equal to the network before, since γ is
    zero, until it is trained; with its two activations removed it merges back into a convolution of
    the old size (expand, train, shrink: Fu et al., 2022, section 3.5, who put the block in the
    place of the convolution and train from scratch). Declined with a reason: no such node, no
    convolution, one with groups.
    """

    layers: tuple[str, ...]
    ratio: float
    activation: nn.Module
    seed: int = 0
    name: ClassVar[str] = "expand-convs"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        generator = torch.Generator().manual_seed(self.seed)
        for node in rewriter.find(self.layers):
            reason = _why_not(rewriter, node)
            if reason is None:
                self._expand(rewriter, node, generator)
            else:
                rewriter.skip(node, reason)
        return rewriter.finish()

    def _expand(self, rewriter: Rewriter, node: fx.Node, generator: torch.Generator) -> None:
        conv = cast(nn.Conv2d, rewriter.module(node))
        hidden = max(1, round(self.ratio * conv.in_channels))
        layers = list(_branch(conv, hidden, self.activation))
        for _, layer in layers:
            initialise(layer, generator)
        put_beside(rewriter, node, layers, f"a block with {hidden} hidden channels beside it")


def _branch(conv: nn.Conv2d, hidden: int, activation: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    inputs, outputs = conv.in_channels, conv.out_channels
    yield "expand", nn.Conv2d(inputs, hidden, 1, bias=False)
    yield "expand_norm", nn.BatchNorm2d(hidden)
    yield "expand_act", copy.deepcopy(activation)
    if conv.kernel_size != (1, 1) or conv.stride != (1, 1):
        geometry = cast("tuple[tuple[int, int], ...]", (conv.kernel_size, conv.stride))
        pads = cast("tuple[tuple[int, int], ...]", (conv.padding, conv.dilation))
        yield "depthwise", nn.Conv2d(hidden, hidden, *geometry, *pads, groups=hidden, bias=False)
        yield "depthwise_norm", nn.BatchNorm2d(hidden)
        yield "depthwise_act", copy.deepcopy(activation)
    yield "project", nn.Conv2d(hidden, outputs, 1, bias=False)
    last = nn.BatchNorm2d(outputs)
    nn.init.zeros_(last.weight)
    yield "project_norm", last


def _why_not(rewriter: Rewriter, node: fx.Node) -> str | None:
    if node.op != "call_module" or not isinstance(conv := rewriter.module(node), nn.Conv2d):
        return "it is no convolution"
    return "a convolution with groups" if conv.groups > 1 else None
