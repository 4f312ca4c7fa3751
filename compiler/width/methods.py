"""The criteria that can be asked for by name.

A new criterion is one module of `passes/criteria` and one line of `CRITERIA`; one from outside of
shrinkc is handed in as an object.
"""

from __future__ import annotations

from dataclasses import replace

from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.errors import InputError
from shrinkc.passes.criteria.base import Criterion
from shrinkc.passes.criteria.cap import CAP
from shrinkc.passes.criteria.channel_pruning import HE
from shrinkc.passes.criteria.dropnet import DROPNET
from shrinkc.passes.criteria.group_fisher import GROUP_FISHER
from shrinkc.passes.criteria.hrank import HRANK
from shrinkc.passes.criteria.magnitude import EQUAL, L1, L2, RANDOM
from shrinkc.passes.criteria.spec import CriterionSpec, Given
from shrinkc.passes.criteria.trained.group_sl import GROUP_SL
from shrinkc.passes.criteria.trained.mseb import MSEB_SPEC
from shrinkc.passes.criteria.trained.slimming import SLIMMING
from shrinkc.passes.criteria.trained.ssl import STRUCTURED_SPARSITY

CRITERIA: tuple[CriterionSpec, ...] = (
    L1,
    L2,
    RANDOM,
    EQUAL,
    SLIMMING,
    STRUCTURED_SPARSITY,
    GROUP_SL,
    HRANK,
    DROPNET,
    GROUP_FISHER,
    CAP,
    HE,
    MSEB_SPEC,
)
NAMES = tuple(spec.name for spec in CRITERIA)


def spec_of(criterion: str | CriterionSpec | Criterion) -> CriterionSpec:
    """What is known of a criterion: of a name, of an object of one of shrinkc's classes or of any
    other that scores channels. Raises InputError, which lists the names.

    Of another object nothing is known but its scores: they compare by share, nothing is trained
    before. A `CriterionSpec` of one's own says more.
    """
    if isinstance(criterion, CriterionSpec):
        return criterion
    if isinstance(criterion, str):
        for spec in CRITERIA:
            if spec.name == criterion:
                return spec
    elif _scores_channels(criterion):
        kind: type = type(criterion)

        def itself(_: Given) -> Criterion:
            return criterion

        like = next((spec for spec in CRITERIA if spec.criterion is kind), None)
        spec = like or CriterionSpec(criterion.name, kind, itself)
        return replace(spec, name=criterion.name, build=itself)
    raise InputError(
        f"`criterion` {criterion}: give one of {', '.join(NAMES)}, or an object with a "
        "name that scores channels"
    )


def readers_of(option: str) -> str:
    """The criteria that read an option, in words."""
    return f"`criterion` {', '.join(spec.name for spec in CRITERIA if option in spec.reads)}"


def _scores_channels(criterion: object) -> bool:
    has = callable(getattr(criterion, "scores", None)) and not isinstance(criterion, type)
    return has and isinstance(getattr(criterion, "name", None), str)


def chosen_by_cost(options: Allocation, goal: Goal | None) -> bool:
    """Whether widths are chosen by importance against cost."""
    counts = goal is not None and goal.unit == "channels"
    return options.kind == "knapsack" or (options.kind is None and not counts)


def cumulative() -> str:
    """The criteria whose scores are all that is lost so far, in words."""
    names = (spec.name for spec in CRITERIA if spec.normalise == "cumulative")
    return f"scores that add up already, such as those of `criterion` {', '.join(names)}"


def as_published(options: Allocation, spec: CriterionSpec) -> Allocation:
    """With the criterion's own way of comparing groups and of spreading a budget, unless another
    was asked for."""
    measured = options.normalise == "measured"
    kind = options.kind or (None if measured else spec.allocation)
    return replace(options, kind=kind, normalise=options.normalise or spec.normalise)
