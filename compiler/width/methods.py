"""The criteria that can be asked for by name: what each looks at and how its scores compare.

A new criterion is one entry of `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, fx, nn

from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.width.allocation import Allocation, Normalise
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.criteria.base import Criterion
from shrinkc.passes.criteria.cap import CaP
from shrinkc.passes.criteria.channel_pruning import ChannelPruning
from shrinkc.passes.criteria.dropnet import DropNet
from shrinkc.passes.criteria.group_fisher import GroupFisher
from shrinkc.passes.criteria.hrank import HRank
from shrinkc.passes.criteria.magnitude import EqualScores, FilterNorm, RandomScores
from shrinkc.passes.criteria.shared.data import Batch
from shrinkc.passes.criteria.slimming import NetworkSlimming, slimming_penalty
from shrinkc.passes.criteria.ssl import SSL, ssl_penalty

Needs = Literal["nothing", "images", "labels"]
Penalty = Callable[[nn.Module, object], Tensor]


@dataclass(frozen=True, eq=False)
class Given:
    """What a criterion is made of. `by_cost`: widths are chosen by what they cost, so scores need
    not be divided by it."""

    batches: Sequence[Batch]
    seed: int
    by_cost: bool


@dataclass(frozen=True)
class Method:
    """One criterion.

    needs        to score channels
    normalise    how its scores are made comparable between groups
    penalty      (network, groups, strength) → added to the loss of a training before anything goes
    compensates  what is left is fitted to what the network computed, unless asked otherwise
    """

    build: Callable[[Given], Criterion]
    needs: Needs = "nothing"
    normalise: Normalise = "share"
    penalty: Callable[[fx.GraphModule, Groups, float], Penalty] | None = None
    compensates: bool = False


def _fisher(given: Given) -> Criterion:
    return GroupFisher(given.batches, cost="none" if given.by_cost else "memory")


METHODS: dict[str, Method] = {
    "l1": Method(lambda given: FilterNorm(1)),
    "l2": Method(lambda given: FilterNorm(2)),
    "random": Method(lambda given: RandomScores(given.seed)),
    "equal": Method(lambda given: EqualScores()),
    "slimming": Method(lambda given: NetworkSlimming(), "nothing", "none", slimming_penalty),
    "ssl": Method(lambda given: SSL(), penalty=ssl_penalty),
    "hrank": Method(lambda given: HRank(given.batches), "images"),
    "dropnet": Method(lambda given: DropNet(given.batches), "images"),
    "group-fisher": Method(_fisher, "labels", "none"),
    "cap": Method(lambda given: CaP(given.batches), "images", "cumulative", compensates=True),
    "he": Method(lambda given: ChannelPruning(given.batches), "images", compensates=True),
}


def method_named(name: str) -> Method:
    """Raises InputError that lists the names."""
    if name not in METHODS:
        raise InputError(f"`criterion` {name}: give one of {', '.join(METHODS)}")
    return METHODS[name]


def chosen_by_cost(options: Allocation, goal: Goal | None) -> bool:
    """Whether widths are chosen by importance against cost."""
    counts = goal is not None and goal.unit == "channels"
    return options.kind == "knapsack" or (options.kind is None and not counts)


def comparable(options: Allocation, method: Method) -> Allocation:
    """With the method's own way of comparing groups, unless another was asked for."""
    return options if options.normalise else replace(options, normalise=method.normalise)
