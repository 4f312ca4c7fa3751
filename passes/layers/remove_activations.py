"""Remove activations: the first half of turning a span into one convolution."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, cast

from torch import fx, nn

from shrinkc.passes.analysis.linear.spans import activations
from shrinkc.passes.base import PassResult, copy_graph
from shrinkc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class RemoveActivations:
    """Readers of an activation named in `activations` read its input instead.

    Lossy; equal to `activations_as_identity`, its reference twin, at every position. What is left
    between the layers is linear: `MergeSpans` or `MergeLinear` turns it into one layer.

    Declined with a reason: a name that is no node, or no element-wise activation.
    """

    activations: tuple[str, ...]
    name: ClassVar[str] = "remove-activations"
    exact: ClassVar[bool] = False

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        known = activations(rewriter.graph_module)
        for node in rewriter.find(self.activations):
            if node.name in known:
                kind = type(rewriter.module(node)).__name__
                rewriter.bypass(node, node.all_input_nodes[0], f"{kind} '{node.name}' removed")
            else:
                rewriter.skip(node, "it is no element-wise activation")
        return rewriter.finish()


def activations_as_identity(graph_module: fx.GraphModule, names: Iterable[str]) -> fx.GraphModule:
    """The same graph, every node still there, the named activations `nn.Identity`."""
    twin = copy_graph(graph_module)
    wanted = set(names)
    for node in twin.graph.nodes:
        if node.name in wanted:
            # modules may be called more than once: every node gets its own
            path = f"{cast(str, node.target).replace('.', '_')}_{node.name}_identity"
            twin.add_submodule(path, nn.Identity())
            node.target = path
    twin.recompile()
    return twin
