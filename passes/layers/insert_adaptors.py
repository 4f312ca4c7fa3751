"""Insert 1×1 convolutions in front of convolutions and behind them: what a gap needs to close."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import fx, nn

from shrinkc.passes.analysis.usage import Usage, usage
from shrinkc.passes.base import PassResult
from shrinkc.passes.ir import module_of
from shrinkc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class InsertAdaptors:
    """A 1×1 convolution without bias, the identity at first, in front of every convolution named in
    `front` and behind every one in `behind` (Wang and Wu, Practise, 2023):

        conv(x)  →  A₂ · conv(A₁ · x)

    Each merges exactly into its convolution (`MergeSpans`), K' = A₂·K·A₁ and b' = A₂·b: zeros that
    the convolution pads with stay zeros, since A₁ has no bias. The value that was the convolution's
    is that of the last of them.

    Declined with a reason: no such node, no convolution, one with groups, which would need a dense
    one to merge into, a module or weight that is shared.
    """

    front: tuple[str, ...]
    behind: tuple[str, ...]
    name: ClassVar[str] = "insert-adaptors"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        used = usage(rewriter.graph_module)
        for node in rewriter.find((*self.front, *self.behind)):
            reason = why_no_adaptor(rewriter.graph_module, node, used)
            if reason is None:
                self._insert(rewriter, node)
            else:
                rewriter.skip(node, reason)
        return rewriter.finish()

    def _insert(self, rewriter: Rewriter, node: fx.Node) -> None:
        conv, graph = cast(nn.Conv2d, rewriter.module(node)), rewriter.graph_module.graph
        x, own = node.all_input_nodes[0], cast(str, node.target)
        with graph.inserting_before(node):
            if node.name in self.front:
                path = rewriter.new_name(f"{node.name}_front")
                rewriter.set_module(path, _identity(conv.in_channels, conv))
                x = graph.create_node("call_module", path, (x,), name=path)
                rewriter.helper(node, x)
            if node.name in self.behind:  # takes the place of the convolution, as what is merged
                path = rewriter.new_name(f"{node.name}_conv")
                rewriter.set_module(path, conv)
                rewriter.set_module(own, _identity(conv.out_channels, conv))
                x = graph.create_node("call_module", path, (x,), name=path)
                rewriter.helper(node, x)
        node.args = (x,)
        rewriter.absorb_input(node, [], "1×1 convolutions around it")


def why_no_adaptor(graph_module: fx.GraphModule, node: fx.Node, used: Usage) -> str | None:
    """None where it can take one in."""
    conv = module_of(graph_module, node)
    if not isinstance(conv, nn.Conv2d):
        return "it is no convolution"
    return "a convolution with groups" if conv.groups > 1 else used.why_shared(conv)


def _identity(channels: int, like: nn.Conv2d) -> nn.Conv2d:
    layer = nn.Conv2d(channels, channels, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(channels)[:, :, None, None])
    return layer.to(like.weight).train(like.training)
