"""Put linear chains beside convolutions, to be trained and merged back: over-parameterisation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import fx, nn

from shrinkc.passes.analysis.linear.linear_op import pair
from shrinkc.passes.analysis.usage import Usage, usage
from shrinkc.passes.base import PassResult
from shrinkc.passes.ir import module_of
from shrinkc.passes.layers.beside import initialise, put_beside
from shrinkc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class ChainConvs:
    """Put 1×1 → k×k → 1×1 convolutions beside every convolution named in `layers`:

        conv(x)  →  conv(x) + γ·BN(project(BN(window(BN(expand(pad(x))))))),  γ = 0

    with `ratio` times as many hidden channels as inputs (expand nets: Guo et al., 2020; linear
    over-parameterisation of pruned networks: Qian et al., 2022). Equal to the network before, in
    training mode too, since γ is zero until it is trained; all of it is linear in inference and
    merges back into a convolution of the old size (`MergeSpans`). All padding is in front of the
    chain, so that the shifts of its batch norms reach every position alike: the merge is exact at
    borders. A convolution with groups gets a chain with as many; one of 1×1 and stride 1 has no
    k×k inside.

    Merged, batch norms leave a constant. Where the convolution has no bias and no batch norm reads
    it, the chain has none of them either, and begins with weights of zero in its last layer.

    Declined with a reason: no such node, no convolution, a module or weight that is shared, a fixed
    weight.
    """

    layers: tuple[str, ...]
    ratio: float
    seed: int = 0
    name: ClassVar[str] = "chain-convs"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        used = usage(rewriter.graph_module)
        generator = torch.Generator().manual_seed(self.seed)
        for node in rewriter.find(self.layers):
            reason = why_no_chain(rewriter.graph_module, node, used)
            if reason is None:
                self._expand(rewriter, node, generator)
            else:
                rewriter.skip(node, reason)
        return rewriter.finish()

    def _expand(self, rewriter: Rewriter, node: fx.Node, generator: torch.Generator) -> None:
        conv = cast(nn.Conv2d, rewriter.module(node))
        hidden = max(1, round(self.ratio * conv.in_channels / conv.groups)) * conv.groups
        layers = list(_chain(conv, hidden, _absorbs(rewriter.graph_module, node, conv)))
        for _, layer in layers:
            initialise(layer, generator, "linear")
        nn.init.zeros_(cast("nn.Conv2d | nn.BatchNorm2d", layers[-1][1]).weight)
        detail = f"a linear chain with {hidden} hidden channels beside it"
        put_beside(rewriter, node, layers, detail, pad=pair(conv.padding))


def why_no_chain(graph_module: fx.GraphModule, node: fx.Node, used: Usage) -> str | None:
    """None where one can be trained beside it."""
    conv = module_of(graph_module, node)
    if not isinstance(conv, nn.Conv2d):
        return "it is no convolution"
    if not conv.weight.requires_grad:
        return "its weight is not trained"
    return used.why_shared(conv)


def _absorbs(graph_module: fx.GraphModule, node: fx.Node, conv: nn.Conv2d) -> bool:
    """Whether a constant more costs nothing."""
    read = [module_of(graph_module, user) for user in node.users]
    return conv.bias is not None or all(isinstance(m, nn.BatchNorm2d) for m in read)


def _chain(conv: nn.Conv2d, hidden: int, norms: bool) -> Iterator[tuple[str, nn.Module]]:
    inputs, outputs, groups = conv.in_channels, conv.out_channels, conv.groups
    kernel, stride, dilation = map(pair, (conv.kernel_size, conv.stride, conv.dilation))
    yield "expand", nn.Conv2d(inputs, hidden, 1, groups=groups, bias=False)
    if norms:
        yield "expand_norm", nn.BatchNorm2d(hidden)
    if kernel != (1, 1) or stride != (1, 1):
        window = nn.Conv2d(
            hidden, hidden, kernel, stride, dilation=dilation, groups=groups, bias=False
        )
        yield "window", window
        if norms:
            yield "window_norm", nn.BatchNorm2d(hidden)
    yield "project", nn.Conv2d(hidden, outputs, 1, groups=groups, bias=False)
    if norms:
        yield "project_norm", nn.BatchNorm2d(outputs)
