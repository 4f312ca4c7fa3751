"""Where a scale per channel can move from one layer to the next.

A joint is a set of tensors whose channels must be scaled together: what layers write, through
operators f with f(x/s) = f(x)/s for every s > 0 in each channel (no activation, ReLU, LeakyReLU,
PReLU, pooling, resizing, zero padding, residual adds), to the layers that read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import fx, nn

from shrinkc.passes import ir
from shrinkc.passes.analysis.shapes import Shapes, shapes
from shrinkc.passes.analysis.usage import Usage, usage
from shrinkc.passes.base import Skip

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_HOMOGENEOUS = (
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity, nn.Dropout, nn.Upsample),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)


@dataclass(frozen=True, eq=False)
class Joint:
    """Layers that write, layers that read, and every tensor between, in execution order."""

    writers: tuple[fx.Node, ...]
    readers: tuple[fx.Node, ...]
    values: tuple[fx.Node, ...]
    channels: int


class _RefusalError(Exception):
    pass


def joints(graph_module: fx.GraphModule) -> tuple[list[Joint], list[Skip]]:
    """Every joint in execution order, and why the output of other layers is none."""
    known = shapes(graph_module), usage(graph_module)
    order = {node: i for i, node in enumerate(graph_module.graph.nodes)}
    found: list[Joint] = []
    skipped: list[Skip] = []
    seen: set[fx.Node] = set()
    for node in order:
        if node in seen or not isinstance(ir.module_of(graph_module, node), LAYERS):
            continue
        walk = _Walk(graph_module, *known)
        try:
            walk.run(node)
        except _RefusalError as refusal:
            skipped.append(Skip(node.name, str(refusal)))
        else:
            found.append(walk.joint(order))
        seen |= walk.values
    return found, skipped


class _Walk:
    """Collects one joint from any of its tensors."""

    def __init__(self, graph_module: fx.GraphModule, known: Shapes, uses: Usage) -> None:
        self.graph_module, self.shapes, self._uses = graph_module, known, uses
        self.writers: set[fx.Node] = set()
        self.readers: set[fx.Node] = set()
        self.values: set[fx.Node] = set()

    def run(self, start: fx.Node) -> None:
        """Raises _RefusalError; everything that would be scaled is visited all the same."""
        refusals: list[str] = []
        waiting = [start]
        while waiting:
            value = waiting.pop()
            if value in self.values:
                continue
            self.values.add(value)
            try:
                waiting += self._neighbours(value)
            except _RefusalError as refusal:
                refusals.append(str(refusal))
        if refusals:
            raise _RefusalError(refusals[0])

    def joint(self, order: dict[fx.Node, int]) -> Joint:
        """What `run` collected."""

        def sort(nodes: set[fx.Node]) -> tuple[fx.Node, ...]:
            return tuple(sorted(nodes, key=order.__getitem__))

        channels = self.shapes[next(iter(self.values)).name][1]
        return Joint(sort(self.writers), sort(self.readers), sort(self.values), channels)

    def _neighbours(self, value: fx.Node) -> Iterator[fx.Node]:
        if len(self.shapes[value.name]) not in (2, 4):
            raise _RefusalError(f"'{value.name}' has no channels in dimension 1")
        if self._is_layer(value):
            self.writers.add(self._own(value, value))
        else:
            yield from self._through(value)
        for user in value.users:
            if self._is_layer(user):
                self.readers.add(self._own(user, value))
            elif user.op == "output":
                raise _RefusalError(f"'{value.name}' is an output of the network")
            else:
                self._through(user)
                yield user

    def _is_layer(self, node: fx.Node) -> bool:
        return isinstance(ir.module_of(self.graph_module, node), LAYERS)

    def _own(self, node: fx.Node, value: fx.Node) -> fx.Node:
        """The layer, if it may change and has its channels where `value` has them."""
        layer = cast(nn.Module, ir.module_of(self.graph_module, node))
        if isinstance(layer, nn.Linear) and len(self.shapes[value.name]) != 2:
            raise _RefusalError(f"'{node.name}' (Linear) has its features in the last dimension")
        shared = self._uses.why_shared(layer)
        if shared:
            raise _RefusalError(f"'{node.name}' cannot change: {shared}")
        return node

    def _through(self, node: fx.Node) -> list[fx.Node]:
        """What a homogeneous operator reads; raises _RefusalError for any other."""
        module = ir.module_of(self.graph_module, node)
        if not (isinstance(module, _HOMOGENEOUS) or self._is_homogeneous(node)):
            kind = type(module).__name__ if module else getattr(node.target, "__name__", node.op)
            raise _RefusalError(f"'{node.name}' ({kind}) does not commute with a scale per channel")
        return node.all_input_nodes

    def _is_homogeneous(self, node: fx.Node) -> bool:
        """Functions: adds of equal shapes, zeros around the map, means and flattened points."""
        if node.op != "call_function":
            return False
        after = self.shapes[node.name]
        sizes = [self.shapes[source.name] for source in node.all_input_nodes]
        if node.target in (ir.add, ir.sub):
            both = all(map(ir.is_node, node.args))
            return both and all(size == after for size in sizes)
        if node.target is F.pad:
            amounts = cast("tuple[int, ...]", node.args[1])
            zeros = node.args[2] != "constant" or not node.args[3]
            return zeros and not any(amounts[4:])
        if node.target in (ir.mean, ir.sum_, ir.amax, ir.amin):
            return all(dim > 1 for dim in cast("tuple[int, ...]", node.args[1]))
        return node.target is torch.reshape and _is_point(sizes[0]) and after == sizes[0][:2]


def _is_point(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[2:] == (1, 1)
