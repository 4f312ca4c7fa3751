"""Names of a graph's outputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from torch import fx
from torch.fx.node import map_arg

_NAMES = "output_names"  # in a graph's `meta`, which passes keep


def word(name: str) -> str:
    """A name as one of Python's, since torch.fx writes it into source; empty where nothing is left
    of it."""
    plain = re.sub(r"[^0-9A-Za-z_]+", "_", name).strip("_")[:100]
    return f"_{plain}" if plain[:1].isdigit() else plain


def with_output_names(graph_module: fx.GraphModule, names: Sequence[str]) -> fx.GraphModule:
    """The same graph, whose outputs' nodes have these names, so that files call them so too. An
    empty name: the node's own where it is a layer that the model names, else "output".

    An input that is returned as it is keeps its own name, as does a node that is returned twice.
    """
    returned = returned_nodes(graph_module)
    chosen = [
        name or _own_name(node, "output" if len(names) == 1 else f"output_{index}")
        for index, (node, name) in enumerate(zip(returned, names, strict=True))
    ]
    named = _renamed(graph_module, chosen)
    named.meta[_NAMES] = tuple(chosen)
    return named


def with_outputs_named_as(graph_module: fx.GraphModule, other: fx.GraphModule) -> fx.GraphModule:
    """`graph_module`, made of `other` by passes, which may have left outputs to other nodes, with
    the names of the outputs of `other`."""
    kept = other.meta.get(_NAMES) or [node.name for node in returned_nodes(other)]
    return _renamed(graph_module, kept)


def returned_nodes(graph_module: fx.GraphModule) -> tuple[fx.Node, ...]:
    """Of a graph's outputs, in order."""
    output = next(n for n in graph_module.graph.nodes if n.op == "output")
    return cast("tuple[fx.Node, ...]", output.args[0])


def _own_name(node: fx.Node, otherwise: str) -> str:
    layer = node.op == "call_module" and not re.fullmatch(r"(_\d+)+", node.name)
    return node.name if layer or node.op == "placeholder" else otherwise


def _renamed(graph_module: fx.GraphModule, names: Sequence[str]) -> fx.GraphModule:
    wanted: dict[fx.Node, str] = {}
    for node, name in zip(returned_nodes(graph_module), names, strict=True):
        if node.op != "placeholder":
            wanted.setdefault(node, name)
    if all(node.name == name for node, name in wanted.items()):
        return graph_module
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
