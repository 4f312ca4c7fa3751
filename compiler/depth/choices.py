"""What can be done to every span, what it saves, and how it is fitted to the teacher."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, cast

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.recover.layer_problems import Problem, Sums
from shrinkc.compiler.recover.least_squares import (
    Ridge,
    best,
    elimination_order,
    ridge,
    ridged,
)
from shrinkc.errors import InputError
from shrinkc.passes.algebra.affine_map import AffineMap
from shrinkc.passes.algebra.intervals import Interval, best_disjoint
from shrinkc.passes.algebra.window import Axis, Padding, Window, padding_of
from shrinkc.passes.analysis.linear.hidden_channels import HiddenChannels
from shrinkc.passes.analysis.linear.linear_op import pair
from shrinkc.passes.analysis.linear.linear_ops import LinearOps
from shrinkc.passes.analysis.linear.region_map import affine_map
from shrinkc.passes.analysis.linear.spans import NoSpan, Span, Spans, activations, cheapest
from shrinkc.passes.analysis.op_spec import LAYER_OPS, OpSpec, Price
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.analysis.usage import usage
from shrinkc.passes.base import Pass
from shrinkc.passes.ir import module_of
from shrinkc.passes.merge.replace_span import DenseSpan, DropSpan, NarrowSpan

Kind = Literal["merge", "drop", "narrow"]
KINDS: tuple[Kind, ...] = ("merge", "drop", "narrow")
NARROWEST, MOST_WIDTHS = 1 / 4, 30  # of a span's hidden channels
WORTH = 1 / 12  # of a span's time: what the next narrower width has to save
MULTIPLE, FEW = 8, 32  # channels that kernels compute at a time; fewer hidden ones need not fit
MAX_WORK = 4  # no device computes dense layers so much better; such spans are not priced
MAX_NUMBERS = 4000  # of one fit: its sums are this squared, about eight of them at a time


MAX_SHOWN = 8  # reasons in one error


@dataclass(frozen=True, eq=False)
class Choice:
    """One thing to do to one span. `channels`: hidden ones that stay, for "narrow"."""

    span: Span
    kind: Kind
    saving_ms: float
    channels: int = 0

    @property
    def label(self) -> str:
        source, sink = self.span.source, self.span.sink
        what = f"{self.kind} to {self.channels}" if self.kind == "narrow" else self.kind
        return f"{what}: '{source}' to '{sink}'"


def choices(
    spans: Spans, price: Price, kinds: Sequence[Kind] = KINDS
) -> tuple[list[Choice], list[NoSpan]]:
    """Everything that saves time, and why other spans are left as they are."""
    found: list[Choice] = []
    refused: list[NoSpan] = list(spans.blocked)
    if "merge" in kinds:
        sane = [s for s in spans.spans if work(s.after) <= MAX_WORK * work(s.before)]
        found += _merges(cheapest(sane, price), price, refused)
    for span in spans.spans:
        cost = sum(map(price, span.before))
        if "drop" in kinds and span.identity and is_smallest(span, spans.spans) and cost > 0:
            found.append(Choice(span, "drop", cost))
        if "narrow" in kinds and span.hidden is not None:
            found += _narrowed(span, cost, price)
    seen = {choice.span.sink for choice in found} | {r.node for r in refused}
    for span in spans.spans:
        if span.sink not in seen:
            seen.add(span.sink)
            refused.append(NoSpan(span.sink, _why_not(span, price, kinds)))
    return found, refused


def _why_not(span: Span, price: Price, kinds: Sequence[Kind]) -> str:
    if "merge" not in kinds:
        return f"it has nothing to {' or '.join(kinds)}"
    if work(span.after) > MAX_WORK * work(span.before):
        return f"one convolution would take over {MAX_WORK} times the multiplications"
    before, after = sum(map(price, span.before)), sum(map(price, span.after))
    if after >= before:
        return f"does not pay: {before:.3g} → {after:.3g} ms"
    return "merging its parts saves as much"


def work(specs: Sequence[OpSpec]) -> float:
    """Multiply-accumulates of the layers."""
    return sum(
        prod(s.out_size) * s.out_channels * s.in_channels // s.groups * prod(s.kernel)
        for s in specs
        if s.op in LAYER_OPS
    )


def _merges(spans: Sequence[Span], price: Price, refused: list[NoSpan]) -> list[Choice]:
    """Short spans before long ones. A long one has to save more than the short ones inside it do,
    which remove fewer activations."""
    found: list[Choice] = []
    for span in sorted(spans, key=lambda s: len(s.nodes)):
        reason, saving = why_no_fit(span.window), span.saving(price)
        if reason is not None:
            refused.append(NoSpan(span.sink, reason))
        elif saving > inner_savings(span, [(c.span, c.saving_ms) for c in found]):
            found.append(Choice(span, "merge", saving))
    return found


def inner_savings(span: Span, found: Sequence[tuple[Span, float]]) -> float:
    """What merging disjoint parts of a span saves at most."""
    order = {name: i for i, name in enumerate(span.nodes)}
    parts = [(part, ms) for part, ms in found if order.keys() >= set(part.nodes)]
    intervals = [Interval(order[part.nodes[0]], order[part.sink], ms) for part, ms in parts]
    return sum(intervals[i].value for i in best_disjoint(intervals))


def _narrowed(span: Span, cost: float, price: Price) -> Iterable[Choice]:
    """Widths that save notably more than every wider one: kernels compute channels in groups."""
    hidden = span.hidden
    assert hidden is not None
    if hidden.channels * hidden.kernel > MAX_NUMBERS:
        return
    saved = 0.0
    for channels in _widths(hidden.channels):
        saving = cost - sum(map(price, hidden.specs(channels)))
        if saving >= saved + WORTH * cost:
            saved = saving
            yield Choice(span, "narrow", saving, channels)


def _widths(channels: int) -> Iterable[int]:
    """The wide ones first."""
    step = MULTIPLE if channels >= FEW else 1
    while channels > MOST_WIDTHS * step:
        step *= 2
    fewest = max(step, math.ceil(NARROWEST * channels / step) * step)
    return range((channels - 1) // step * step, fewest - 1, -step)


def is_smallest(span: Span, spans: Sequence[Span]) -> bool:
    """Leaving out two residual blocks is leaving out each."""
    inside = set(span.nodes)
    return not any(
        other is not span and other.identity and inside > set(other.nodes) for other in spans
    )


def why_no_fit(window: Window) -> str | None:
    """Why no dense convolution is fitted in its place; None where one can be."""
    numbers = window.in_channels * window.kernel[0] * window.kernel[1]
    if window.groups > 1:
        return "the convolution would have groups"
    if numbers > MAX_NUMBERS:
        return f"a fit of {numbers:,} numbers; {MAX_NUMBERS:,} is the most"
    return None


def nothing_to_shrink(refused: Sequence[NoSpan]) -> InputError:
    """It says why, span by span."""
    shown = [f"'{r.node}': {r.reason}" for r in refused[:MAX_SHOWN]]
    if len(refused) > MAX_SHOWN:
        shown.append(f"and {len(refused) - MAX_SHOWN} more")
    reasons = "; ".join(shown) or "no two layers with an activation between them"
    return InputError(f"nothing to shrink in depth: {reasons}")


# --- fitting -------------------------------------------------------------------------------------


def dense_problem(span: Span) -> Problem:
    """The span's output from its input."""
    padding = padding_of(span.window, span.in_size, span.out_size)
    sink = span.sink
    return Problem(
        *(span.source, span.window, padding, (), (sink,)), lambda _, teacher: teacher[sink]
    )


def consumer_problem(graph: fx.GraphModule, span: Span) -> Problem:
    """The teacher's output, less the student's shortcut, from the student's hidden channels."""
    hidden = span.hidden
    assert hidden is not None
    source, sink, shortcut = span.source, span.sink, hidden.shortcut

    def target(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
        return teacher[sink] - student[source] if shortcut else teacher[sink]

    reads = layer_problem(graph, hidden.consumer)
    return replace(reads, student=(source,), teacher=(sink,), target=target)


def layer_problem(graph: fx.GraphModule, name: str) -> Problem:
    """The teacher's output of a convolution from the student's input."""
    node = next(n for n in graph.graph.nodes if n.name == name)
    conv = cast(nn.Conv2d, module_of(graph, node))
    kernel, stride, dilation, pad = map(
        pair, (conv.kernel_size, conv.stride, conv.dilation, conv.padding)
    )
    axes = tuple(Axis(*axis) for axis in zip(kernel, stride, dilation, pad, strict=True))
    window = Window(conv.in_channels, conv.out_channels, 1, (axes[0], axes[1]))
    reads = node.all_input_nodes[0].name
    return Problem(*(reads, window, Padding(pad), (), (name,)), lambda _, teacher: teacher[name])


@dataclass(frozen=True, eq=False)
class Fitted:
    """A choice with its numbers. `error`: on held-out images, of the target's variance."""

    choice: Choice
    replacement: Pass
    error: float


def fit_dense(choice: Choice, sums: Sums, merged: Tensor | None) -> Fitted:
    """Ridge regression towards nothing (the shortcut, where there is one) or `merged`, the kernel
    that removing the activations alone gives."""
    span = choice.span
    none = _shortcut(span) if span.identity else None
    priors = [none] if merged is None else [none, merged.flatten(1)]
    solution, error = best(*sums, priors)
    shape = (span.window.out_channels, span.window.in_channels, *span.window.kernel)
    weight = solution.weight.reshape(shape)
    return Fitted(choice, DenseSpan(span, weight, solution.bias), error)


def _shortcut(span: Span) -> Tensor:
    """x as a dense kernel."""
    window = span.window
    weight = torch.zeros(window.weight_shape, dtype=torch.float64)
    index = torch.arange(window.out_channels)
    at = [axis.pad // axis.dilation for axis in window.axes]
    weight[index, index, at[0], at[1]] = 1
    return weight.flatten(1)


def merged_kernel(graph: fx.GraphModule, span: Span) -> AffineMap | None:
    """The span with its activations removed; None where borders make it no convolution."""
    if not span.exact:
        return None
    ops = LinearOps(graph, shapes(graph), usage(graph), activations(graph))
    nodes = {node.name: node for node in graph.graph.nodes}
    return affine_map(ops, nodes[span.source], [nodes[n] for n in span.nodes], "conv2d")


def fit_narrow(
    choice: Choice, sums: Sums, order: Sequence[int], now: Tensor, how: Ridge | None = None
) -> Fitted:
    """The hidden channels that least squares misses most, their consumer refitted; `now` is its
    weight of today, (out, hidden, kh, kw). `how`: None: the best."""
    hidden, span = choice.span.hidden, choice.span
    assert hidden is not None
    kept, narrow, priors = _narrow(hidden, choice.channels, sums, order, now)
    how = ridge(*narrow, priors) if how is None else how
    solution, error = ridged(*narrow, priors, how)
    weight = solution.weight.reshape(now.shape[0], len(kept), *now.shape[2:])
    return Fitted(choice, NarrowSpan(span, kept, weight, solution.bias), error)


def narrow_ridge(
    hidden: HiddenChannels, channels: int, sums: Sums, order: Sequence[int], now: Tensor
) -> Ridge:
    """The best where so many channels stay."""
    _, narrow, priors = _narrow(hidden, channels, sums, order, now)
    return ridge(*narrow, priors)


def _narrow(
    hidden: HiddenChannels, channels: int, sums: Sums, order: Sequence[int], now: Tensor
) -> tuple[Tensor, Sums, list[Tensor | None]]:
    """(channels that stay, their sums, what their weights may be drawn to)."""
    gone = set(order[: hidden.channels - channels])
    kept = torch.tensor([c for c in range(hidden.channels) if c not in gone])
    rows = (kept[:, None] * hidden.kernel + torch.arange(hidden.kernel)).flatten()
    priors: list[Tensor | None] = [None, now.double().flatten(1)[:, rows]]
    return kept, (sums[0].part(rows), sums[1].part(rows)), priors


def weight_of(graph: fx.GraphModule, name: str) -> Tensor:
    """Of the layer that a node calls."""
    node = next(n for n in graph.graph.nodes if n.name == name)
    return cast(nn.Conv2d, module_of(graph, node)).weight.detach()


def order_of(sums: Sums, span: Span, fewest: int) -> list[int]:
    """Hidden channels, the most dispensable first, down to `fewest`."""
    assert span.hidden is not None
    return elimination_order(*sums[0].plus(sums[1]).centred(), span.hidden.kernel, fewest)


def fitted_drop(choice: Choice) -> Fitted:
    return Fitted(choice, DropSpan(choice.span), float("nan"))
