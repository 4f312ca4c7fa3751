"""Linear regions: connected parts of a graph that are one convolution or one linear layer.

A region has one source, a value from outside that it reads, and one sink, the only one of its
values that is read outside. Its nodes are linear window maps, or activations that the caller calls
removable. For every linear node as sink the regions nest: walking backwards, a node joins once
everybody who reads it has joined; whenever the walk depends on one value only, that value is a
source. The walk ends after `max_nodes`, so the analysis is linear in the size of the graph.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import fx, nn

from shrinkc.passes.algebra.window import Pair, Window, padding_of
from shrinkc.passes.analysis.linear.linear_op import LAYOUTS, ConstantPart, Layout, LinearOp
from shrinkc.passes.analysis.linear.linear_ops import LinearOps
from shrinkc.passes.analysis.linear.region_cost import cost_after, cost_before
from shrinkc.passes.analysis.linear.region_map import RegionWindows, Traced
from shrinkc.passes.analysis.op_spec import OpSpec
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.analysis.usage import usage
from shrinkc.passes.ir import module_of


@dataclass(frozen=True, eq=False)
class LinearRegion:
    """Nodes that compute one linear map, and what it is. All names are node names.

    nodes       in execution order, the sink last; `removed` are the removable ones among them
    window      of the whole region; with `layout` and the sizes it is the one layer
    constant    what the constant part may be; MAP costs an add behind the convolution
    before      the cost of the nodes as they are, `after` of the layer that they become
    """

    source: str
    sink: str
    nodes: tuple[str, ...]
    removed: tuple[str, ...]
    layout: Layout
    window: Window
    constant: ConstantPart
    in_size: Pair
    out_size: Pair
    before: tuple[OpSpec, ...]
    after: tuple[OpSpec, ...]


@dataclass(frozen=True)
class Blocked:
    """Why no region that ends in `sink` reaches back beyond `at`, or starts there.

    `linear`: what stands there is linear all the same, so something that could merge does not.
    """

    sink: str
    at: str
    reason: str
    linear: bool


@dataclass(frozen=True, eq=False)
class LinearSegments:
    """Every region, sinks in execution order, small before large; and what ended the walks."""

    regions: tuple[LinearRegion, ...]
    blocked: tuple[Blocked, ...]


def linear_segments(
    graph_module: fx.GraphModule, removable: frozenset[str] = frozenset(), max_nodes: int = 32
) -> LinearSegments:
    """All linear regions of two or more nodes with a convolution or a linear layer among them.

    `removable` names activation nodes that count as identity.
    """
    ops = LinearOps(graph_module, shapes(graph_module), usage(graph_module), removable)
    return segments_of(ops, max_nodes)


def segments_of(
    ops: LinearOps,
    max_nodes: int = 32,
    windows: RegionWindows | None = None,
    sinks: Collection[str] | None = None,
) -> LinearSegments:
    """The same on nodes already read; `windows` says how maps compose, exactly by default. `sinks`:
    names of those that are asked for; None: all."""
    search = _Search(ops, max_nodes, windows or RegionWindows(ops))
    nodes = ops.graph_module.graph.nodes
    asked = [node for node in nodes if sinks is None or node.name in sinks]
    found = [item for sink in asked for item in search.walk(sink)]
    regions = tuple(item for item in found if isinstance(item, LinearRegion))
    return LinearSegments(regions, tuple(item for item in found if isinstance(item, Blocked)))


class _Search:
    """Walks back from one sink after the other."""

    def __init__(self, ops: LinearOps, max_nodes: int, windows: RegionWindows) -> None:
        self.ops, self.max_nodes, self.windows = ops, max_nodes, windows
        self.order = {node: i for i, node in enumerate(ops.graph_module.graph.nodes)}

    def walk(self, sink: fx.Node) -> Iterator[LinearRegion | Blocked]:
        """The regions that end in `sink`, and why there are not more."""
        layouts = self._layouts(sink, LAYOUTS)
        if not layouts or sink.name in self.ops.removable:
            yield from self._unreadable(sink)
            return
        inside = {sink}
        frontier = set(self._op(sink, layouts[0]).inputs)
        reasons: set[str] = set()
        while True:
            if len(frontier) == 1:
                for item in self._region(next(iter(frontier)), sink, inside, layouts):
                    if isinstance(item, LinearRegion) or item.reason not in reasons:
                        yield item
                    reasons.update([item.reason] if isinstance(item, Blocked) else [])
            node = max(frontier, key=self.order.__getitem__)
            joined = self._layouts(node, layouts)
            reason = self._refusal(node, inside, frontier, joined, layouts)
            if reason:
                yield Blocked(sink.name, node.name, reason, self._is_linear(node))
                return
            layouts = joined
            inside.add(node)
            frontier.discard(node)
            frontier.update(x for x in self._op(node, layouts[0]).inputs if x not in inside)

    def _region(
        self, source: fx.Node, sink: fx.Node, inside: set[fx.Node], layouts: tuple[Layout, ...]
    ) -> Iterator[LinearRegion | Blocked]:
        removable = self.ops.removable
        readers = [user.name for user in source.users if user in inside]
        layers = any(self._is_layer(node) for node in inside)
        if len(inside) < 2 or not layers or all(name in removable for name in readers):
            return
        layout = layouts[0]
        traced = self.windows.trace(source, sink, layout)
        sizes = self.ops.size(source, layout), self.ops.size(sink, layout)
        reason = traced if isinstance(traced, str) else _no_layer(traced, *sizes)
        if reason is not None or isinstance(traced, str):
            yield Blocked(sink.name, source.name, reason or "", linear=True)
            return
        nodes = sorted(inside, key=self.order.__getitem__)
        yield LinearRegion(
            *(source.name, sink.name, tuple(n.name for n in nodes)),
            tuple(n.name for n in nodes if n.name in removable),
            *(layout, traced.window, traced.constant, *sizes),
            cost_before(self.ops, nodes, layout),
            cost_after(self.ops, source, sink, traced, layout),
        )

    def _refusal(
        self,
        node: fx.Node,
        inside: set[fx.Node],
        frontier: set[fx.Node],
        joined: tuple[Layout, ...],
        layouts: tuple[Layout, ...],
    ) -> str | None:
        """Why `node` cannot join."""
        reason: str | None = None
        if not joined:
            reason = f"'{node.name}': {self.ops.read(node, layouts[0])}"
        elif any(user not in inside for user in node.users):
            reason = f"the output of '{node.name}' has {len(node.users)} users"
        elif len(inside) >= self.max_nodes:
            reason = f"regions end at {self.max_nodes} nodes"
        if reason and len(frontier) > 1:
            names = sorted(frontier, key=self.order.__getitem__)
            sources = ", ".join(f"'{n.name}'" for n in names)
            return f"{len(frontier)} sources ({sources}); {reason}"
        return reason

    def _unreadable(self, sink: fx.Node) -> Iterator[Blocked]:
        """A layer that cannot be read, behind something that could merge with it."""
        if self._is_layer(sink) and self._is_linear(sink.all_input_nodes[0]):
            reason = self.ops.read(sink, LAYOUTS[isinstance(self._module(sink), nn.Linear)])
            yield Blocked(sink.name, sink.name, f"'{sink.name}': {reason}", linear=True)

    def _layouts(self, node: fx.Node, among: tuple[Layout, ...]) -> tuple[Layout, ...]:
        return tuple(x for x in among if isinstance(self.ops.read(node, x), LinearOp))

    def _op(self, node: fx.Node, layout: Layout) -> LinearOp:
        op = self.ops.read(node, layout)
        assert isinstance(op, LinearOp)
        return op

    def _module(self, node: fx.Node) -> nn.Module | None:
        return module_of(self.ops.graph_module, node)

    def _is_layer(self, node: fx.Node) -> bool:
        return isinstance(self._module(node), nn.Conv2d | nn.Linear | nn.ConvTranspose2d)

    def _is_linear(self, node: fx.Node) -> bool:
        return self._is_layer(node) or bool(self._layouts(node, LAYOUTS))


def _no_layer(traced: Traced, size: Pair, out: Pair) -> str | None:
    """Why the map is not one convolution."""
    try:
        padding_of(traced.window, size, out)
    except ValueError as error:
        return str(error)
    return None
