"""Networks on their way to another process.

torch.fx sends the code of a graph, and traces it where it arrives: into the functions that ours are
made of, of which no pass knows anything, or into an error where one of them looks at a shape. Here
its nodes are sent as they are.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any

from torch import fx, nn
from torch.fx.node import map_aggregate, map_arg


def pickled(value: object) -> bytes:
    """What `pickle.loads` makes the same of again, all graphs in it canonical or not. Metadata of
    nodes is not sent."""
    buffer = io.BytesIO()
    _Pickler(buffer).dump(value)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any, /) -> Any:
        if not isinstance(obj, fx.GraphModule):
            return NotImplemented
        nodes = [_Node.of(node) for node in obj.graph.nodes]
        own = {name: value for name, value in vars(obj).items() if name in _OWN}
        return _arrived, (own, nodes)


@dataclass(frozen=True)
class _Reference:
    node: str


@dataclass(frozen=True)
class _Node:
    op: str
    name: str
    target: Any
    args: Any
    kwargs: Any

    @classmethod
    def of(cls, node: fx.Node) -> _Node:
        args, kwargs = (map_arg(some, _referred) for some in (node.args, node.kwargs))
        return cls(node.op, node.name, node.target, args, kwargs)


def _referred(node: fx.Node) -> Any:
    return _Reference(node.name)


def _arrived(own: dict[str, Any], nodes: list[_Node]) -> fx.GraphModule:
    graph, known = fx.Graph(), dict[str, fx.Node]()

    def found(value: Any) -> Any:
        return known[value.node] if isinstance(value, _Reference) else value

    for node in nodes:
        args, kwargs = (map_aggregate(some, found) for some in (node.args, node.kwargs))
        made: Any = (node.op, node.target, args, kwargs)
        known[node.name] = graph.create_node(*made, name=node.name)
    graph_module = fx.GraphModule(nn.Module(), fx.Graph())
    vars(graph_module).update(own)
    graph_module.graph = graph
    return graph_module


_OWN = {*vars(nn.Module()), "meta"}  # what a network holds besides its graph and code
