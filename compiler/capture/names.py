"""Names of a graph's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import fx
from torch.fx.node import map_arg


def with_output_names(graph_module: fx.GraphModule, names: Sequence[str]) -> fx.GraphModule:
    """The same graph, whose outputs' nodes have these names, so that files call them so too.

    An input that is returned as it is keeps its own name, as does a node that is returned twice.
    """
    returned = next(n for n in graph_module.graph.nodes if n.op == "output")
    wanted: dict[fx.Node, str] = {}
    for node, name in zip(cast("tuple[fx.Node, ...]", returned.args[0]), names, strict=True):
        if node.op != "placeholder":
            wanted.setdefault(node, name)
    taken = {*wanted.values(), *graph_module.meta["input_shapes"]}
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph_module.graph.nodes:
        name = node.name
        if node in wanted:
            name = wanted[node]
        elif node.op != "placeholder" and name in taken:
            name = f"{name}_inside"
        args: Any = map_arg(node.args, lambda n: copies[n])
        copies[node] = graph.create_node(node.op, node.target, args, {}, name=name)
    named = fx.GraphModule(graph_module, graph)
    named.meta.update(graph_module.meta)
    return named.eval()
