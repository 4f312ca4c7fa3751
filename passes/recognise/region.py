"""Parts of a graph that compute one value from one other value and numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, fx
from torch.fx.node import map_arg

from shrinkc.passes.ir import module_of

MOST_NODES = 32  # LayerNorm by hand has 12, the longest spelling of an activation about as many

Numbers = Callable[[fx.Node], float | None]  # a constant that is one number everywhere


@dataclass(frozen=True, eq=False)
class Region:
    """`nodes` compute the value of the first of them from `source`; users before what they read."""

    source: fx.Node
    nodes: tuple[fx.Node, ...]

    @property
    def sink(self) -> fx.Node:
        return self.nodes[0]

    def read_outside(self) -> tuple[fx.Node, fx.Node] | None:
        """An inner value and a node that is not of the region and reads it."""
        own = set(self.nodes)
        pairs = ((x, user) for x in self.nodes[1:] for user in x.users if user not in own)
        return next(pairs, None)

    def run(self, graph_module: fx.GraphModule, x: Tensor, numbers: Numbers) -> dict[Any, Tensor]:
        """The value of every node where the source has the value `x`."""
        values: dict[Any, Tensor] = {self.source: x}

        def value(node: fx.Node) -> Any:
            return values[node] if node in values else x.new_tensor(numbers(node))

        for node in reversed(self.nodes):
            module = module_of(graph_module, node)
            function = module if module is not None else cast("Callable[..., Any]", node.target)
            values[node] = function(*map_arg(node.args, value))
        return values


def regions(
    sink: fx.Node, belongs: Callable[[fx.Node], bool], numbers: Numbers, order: dict[fx.Node, int]
) -> Iterator[Region]:
    """Those that end in `sink`, the smallest first. `belongs` says which nodes may be in one.

    The latest node that is still to be computed is taken in, again and again; where a single one is
    left, everything that was taken in depends on it alone.
    """
    wanted, nodes = {sink}, list[fx.Node]()
    while wanted and len(nodes) < MOST_NODES:
        latest = max(wanted, key=order.__getitem__)
        if not belongs(latest):
            return
        wanted.remove(latest)
        nodes.append(latest)
        wanted |= {x for x in latest.all_input_nodes if numbers(x) is None}
        if len(wanted) == 1:
            yield Region(next(iter(wanted)), tuple(nodes))
