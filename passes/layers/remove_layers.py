"""Replace layers by identity: what LayerMerge does so that merged kernels do not grow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import fx, nn

from shrinkc.passes.analysis.shapes import Shapes, shapes
from shrinkc.passes.base import PassResult
from shrinkc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class RemoveLayers:
    """Readers of a convolution named in `layers` read its input instead (Kim et al., LayerMerge,
    2024: identity instead of a convolution).

    Lossy. Declined with a reason: a name that is no node, no convolution, or one whose output has
    another shape than its input.
    """

    layers: tuple[str, ...]
    name: ClassVar[str] = "remove-layers"
    exact: ClassVar[bool] = False

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        known = shapes(rewriter.graph_module)
        for node in rewriter.find(self.layers):
            reason = _why_not(rewriter, node, known)
            if reason is None:
                rewriter.bypass(node, node.all_input_nodes[0], f"'{node.name}' is the identity")
            else:
                rewriter.skip(node, reason)
        return rewriter.finish()


def _why_not(rewriter: Rewriter, node: fx.Node, known: Shapes) -> str | None:
    if node.op != "call_module" or not isinstance(rewriter.module(node), nn.Conv2d):
        return "it is no convolution"
    if known[node.name] != known[node.all_input_nodes[0].name]:
        return "its output has another shape than its input"
    return None
