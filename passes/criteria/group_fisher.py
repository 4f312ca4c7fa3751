"""Group Fisher (Liu et al., Group Fisher Pruning for Practical Network Compression, ICML 2021).

Every layer that reads a channel of a group reads it times a mask m = 1. What removing the channel
costs is, by the Fisher information,

    s = Σ_n (Σ_x ∂L_n/∂m_x)²

over images n and the layers x that read it, coupled layers summed before the square. It is
divided by what the channel takes: memory (the elements that are written for it, which the paper
finds measured speed to follow), FLOPs, or any number handed in, say milliseconds.

`fisher_training` has the paper's schedule: one channel every d steps of a training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import fx

from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.criteria.base import Schedule, Scores
from shrinkc.passes.criteria.fisher_training import FisherSchedule
from shrinkc.passes.criteria.shared.channel_costs import macs_per_channel, memory_per_channel
from shrinkc.passes.criteria.shared.data import (
    Batches,
    Loss,
    cross_entropy,
    each_batch,
    evaluating,
    labelled,
)
from shrinkc.passes.criteria.shared.masked_reads import mask_gradients, masked_reads
from shrinkc.passes.criteria.spec import CriterionSpec, Given

Cost = Literal["memory", "flops", "none"] | Mapping[str, float]


@dataclass(frozen=True, eq=False)
class GroupFisher:
    """Needs images with labels.

    loss  summed over the batch
    cost  what scores are divided by: "memory" and "flops" of one channel, "none", or group → a
          number, say the milliseconds that one channel takes
    every a channel goes every so many steps of a training, as published (25); None: the scores
          decide at once
    """

    batches: Batches
    loss: Loss = cross_entropy
    cost: Cost = "memory"
    every: int | None = None
    name: ClassVar[str] = "group-fisher"

    def __post_init__(self) -> None:
        _ = self.schedule  # raises InputError for fewer than 1 step

    @property
    def schedule(self) -> Schedule | None:
        if self.every is None:
            return None
        per = self.cost if self.cost in ("memory", "flops") else "budget"
        return FisherSchedule(self.every, per)

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        """Raises InputError: no labels, a group without a cost above 0. Memory: one batch's
        activations."""
        reads = masked_reads(groups)
        sizes = {r.group: groups[r.group].size for read in reads.values() for r in read}
        total = {n: torch.zeros(size, dtype=torch.float64) for n, size in sizes.items()}
        with evaluating(graph_module):
            for inputs, labels in each_batch(graph_module, self.batches):
                known = labelled("Group Fisher", labels)
                found = mask_gradients(graph_module, sizes, reads, (inputs, known), self.loss)
                for name, gradients in found.items():
                    total[name] += gradients.double().square().sum(0).cpu()
        costs = channel_costs(graph_module, groups, self.cost)
        return {n: (t / _above_zero(n, costs)).numpy() for n, t in total.items()}


def channel_costs(graph_module: fx.GraphModule, groups: Groups, cost: Cost) -> Mapping[str, float]:
    """Group → what one channel takes."""
    if cost == "memory":
        return memory_per_channel(graph_module, groups)
    if cost == "flops":
        return macs_per_channel(graph_module, groups)
    if cost == "none":
        return {group.name: 1.0 for group in groups.groups}
    assert not isinstance(cost, str)
    return cost


def _above_zero(name: str, costs: Mapping[str, float]) -> float:
    cost = costs.get(name, 0.0)
    if not cost > 0:
        raise InputError(f"channel group '{name}' has no cost above 0 to divide its score by")
    return cost


def _build(given: Given) -> GroupFisher:
    cost: Cost = "none" if given.by_cost and given.every is None else "memory"
    if given.per is not None:
        cost = "none" if given.per == "budget" else given.per
    return GroupFisher(given.batches, cost=cost, every=given.every)


GROUP_FISHER = CriterionSpec(
    *("group-fisher", GroupFisher, _build, "labels"),
    normalise="none",
    scheduled=True,
    divides=True,
)
