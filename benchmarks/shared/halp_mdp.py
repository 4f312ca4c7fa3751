"""HALP and MDP on shrinkc's latency tables: which channels and blocks go. Nothing is fitted here.

HALP (Shen et al., NeurIPS 2022): the channels that matter most within the latency, by the knapsack
of `compiler/width`. MDP (Sun et al., CVPR 2025): channels and whole blocks in one program, a
layer's latency by its inputs and outputs together, by the planner of `compiler/plan`.

A channel's score is |Σ g·a| over a batch, in the mean over batches: what the loss changes by, to
first order, without what is read of it. Behind ReLU that is the papers' |g_γ·γ + g_β·β| of its
batch norm. A block's is the sum of its channels', of those inside and of what it adds to the
stream, as in MDP's objective. A channel of the stream that goes counts what every block adds to it,
also in blocks that go themselves.

The papers remove a few channels at a time while the network trains on all of ImageNet; here all go
at once, and groups have up to 16 widths, multiples of what kernels like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, nan
from typing import ClassVar

import numpy as np
import torch
from torch import fx

from shrinkc.compiler.cost.budget import predicted_ms, price_of
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.choice_sets import Plans
from shrinkc.compiler.depth.choices import Choice, Kind, choices
from shrinkc.compiler.depth.surgery import DepthPlan, prepare
from shrinkc.compiler.pipeline.deployed import merged
from shrinkc.compiler.pipeline.slicing import run_slicing
from shrinkc.compiler.plan.candidates import hidden_alone
from shrinkc.compiler.plan.group_choices import group_choices
from shrinkc.compiler.plan.slicings import Slicings
from shrinkc.compiler.recover.divergence import Damage
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.prune import Pruning, prune
from shrinkc.errors import UnreachableGoalError
from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup, Groups, channel_groups
from shrinkc.passes.analysis.linear.spans import Span, find_spans
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import Scores, most_important
from shrinkc.passes.criteria.shared.data import (
    Batch,
    cross_entropy,
    each_batch,
    evaluating,
    labelled,
)
from shrinkc.passes.criteria.shared.masked_reads import MaskedRead, mask_gradients, masked_reads

PRECISION = "fp32"
KINDS: tuple[Kind, ...] = ("drop", "narrow")
Reads = Mapping[tuple[str, str], Sequence[MaskedRead]]
Method = Callable[[fx.GraphModule, Sequence[Batch], CostTable, Goal], fx.GraphModule]


@dataclass(frozen=True, eq=False)
class Taylor:
    """Needs batches with classes, which may be the network's own answers."""

    batches: Sequence[Batch]
    name: ClassVar[str] = "taylor"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        return self.of(graph_module, masked_reads(groups), _sizes(groups))

    def of(self, graph_module: fx.GraphModule, reads: Reads, sizes: Mapping[str, int]) -> Scores:
        """Of each name that `reads` mask, all of it together."""
        names = {one.group for some in reads.values() for one in some}
        sizes = {name: size for name, size in sizes.items() if name in names}
        total = {name: torch.zeros(size, dtype=torch.float64) for name, size in sizes.items()}
        with evaluating(graph_module):
            for inputs, labels in each_batch(graph_module, self.batches):
                batch = inputs, labelled(self.name, labels)
                found = mask_gradients(graph_module, sizes, reads, batch, cross_entropy)
                for name, gradients in found.items():
                    total[name] += gradients.double().sum(0).abs() / len(batch[1])
        return {name: (score / len(self.batches)).numpy() for name, score in total.items()}


def halp(
    original: fx.GraphModule, batches: Sequence[Batch], table: CostTable, goal: Goal
) -> fx.GraphModule:
    """The narrower network. Raises UnreachableGoalError."""
    options = Pruning(Allocation(kind="knapsack", normalise="none"))
    return prune(original, table, PRECISION, Taylor(batches), goal, options=options).graph_module


def mdp(
    original: fx.GraphModule, batches: Sequence[Batch], table: CostTable, goal: Goal
) -> fx.GraphModule:
    """The network with fewer channels and blocks. Raises UnreachableGoalError."""
    program = Program.of(original, batches, table)
    budget_ms = goal.budget(predicted_ms(original, table, PRECISION))
    slices, chosen = program.within(budget_ms)
    sliced, _ = run_slicing(original, SliceChannels(Selection(slices)))
    dropped = tuple((c.span.source, c.span.sink) for c in chosen if c.kind == "drop")
    graph = prepare(sliced, DepthPlan(dropped=dropped), None).graph
    return merged(graph, price_of(table, PRECISION)).graph_module


METHODS: Mapping[str, Method] = {"HALP": halp, "MDP": mdp}


@dataclass(frozen=True, eq=False)
class Program:
    """What may go of a network, and the scores of what it would lose."""

    groups: Groups
    scores: Scores
    slicings: Slicings

    @classmethod
    def of(cls, original: fx.GraphModule, batches: Sequence[Batch], table: CostTable) -> Program:
        groups = channel_groups(original)
        found, _ = choices(find_spans(original), price_of(table, PRECISION), KINDS)
        reads, sizes = {at: list(some) for at, some in masked_reads(groups).items()}, _sizes(groups)
        for at, branch in _branches(original, found):
            reads.setdefault(at, []).append(branch)
            sizes[branch.group] = len(branch.channels)
        scores = Taylor(batches).of(original, reads, sizes)
        lost = {c.label: lost for c in found if (lost := _lost(c, groups, scores)) is not None}
        found = [c for c in found if c.label in lost]
        hidden = hidden_alone([c.span for c in found if c.channels])
        slices = [
            replace(c, keep=most_important(c.group, scores[c.group.name], c.channels))
            for c in group_choices(original, table, PRECISION, hidden)
            if c.group.name in scores
        ]
        lost |= {c.label: float(scores[c.group.name][~c.keep].sum()) for c in slices}
        damages = {label: Damage(loss, nan, nan) for label, loss in lost.items()}
        whole = Plans(original, table, PRECISION, found, [damages[c.label] for c in found])
        return cls(groups, scores, Slicings(whole, slices, damages, KINDS))

    def within(self, budget_ms: float) -> tuple[dict[str, np.ndarray], list[Choice]]:
        """Group → the channels that stay, and all that was chosen of spans. Raises
        UnreachableGoalError."""
        lost, slicing = self.slicings.best(budget_ms)
        if lost == inf:
            raise UnreachableGoalError(f"no channels and blocks were found for {budget_ms:.4g} ms")
        plans = slicing.plans
        chosen = [plans.found[i] for i in plans.within(budget_ms, thorough=True)]
        keep = {c.group.name: c.keep for c in slicing.slices}
        for choice in chosen:
            if choice.kind == "narrow":
                group = _hidden(choice, self.groups)
                keep[group.name] = most_important(group, self.scores[group.name], choice.channels)
        return keep, chosen


def _sizes(groups: Groups) -> dict[str, int]:
    return {group.name: group.size for group in groups.groups}


def _branches(
    graph: fx.GraphModule, found: Sequence[Choice]
) -> Iterator[tuple[tuple[str, str], MaskedRead]]:
    """What every block that can go adds to its stream, by the block's label."""
    nodes = {node.name: node for node in graph.graph.nodes}
    for choice in found:
        span, inputs = choice.span, nodes[choice.span.sink].all_input_nodes
        branch = [x.name for x in inputs if x.name != span.source]
        if choice.kind == "drop" and len(inputs) == 2 and len(branch) == 1:
            channels = np.arange(span.window.out_channels)
            yield (span.sink, branch[0]), MaskedRead(choice.label, 1, channels, channels)


def _hidden(choice: Choice, groups: Groups) -> ChannelGroup:
    hidden = choice.span.hidden
    assert hidden is not None
    made = (g for g in groups.groups if any(v.node == hidden.producer for v in g.made))
    return next(made)


def _lost(choice: Choice, groups: Groups, scores: Scores) -> float | None:
    """The scores of all that goes; None where a block's are not known: it is no sum of two."""
    if choice.kind == "narrow":
        group = _hidden(choice, groups)
        gone = ~most_important(group, scores[group.name], choice.channels)
        return float(scores[group.name][gone].sum())
    if choice.label not in scores:
        return None
    inside = [group.name for group in groups.groups if _lies_in(group, choice.span)]
    return sum(float(scores[name].sum()) for name in (choice.label, *inside))


def _lies_in(group: ChannelGroup, span: Span) -> bool:
    inside = set(span.nodes)
    return all(value.node in inside for value in (*group.made, *group.read))
