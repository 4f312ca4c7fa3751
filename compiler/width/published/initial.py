"""DropNet's reset (Tan and Motani, 2020): what is left goes back to the weights that it had before
it was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx

from shrinkc.compiler.pipeline.deployed import network
from shrinkc.errors import InputError
from shrinkc.passes.base import copy_graph
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels


@dataclass(eq=False)
class Initial:
    """What is left of the network before it was trained."""

    graph: fx.GraphModule

    @classmethod
    def of(cls, initial: fx.GraphModule, trained: fx.GraphModule) -> Initial:
        """Raises InputError for another network."""
        graph = network(initial).graph
        shapes = [{n: p.shape for n, p in g.state_dict().items()} for g in (graph, trained)]
        if _calls(graph) != _calls(trained) or shapes[0] != shapes[1]:
            raise InputError("`initial` is another network than the one that is pruned")
        return cls(graph)

    def after(self, selection: Selection) -> fx.GraphModule:
        """The same channels go; a copy to train."""
        self.graph = SliceChannels(Selection(selection.keep))(self.graph).graph_module
        return copy_graph(self.graph)


def _calls(graph: fx.GraphModule) -> list[tuple[str, Any, Any]]:
    """What is computed from what, whatever values are called."""
    place = {node: number for number, node in enumerate(graph.graph.nodes)}
    return [
        (node.op, node.target if node.op.startswith("call") else "", _read(node, place))
        for node in graph.graph.nodes
    ]


def _read(node: fx.Node, place: dict[fx.Node, int]) -> Any:
    return fx.map_arg((node.args, node.kwargs), lambda value: f"value {place[value]}")
