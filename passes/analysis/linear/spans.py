"""Spans: what becomes one dense convolution once the activations inside are removed.

A span is a linear region of the graph in which activations count as identity: an inverted residual
with its shortcut, a ResNet basic block, two VGG layers, or several of these in a row. Kernels grow
along it, k = k₁ + (k₂ − 1)·s₁, strides multiply (Fu et al., DepthShrinker, 2022). The geometry here
takes all zero padding to the span's source, where it has to be before training; `exact` spans
merge without that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from torch import fx

from shrinkc.passes.algebra.window import Pair, Window, compose
from shrinkc.passes.analysis.linear.hidden_channels import HiddenChannels, hidden_channels
from shrinkc.passes.analysis.linear.linear_op import ConstantPart, Layout, LinearOp
from shrinkc.passes.analysis.linear.linear_ops import LinearOps
from shrinkc.passes.analysis.linear.linear_segments import LinearRegion, LinearSegments, segments_of
from shrinkc.passes.analysis.linear.region_map import RegionWindows, Traced
from shrinkc.passes.analysis.op_spec import OpSpec, Price
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.analysis.usage import usage
from shrinkc.passes.ir import ELEMENTWISE_MODULES, module_of, mul

MAX_NODES = 32  # of one span: four inverted residuals


@dataclass(frozen=True, eq=False)
class Span:
    """Nodes between `source`, which is outside, and `sink`, the last of `nodes`. Names of nodes.

    removed    the activations inside
    window     of the one convolution that the span becomes
    exact      merging is exact where the padding is; else move it to the source before training
    border     an exact merge adds a constant map, since zero padding inside sees biases
    identity   the source has the sink's shape and is added to it: the span can be left out
    hidden     channels between its first and its last dense layer, if that is all it has
    before     operators today, `after` as one convolution
    """

    source: str
    sink: str
    nodes: tuple[str, ...]
    removed: tuple[str, ...]
    window: Window
    in_size: Pair
    out_size: Pair
    exact: bool
    border: bool
    identity: bool
    hidden: HiddenChannels | None
    before: tuple[OpSpec, ...]
    after: tuple[OpSpec, ...]

    def saving(self, price: Price) -> float:
        """Milliseconds that the dense convolution saves; negative where it costs more."""
        return sum(map(price, self.before)) - sum(map(price, self.after))


@dataclass(frozen=True)
class NoSpan:
    """Why no span reaches `node` or goes on beyond it."""

    node: str
    reason: str


@dataclass(frozen=True, eq=False)
class Spans:
    """Every span, sinks in execution order, short before long; and what stands in the way."""

    spans: tuple[Span, ...]
    blocked: tuple[NoSpan, ...]


def find_spans(
    graph_module: fx.GraphModule,
    max_nodes: int = MAX_NODES,
    linear: bool = False,
    sinks: Collection[str] | None = None,
) -> Spans:
    """All spans of a graph whose batch norms are folded, in time linear in its size.

    `linear`: also those whose activations are gone already. `sinks`: where those end that are asked
    for; None: anywhere.
    """
    removable = activations(graph_module)
    ops = LinearOps(graph_module, shapes(graph_module), usage(graph_module), removable)
    nodes = {node.name: node for node in graph_module.graph.nodes}
    if sinks is not None:  # and where their readers end, by which `_longest` tells longer ones
        known = [nodes[name] for name in sinks if name in nodes]
        sinks = {node.name for sink in known for node in (sink, *sink.users)}
    segments = segments_of(ops, max_nodes, _MovedPadding(ops), sinks)
    exact = RegionWindows(ops)
    found: list[Span] = []
    blocked: dict[NoSpan, None] = {}
    for region in segments.regions:
        if region.layout != "conv2d" or not (region.removed or linear):
            continue
        reason = _too_large(region)
        if reason is None:
            found.append(_span(region, ops, exact, nodes))
        else:
            blocked[NoSpan(region.sink, reason)] = None
    reached = {name for span in found for name in span.nodes}
    blocked |= {NoSpan(*pair): None for pair in _reasons(ops, segments, nodes, reached)}
    return Spans(tuple(_longest(found, ops, nodes)), tuple(blocked))


def activations(graph_module: fx.GraphModule) -> frozenset[str]:
    """The names of element-wise activations."""
    return frozenset(
        node.name
        for node in graph_module.graph.nodes
        if isinstance(module_of(graph_module, node), ELEMENTWISE_MODULES)
    )


def cheapest(spans: Iterable[Span], price: Price) -> list[Span]:
    """Of the spans that remove the same activations the one that saves most, if any does."""
    best: dict[tuple[str, ...], tuple[float, Span]] = {}
    for span in spans:
        saving = span.saving(price)
        if saving > 0 and (span.removed not in best or saving > best[span.removed][0]):
            best[span.removed] = (saving, span)
    return [span for _, span in best.values()]


class _MovedPadding(RegionWindows):
    """Windows with all padding in front of the source: no border inside, no constant map."""

    def step(
        self, source: fx.Node, x: fx.Node, node: fx.Node, op: LinearOp, layout: Layout
    ) -> Traced | str:
        first = self.trace(source, x, layout)
        if isinstance(first, str):
            return first
        return Traced(compose(first.window, op.window), max(first.constant, op.constant))


def _span(
    region: LinearRegion, ops: LinearOps, exact: RegionWindows, nodes: dict[str, fx.Node]
) -> Span:
    source, sink = nodes[region.source], nodes[region.sink]
    traced = exact.trace(source, sink, region.layout)
    return Span(
        *(region.source, region.sink, region.nodes, region.removed),
        *(region.window, region.in_size, region.out_size),
        exact=not isinstance(traced, str),
        border=isinstance(traced, Traced) and traced.constant == ConstantPart.MAP,
        identity=_keeps_source(ops, source, sink, set(region.nodes)),
        hidden=hidden_channels(ops, region.nodes, nodes, region.before),
        before=region.before,
        after=region.after,
    )


def _keeps_source(ops: LinearOps, source: fx.Node, sink: fx.Node, inside: set[str]) -> bool:
    """`sink` is the source plus something: additions lead back to it."""
    if ops.shapes[source.name] != ops.shapes[sink.name]:
        return False
    waiting, seen = [sink], set[fx.Node]()
    while waiting:
        node = waiting.pop()
        op = ops.read(node, "conv2d")
        if node in seen or isinstance(op, str) or len(op.inputs) < 2:
            continue
        seen.add(node)
        if source in op.inputs:
            return True
        waiting += [x for x in op.inputs if x.name in inside]
    return False


def _too_large(region: LinearRegion) -> str | None:
    """The kernel reaches further than the input and than any kernel of today."""
    for index, axis in enumerate(region.window.axes):
        known = max((s.kernel[index] - 1) * s.dilation[index] + 1 for s in region.before)
        if axis.extent > max(region.in_size[index], known):
            size = "×".join(map(str, region.in_size))
            return f"the kernel from '{region.source}' would span {axis.extent} of {size} positions"
    return None


def _longest(spans: list[Span], ops: LinearOps, nodes: dict[str, fx.Node]) -> Iterator[Span]:
    """Not those whose sink is only added to a shortcut inside a longer one: the shortcut costs
    the convolution nothing."""
    known = {(s.source, s.removed, s.sink) for s in spans}
    for span in spans:
        users = list(nodes[span.sink].users)
        taken = len(users) == 1 and (span.source, span.removed, users[0].name) in known
        op = ops.read(users[0], "conv2d") if taken else ""
        if isinstance(op, str) or len(op.inputs) < 2:
            yield span


def _reasons(
    ops: LinearOps, segments: LinearSegments, nodes: dict[str, fx.Node], reached: set[str]
) -> Iterator[tuple[str, str]]:
    """Gates, and what ended the walks from layers that no span has `reached`; each place once."""
    seen: set[str] = set()
    for blocked in segments.blocked:
        gate = _gate(ops, nodes[blocked.at])
        lost = blocked.linear and blocked.sink not in reached
        if (gate or lost) and blocked.at not in seen:
            seen.add(blocked.at)
            yield blocked.at, gate or blocked.reason


def _gate(ops: LinearOps, node: fx.Node) -> str | None:
    """A product with what was pooled from the whole map."""
    operands = [x for x in node.all_input_nodes if x.op != "get_attr"]
    if node.target is not mul or len(operands) != 2:
        return None
    for x in operands:
        shape = ops.shapes[x.name]
        if len(shape) == 4 and shape[2:] == (1, 1) != ops.shapes[node.name][2:]:
            return f"squeeze-excite: '{node.name}' scales channels by '{x.name}', pooled from all"
    return None
