"""A budget that some set of a method's options meets is never refused, and a set that is taken
meets it: against all sets, for every method, on tables of random prices."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache

import pytest
import torch
from depth_cases import CLASSES, ByWork, images
from small_networks import InvertedResidual, conv
from torch import fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.budget import predicted_ms, price_of
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.depth import surgery, trained
from shrinkc.compiler.depth.choice_sets import Plans
from shrinkc.compiler.depth.closed_form import candidates
from shrinkc.compiler.depth.masks.gates import Search
from shrinkc.compiler.depth.options import DepthOption
from shrinkc.compiler.depth.select import Option, select
from shrinkc.compiler.depth.sets.fitting import compatible_sets, fitting
from shrinkc.compiler.depth.surgery import DepthPlan, prepare, union
from shrinkc.compiler.depth.trained import TRAINED_METHODS, Trained, TrainedMethod, shrink_trained
from shrinkc.compiler.depth.trials import Tried
from shrinkc.compiler.pipeline.deployed import merged_shape, network
from shrinkc.compiler.recover.divergence import Damage
from shrinkc.compiler.recover.recipe import Recipe
from shrinkc.errors import InputError, UnreachableGoalError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.table import OpEstimate

SEEDS = range(6)  # for each method; what does not add up has 200 of its own
SIZE = 8


class Random(ByWork):
    """Every operator costs half to twice of what it does by work."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def estimate(self, key: OpKey) -> OpEstimate:
        factor = 2 ** random.Random(f"{self.seed} {key}").uniform(-1, 1)
        return OpEstimate(factor * super().estimate(key).ms, "made up", False)


@cache
def subject(count: int) -> fx.GraphModule:
    """Of so many blocks."""
    torch.manual_seed(0)
    blocks = [InvertedResidual(4, 4, expansion=3) for _ in range(count)]
    model = nn.Sequential(
        *(conv(3, 4, 3, 2), nn.ReLU6(), *blocks, conv(4, 6, 1), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES)),
    )
    return capture(model.eval(), (torch.randn(1, 3, SIZE, SIZE),))


@cache
def shape_of(plan: DepthPlan, count: int) -> fx.GraphModule:
    """Of the network with a plan carried out; the same for every table."""
    return surgery.finished_shape(prepare(network(subject(count)).graph, plan, nn.ReLU6()))


@cache
def plan_ms(plan: DepthPlan, count: int, seed: int) -> float:
    table = Random(seed)
    shape = merged_shape(shape_of(plan, count), price_of(table, "fp32"))
    return predicted_ms(shape, table, "fp32")


class PlannedError(Exception):
    """Ends a method once it has chosen."""


def blocks_of(method: TrainedMethod) -> int:
    """Few enough that all sets of its options can be tried."""
    return 2 if method.moves else 1


def chosen_by(
    method: TrainedMethod, seed: int, goal: Goal, patch: pytest.MonkeyPatch
) -> tuple[DepthPlan, list[DepthOption]]:
    """The plan, and all options that there were. Nothing is trained: damages are random."""
    rng, options = random.Random(seed), list[DepthOption]()
    plans: list[DepthPlan] = []

    def reached(_net: object, found: Sequence[DepthOption], *_: object) -> object:
        options.extend(found)
        return Tried(1.0, 0.9), [Tried(1 + rng.random(), rng.random()) for _ in found]

    def learned(_net: object, space: Search, *_: object) -> list[float]:
        options.extend(space.options)
        return [rng.random() for _ in space.units]

    def cost(_: object, plan: DepthPlan) -> float:
        return plan_ms(plan, blocks_of(method), seed)

    def prepared(_: object, plan: DepthPlan, *_rest: object) -> None:
        plans.append(plan)
        raise PlannedError

    patch.setattr(trained, "tried", reached)
    patch.setattr(trained, "learn", learned)
    patch.setattr(trained, "learn_alphas", learned)
    patch.setattr(trained._Run, "cost_ms", cost)  # pyright: ignore[reportPrivateUsage]
    patch.setattr(trained, "prepare", prepared)
    given = subject(blocks_of(method)), images(), Random(seed), "fp32", method, goal
    with suppress(PlannedError):
        shrink_trained(*given, options=Trained(Recipe(steps=1)))
    return plans[0], options


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", TRAINED_METHODS, ids=lambda method: method.name)
def test_trained_methods(method: TrainedMethod, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    count = blocks_of(method)
    before = predicted_ms(network(subject(count)).folded, Random(seed))
    with monkeypatch.context() as patch:
        try:
            _, options = chosen_by(method, seed, Goal.budget_ms(0.999 * before), patch)
        except InputError:
            return  # nothing saves time on this table
    sets = compatible_sets([option.priced(0.0) for option in options])
    costs = [plan_ms(union(options[i].plan for i in one), count, seed) for one in sets]
    for budget in budgets(costs, seed):
        if budget >= before:
            continue
        with monkeypatch.context() as patch:
            plan, _ = chosen_by(method, seed, Goal.budget_ms(budget), patch)
        assert plan_ms(plan, count, seed) <= budget
    with monkeypatch.context() as patch, pytest.raises(UnreachableGoalError):
        chosen_by(method, seed, Goal.budget_ms(0.999 * min(costs)), patch)


def budgets(costs: Sequence[float], seed: int) -> list[float]:
    """The least that can be reached, and one that a few sets reach."""
    ordered = sorted(costs)
    return [ordered[0] * (1 + 1e-9), ordered[random.Random(seed).randrange(len(ordered))]]


@pytest.mark.parametrize("seed", SEEDS)
def test_closed_form(seed: int) -> None:
    table, rng = Random(seed), random.Random(seed)
    graph = network(subject(2)).folded
    try:
        found, _ = candidates(graph, table, "fp32")
    except InputError:
        return
    few = rng.sample(found, min(len(found), 7))
    plans = Plans(graph, table, "fp32", few).judged([Damage(rng.random(), 1.0, 0.0) for _ in few])
    costs = [
        plans._costing(plans.predicted)(chosen)  # pyright: ignore[reportPrivateUsage]
        for chosen in compatible_sets(plans.options)
    ]
    for budget in budgets(costs, seed):
        chosen = plans.within(budget, thorough=True)
        assert plans._costing(plans.predicted)(chosen) <= budget  # pyright: ignore
    with pytest.raises(UnreachableGoalError):
        plans.within(0.999 * min(costs), thorough=True)


@pytest.mark.parametrize("seed", range(200))
def test_savings_that_do_not_add_up(seed: int) -> None:
    """Pairs of options save more or less together than alone: the sums mislead."""
    rng = random.Random(seed)
    options = [
        Option(first, first + rng.randint(0, 2), rng.uniform(0.01, 0.2), rng.random())
        for first in (rng.randint(0, 8) for _ in range(rng.randint(1, 7)))
    ]
    pairs = {(i, j): rng.uniform(-0.15, 0.15) for i in range(7) for j in range(i)}

    def cost(chosen: Sequence[int]) -> float:
        alone = math.fsum(options[i].saving for i in chosen)
        return 2 - alone - math.fsum(pairs[i, j] for i in chosen for j in chosen if j < i)

    every = {tuple(chosen): cost(chosen) for chosen in compatible_sets(options)}
    for budget in budgets(list(every.values()), seed):
        given = cost, 2 - budget, budget, 20
        chosen, _ = fitting(options, lambda ms: select(options, ms), *given)
        assert cost(chosen) <= budget
    low = 0.999 * min(every.values())
    with pytest.raises(UnreachableGoalError, match="cannot be reached"):
        fitting(options, lambda ms: select(options, ms), cost, 2 - low, low, 20)


def test_many_options_are_reached_by_steps() -> None:
    """More sets than are tried: 20 disjoint options, of which each saves half as much beside its
    neighbour. What the sums call the best is not, and dropping some is needed."""
    options = [Option(i, i, 0.1, 1.0) for i in range(20)]

    def cost(chosen: Sequence[int]) -> float:
        together = sum(i + 1 in chosen for i in chosen)
        return 10 - 0.1 * len(chosen) + 0.3 * together

    best = 10 - 0.1 * 10
    chosen, _ = fitting(options, lambda ms: select(options, ms), cost, 0.95, best + 0.1, 20)
    assert cost(chosen) <= best + 0.1
    assert replace(options[0], damage=0.0).goes_with(options[1])
