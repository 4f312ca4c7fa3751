"""What trained methods may do to a network's depth, and what each saves by the table.

merge      a span's activations go, it becomes one convolution (two-stage DP, DepthShrinker)
identity   some of the span's convolutions go too, so that the kernel grows less (LayerMerge)
drop       a residual block goes, its shortcut stays (layer pruning, LayerMerge)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch.nn.functional as F
from torch import fx, nn

from shrinkc.compiler.depth.choices import (
    MAX_WORK,
    inner_savings,
    is_smallest,
    nothing_to_shrink,
    work,
)
from shrinkc.compiler.depth.select import End, Option
from shrinkc.compiler.depth.surgery import DepthPlan
from shrinkc.compiler.pipeline.deployed import Network
from shrinkc.passes.algebra.intervals import region_order
from shrinkc.passes.algebra.window import Pair
from shrinkc.passes.analysis.linear.linear_op import pair
from shrinkc.passes.analysis.linear.spans import NoSpan, Span, Spans, cheapest, find_spans
from shrinkc.passes.analysis.op_spec import LAYER_OPS, OpSpec, Price
from shrinkc.passes.analysis.shapes import Shapes, shapes
from shrinkc.passes.ir import module_of

NO_SHORTCUT = "no shortcut leads around what ends here"
Move = Literal["merge", "identity", "drop"]


@dataclass(frozen=True, eq=False)
class DepthOption:
    """One thing to do, alone a plan. `first` … `last`: its place in the graph (`region_order`);
    `ends`: the states that it asks of values there."""

    plan: DepthPlan
    span: Span
    saving_ms: float
    first: int
    last: int
    ends: tuple[End, ...] = ()

    @property
    def label(self) -> str:
        what = "drop" if self.plan.dropped else "merge"
        names = f" without {', '.join(self.plan.identity)}" if self.plan.identity else ""
        inner = [sink for _, sink in self.plan.merged][:-1]
        parts = f" in parts at {', '.join(inner)}" if inner else ""
        states = ", ".join(f"{'on' if on else 'off'} at '{value}'" for value, on in self.ends)
        ends = f", activations {states}" if states else ""
        return f"{what} '{self.span.source}' to '{self.span.sink}'{parts}{names}{ends}"

    def priced(self, damage: float) -> Option:
        return Option(self.first, self.last, self.saving_ms, damage, self.ends)


def depth_options(
    net: Network, price: Price, moves: Sequence[Move]
) -> tuple[list[DepthOption], list[NoSpan]]:
    """Every option that saves time, and why other spans stay. Raises InputError when there is
    none; it says why, span by span."""
    found = depth_spans(net)
    refused, spans = list(found.blocked), found.spans
    place = _places(net.folded)
    drops = tuple(moves) == ("drop",)
    merges = [] if drops else _merges(spans, price, refused)
    options: list[DepthOption] = []
    if "merge" in moves:
        options += [_merge(net, span, span.saving(price), (), place) for span in merges]
    if "identity" in moves:
        options += _with_identity(net, spans, price, place)
    if "drop" in moves:
        options += _drops(net, spans, price, place)
    if drops:
        around = {name for span in spans if span.identity for name in span.nodes}
        ends = dict.fromkeys(span.sink for span in spans if span.sink not in around)
        refused += [NoSpan(sink, NO_SHORTCUT) for sink in ends]
    if not options:
        raise nothing_to_shrink(refused)
    return options, refused


def depth_spans(net: Network) -> Spans:
    """Those that do not end in a padding, which moves (`prepare`)."""
    found = find_spans(net.folded)
    pads = {node.name for node in net.folded.graph.nodes if node.target is F.pad}
    return replace(found, spans=tuple(span for span in found.spans if span.sink not in pads))


def _places(graph: fx.GraphModule) -> dict[str, int]:
    return {node.name: i for node, i in region_order(graph.graph.nodes).items()}


def _merges(spans: Sequence[Span], price: Price, refused: list[NoSpan]) -> list[Span]:
    """Short before long: a long one has to save more than the short ones inside it, which remove
    fewer activations."""
    found: list[tuple[Span, float]] = []
    sane = [s for s in spans if work(s.after) <= MAX_WORK * work(s.before)]
    for span in sorted(cheapest(sane, price), key=lambda s: len(s.nodes)):
        if (saving := span.saving(price)) > inner_savings(span, found):
            found.append((span, saving))
    taken = {span.sink for span, _ in found}
    for span in spans:
        if span.sink not in taken:
            taken.add(span.sink)
            before, after = sum(map(price, span.before)), sum(map(price, span.after))
            reason = f"merging does not pay: {before:.3g} → {after:.3g} ms"
            refused.append(NoSpan(span.sink, reason))
    return [span for span, _ in found]


def _merge(
    net: Network, span: Span, saving: float, identity: tuple[str, ...], place: dict[str, int]
) -> DepthOption:
    pair = net.pair(span.source, span.sink)
    plan = DepthPlan(span.removed, identity, (), (pair,), (pair[1],))
    return _option(plan, span, saving, place)


def _option(plan: DepthPlan, span: Span, saving: float, place: dict[str, int]) -> DepthOption:
    first = min(place[name] for name in span.nodes)
    return DepthOption(plan, span, saving, first, place[span.sink])


def _drops(
    net: Network, spans: Sequence[Span], price: Price, place: dict[str, int]
) -> Iterator[DepthOption]:
    for span in spans:
        saving = sum(map(price, span.before))
        if span.identity and saving > 0 and is_smallest(span, spans):
            plan = DepthPlan(dropped=(net.pair(span.source, span.sink),))
            yield _option(plan, span, saving, place)


# --- identity instead of a convolution -----------------------------------------------------------


def _with_identity(
    net: Network, spans: Sequence[Span], price: Price, place: dict[str, int]
) -> Iterator[DepthOption]:
    """Of every number of convolutions to leave out those whose weights are smallest; only where
    that saves more than merging all of them."""
    known = shapes(net.folded)
    nodes = {node.name: node for node in net.folded.graph.nodes}
    best: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[float, Span]] = {}
    for span in spans:
        convs = _by_weight(net.folded, [nodes[n] for n in span.nodes if n != span.sink])
        shrink = [_shrinks(net.folded, span, conv, known) for conv in convs]
        for count in range(1, len(convs) + 1):
            identity = tuple(conv.name for conv in convs[:count])
            less = [sum(pair[axis] for pair in shrink[:count]) for axis in (0, 1)]
            after = [_smaller(spec, (less[0], less[1])) for spec in span.after]
            saving = sum(map(price, span.before)) - sum(map(price, after))
            least, _ = best.get((span.removed, identity), (max(0.0, span.saving(price)), span))
            if saving > least:
                best[span.removed, identity] = saving, span
    for (_, identity), (saving, span) in best.items():
        yield _merge(net, span, saving, identity, place)


def _by_weight(graph: fx.GraphModule, nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """The convolutions that can be the identity. Kim et al. (2024) keep those with the largest ℓ1
    norms; here over the number of weights, since depthwise and dense ones stand side by side."""
    sizes: list[tuple[float, str, fx.Node]] = []
    for node in nodes:
        conv = module_of(graph, node)
        if isinstance(conv, nn.Conv2d) and _can_be_identity(conv):
            sizes.append((float(conv.weight.detach().abs().mean()), node.name, node))
    return [node for _, _, node in sorted(sizes, key=lambda s: s[:2])]


def _can_be_identity(conv: nn.Conv2d) -> bool:
    """It keeps the shape, and its kernel makes the merged one grow."""
    kernel, pad, dilation, stride = map(
        pair, (conv.kernel_size, conv.padding, conv.dilation, conv.stride)
    )
    same = all(2 * p == d * (k - 1) for k, p, d in zip(kernel, pad, dilation, strict=True))
    return conv.in_channels == conv.out_channels and same and max(kernel) > 1 == max(stride)


def _shrinks(graph: fx.GraphModule, span: Span, node: fx.Node, known: Shapes) -> Pair:
    """By how much the merged kernel is smaller without it: (k − 1)·d·(the strides in front)."""
    conv = cast(nn.Conv2d, module_of(graph, node))
    size = known[node.all_input_nodes[0].name][2:]
    rows, columns = (
        (k - 1) * d * max(1, round(whole / part))
        for k, d, whole, part in zip(
            *(pair(conv.kernel_size), pair(conv.dilation), span.in_size, size), strict=True
        )
    )
    return rows, columns


def _smaller(spec: OpSpec, less: Pair) -> OpSpec:
    if spec.op not in LAYER_OPS:
        return spec
    rows, columns = (max(1, k - n) for k, n in zip(spec.kernel, less, strict=True))
    return replace(spec, kernel=(rows, columns))
