"""What is known of a criterion before it is made: what it looks at, how its scores are used.

Every criterion's module ends with its own; the compiler lists them in one tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, fx, nn

from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.criteria.base import Criterion, Needs, Normalise
from shrinkc.passes.criteria.shared.data import Batch, Batches

Per = Literal["memory", "flops", "budget"]
Penalty = Callable[[nn.Module, object], Tensor]


@dataclass(frozen=True, eq=False)
class Teaching:
    """A training that a criterion can ask for.

    fit      trains a network in place, with labels
    batches  all images that it trains on, as they are judged
    """

    fit: Callable[[fx.GraphModule], object]
    batches: Batches


@dataclass(frozen=True, eq=False)
class Given:
    """What a criterion is made of.

    batches  what it looks at, with labels where it needs them
    seed     of what is random
    by_cost  widths are chosen by what they cost, so scores need not be divided by it
    every    steps of a training between two removals, where the criterion can remove during one;
             None: it is asked once a round
    per      what scores are divided by, where the criterion divides them: memory or FLOPs of a
             channel, or what it takes of the budget; None: as published
    teaching for criteria that learn their scores
    """

    batches: Sequence[Batch]
    seed: int
    by_cost: bool
    every: int | None = None
    per: Per | None = None
    teaching: Teaching | None = None


@dataclass(frozen=True, eq=False)
class CriterionSpec:
    """One criterion.

    name         to ask for it by
    criterion    its class
    build        makes one
    needs        to score channels
    normalise    how its scores are made comparable between groups
    allocation   how the budget is spread, as published; None: as the goal's unit asks for
    penalty      (network, groups, strength) → added to the loss of a training before anything goes
    depth        the same penalty on whole residual branches besides, which may then go
    strength     (network, groups) → of the penalty, as published
    decays       whether weights decay beside the penalty
    compensates  as published: what is left is fitted to what the network computed, before a
                 training too
    scheduled    whether it can remove channels during a training, one every so many steps
    divides      whether its scores are divided by what a channel takes
    seeded       whether its scores are random
    learns       its scores in a training of its own, with labels
    """

    name: str
    criterion: type
    build: Callable[[Given], Criterion]
    needs: Needs = "nothing"
    normalise: Normalise = "share"
    allocation: Literal["knapsack", "global", "uniform"] | None = None
    penalty: Callable[[fx.GraphModule, Groups, float], Penalty] | None = None
    depth: Callable[[fx.GraphModule, Groups, float], Penalty] | None = None
    strength: Callable[[fx.GraphModule, Groups], float] | None = None
    decays: bool = True
    compensates: bool = False
    scheduled: bool = False
    divides: bool = False
    seeded: bool = False
    learns: bool = False

    @property
    def reads(self) -> frozenset[str]:
        """Options that not every criterion reads."""
        read = {
            "strength": self.penalty is not None,
            "drop_below": self.depth is not None,
            "every": self.scheduled,
            "per": self.divides,
            "seed": self.seeded,
            "labels": self.needs == "labels",
        }
        return frozenset(name for name, does in read.items() if does)
