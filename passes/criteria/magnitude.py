"""Norms of filters (Li et al., Pruning Filters for Efficient ConvNets, 2017), and baselines.

The importance of a filter is Σ|w| (or √Σw²) of its weights. A channel that several layers make
together has the sum of its filters' norms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup, Groups, ParameterSlice
from shrinkc.passes.criteria.base import Scores
from shrinkc.passes.criteria.spec import CriterionSpec


@dataclass(frozen=True)
class FilterNorm:
    """L1 (Li et al.) or L2 norm of the filters that make a channel, biases left out."""

    p: Literal[1, 2] = 1
    name: ClassVar[str] = "filter-norm"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        return {g.name: self._group(graph_module, g) for g in groups.groups}

    def _group(self, graph_module: fx.GraphModule, group: ChannelGroup) -> npt.NDArray[np.float64]:
        total = np.zeros(group.size)
        for part in group.slices:
            if part.role == "out" and part.parameter == "weight":
                norms = position_norms(graph_module.get_parameter(part.path), part, self.p)
                np.add.at(total, part.channels, norms[part.positions])
        return total


@dataclass(frozen=True)
class RandomScores:
    """A baseline: every channel as good as any other."""

    seed: int = 0
    name: ClassVar[str] = "random"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        generator = np.random.default_rng(self.seed)
        return {g.name: generator.random(g.size) for g in groups.groups}


@dataclass(frozen=True)
class EqualScores:
    """A baseline: the first channels stay, whatever they are."""

    name: ClassVar[str] = "equal"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        return {g.name: np.ones(g.size) for g in groups.groups}


def position_norms(tensor: Tensor, part: ParameterSlice, p: int) -> npt.NDArray[np.float64]:
    """The p-norm of what a parameter holds at every position that `part` counts, in float64."""
    power = tensor.detach().to(torch.float64).abs() ** p
    if part.groups > 1:
        power = power.reshape(part.groups, -1, *power.shape[1:]).movedim(2, 1).flatten(0, 1)
    else:
        power = power.movedim(part.dim, 0)
    return (power.flatten(1).sum(1) ** (1 / p)).numpy()


L1 = CriterionSpec("l1", FilterNorm, lambda given: FilterNorm(1))
L2 = CriterionSpec("l2", FilterNorm, lambda given: FilterNorm(2))
RANDOM = CriterionSpec("random", RandomScores, lambda given: RandomScores(given.seed), seeded=True)
EQUAL = CriterionSpec("equal", EqualScores, lambda given: EqualScores())
