"""Widths within a budget: against all combinations, on random problems and on real prices."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest
from channel_networks import NETWORKS, graph_of
from prune_doubles import Steps
from torch import fx

from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.cost.goal import Unit
from shrinkc.compiler.support.choices import Allocated
from shrinkc.compiler.width.allocation import (
    Allocation,
    Space,
    UnreachableError,
    allocate,
    per_group,
    space_of,
)
from shrinkc.compiler.width.knapsack import Choices, Problem, cheapest, solve
from shrinkc.compiler.width.price import Layers, Price, Term, layers_of
from shrinkc.compiler.width.skeleton import Skeleton
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Groups, channel_groups
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import Normalise, Scores, most_important, widths
from shrinkc.passes.criteria.magnitude import FilterNorm, RandomScores
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm

# --- random problems -----------------------------------------------------------------------------


def random_problem(seed: int) -> Problem:
    """Three or four groups in a chain with shortcuts; latency in steps of a random tile, so that
    some widths are slower than larger ones."""
    r = random.Random(seed)
    names = [f"g{i}" for i in range(r.randint(3, 4))]
    sizes = {name: r.choice((8, 12, 16, 24)) for name in names}
    choices: dict[str, Choices] = {}
    for name, size in sizes.items():
        count = r.randint(3, 5)
        found = tuple(sorted({*r.sample(range(1, size), count - 1), size}))
        scores = sorted(r.random() for _ in range(size))
        loss = [math.fsum(scores[: size - w]) for w in found]
        choices[name] = Choices(found, np.array(loss))
    terms: list[Term] = []
    for a, b in itertools.pairwise(names):
        terms.append(random_term(r, a, b, sizes))
    terms += [random_term(r, *r.sample(names, 2), sizes) for _ in range(2)]
    return Problem(choices, Price(sizes, tuple(terms), r.random()))


def random_term(r: random.Random, a: str, b: str, sizes: Mapping[str, int]) -> Term:
    tile, work, moved, penalty = r.choice((1, 4, 8)), r.random(), r.random(), r.choice((0, 3))

    def cost(numbers: tuple[int, ...]) -> float:
        inputs, outputs = numbers
        padded = math.ceil(outputs / tile) * tile
        cliff = penalty if outputs % tile else 0
        return work * inputs * padded / 10 + moved * (inputs + outputs) + cliff

    return Term((sizes[a], sizes[b]), {a: (1.0, 0.0), b: (0.0, 1.0)}, cost)


def all_widths(problem: Problem) -> list[dict[str, int]]:
    names = list(problem.choices)
    combinations = itertools.product(*(problem.choices[n].widths for n in names))
    return [dict(zip(names, c, strict=True)) for c in combinations]


def slower_than_larger(problem: Problem, chosen: Mapping[str, int]) -> list[str]:
    return [
        name
        for name, c in problem.choices.items()
        if any(
            change < 0
            for change in problem.price.changes(
                chosen, name, [w for w in c.widths if w > chosen[name]]
            )
        )
    ]


def test_random_problems_against_all_combinations() -> None:
    """200 problems: never above the budget, never a cliff, nearly always the best there is."""
    worst, best_found, solved = 0.0, 0, 0
    for seed in range(200):
        problem = random_problem(seed)
        priced = [(problem.price.total(w), problem.loss(w)) for w in all_widths(problem)]
        whole = problem.price.total(problem.whole())
        least = min(cost for cost, _ in priced)
        budget = random.Random(seed).uniform(least, whole)
        chosen = solve(problem, budget)
        if chosen is None:  # the cheapest is found one group at a time
            assert problem.price.total(cheapest(problem)) > budget >= least
            continue
        solved += 1
        assert problem.price.total(chosen) <= budget
        assert not slower_than_larger(problem, chosen)
        loss, best = problem.loss(chosen), min(x for cost, x in priced if cost <= budget)
        gap = (loss - best) / max(problem.loss(cheapest(problem)), 1e-9)
        worst, best_found = max(worst, gap), best_found + (gap < 1e-9)
    assert solved >= 198
    assert best_found >= 0.9 * solved
    assert worst < 0.08


def power(factor: float, numbers: tuple[int, ...]) -> float:
    return factor * numbers[0] ** 1.5


def test_separable_costs_are_solved_exactly() -> None:
    """Without neighbours the dynamic program alone is exact, up to its rounding."""
    for seed in range(30):
        r = random.Random(seed)
        problem = random_problem(seed)
        terms = tuple(
            Term((size,), {name: (1.0,)}, partial(power, r.random()))
            for name, size in problem.price.sizes.items()
        )
        problem = Problem(problem.choices, Price(problem.price.sizes, terms))
        priced = [(problem.price.total(w), problem.loss(w)) for w in all_widths(problem)]
        budget = r.uniform(*(f(c for c, _ in priced) for f in (min, max)))
        chosen = solve(problem, budget)
        assert chosen is not None
        best = min(x for cost, x in priced if cost <= budget)
        assert problem.loss(chosen) == pytest.approx(best)


def test_the_order_of_groups_does_not_matter() -> None:
    for seed in range(20):
        problem = random_problem(seed)
        names = list(problem.choices)
        random.Random(seed).shuffle(names)
        price = problem.price
        shuffled = Problem(
            {n: problem.choices[n] for n in names},
            Price({n: price.sizes[n] for n in names}, price.terms[::-1], price.constant),
        )
        low, high = price.total(cheapest(problem)), price.total(problem.whole())
        budget = (low + high) / 2
        a, b = solve(problem, budget), solve(shuffled, budget)
        assert a is not None
        assert b is not None
        assert problem.loss(a) == pytest.approx(problem.loss(b))


# --- prices of real networks ---------------------------------------------------------------------


def looked_at(name: str) -> tuple[fx.GraphModule, Groups, Layers, Skeleton]:
    graph = graph_of(name)
    groups = channel_groups(graph)
    skeleton = Skeleton(FoldBatchNorm()(graph).graph_module, groups)
    narrow = {g.name: widths(g)[0] for g in groups.groups if len(widths(g)) > 1}
    return graph, groups, layers_of(skeleton, groups, narrow), skeleton


@pytest.mark.parametrize("name", NETWORKS)
def test_the_price_is_that_of_the_sliced_network(name: str) -> None:
    graph, groups, layers, skeleton = looked_at(name)
    table = Steps()
    price = layers.price("ms", table, "fp32")
    whole = predicted_ms(FoldBatchNorm()(graph).graph_module.float(), table, "fp32")
    assert price.total({}) == pytest.approx(whole)
    generator = np.random.default_rng(0)
    for _ in range(3):
        chosen = {n: int(generator.choice(widths(groups[n]))) for n in layers.sizes}
        keep = {
            n: most_important(groups[n], np.zeros(groups[n].size), w) for n, w in chosen.items()
        }
        sliced = SliceChannels(Selection(keep))(graph).graph_module
        deployed = FoldBatchNorm()(sliced).graph_module.float()
        want = predicted_ms(deployed, table, "fp32")
        shapes = {n: tuple(p.shape) for n, p in deployed.named_parameters()}
        facts = skeleton.facts(chosen)
        assert facts.parameters == shapes
        assert sum(table.estimate(key).ms for _, key in facts.operators) == pytest.approx(want)
        assert price.total(chosen) == pytest.approx(want)
        parameters = layers.price("params", table, "fp32")
        assert parameters.total(chosen) == sum(p.numel() for p in deployed.parameters())


def a_space(name: str, scores: Scores | None = None, **options: int) -> tuple[Space, Layers]:
    graph, groups, layers, _ = looked_at(name)
    scores = scores or FilterNorm().scores(graph, groups)
    settings = Allocation(floor=0, candidates=options.pop("candidates", 16))
    return space_of(groups, scores, settings, options.get("multiple", 1)), layers


@pytest.mark.parametrize("kind", ["knapsack", "global", "uniform"])
@pytest.mark.parametrize("unit", ["ms", "macs", "params", "channels"])
def test_every_allocation_meets_every_budget(kind: Allocated, unit: Unit) -> None:
    space, layers = a_space("pyramid")
    price = layers.price(unit, Steps(), "fp32")
    problem = space.problem(price)
    chosen: list[float] = []
    for share in (0.9, 0.75, 0.6):
        found = allocate(space, price, share * price.total({}), kind)
        assert price.total(found) <= share * price.total({})
        assert not slower_than_larger(problem, found)
        chosen.append(problem.loss(found))
    assert chosen == sorted(chosen)


def test_the_knapsack_loses_least() -> None:
    for name in ("residual", "concat", "squeeze_excite", "grouped"):
        space, layers = a_space(name)
        price = layers.price("ms", Steps(), "fp32")
        budget = 0.75 * price.total({})
        problem = space.problem(price)
        losses = [
            problem.loss(allocate(space, price, budget, kind))
            for kind in ("knapsack", "global", "uniform")
        ]
        assert losses[0] <= min(losses) + 1e-9


def test_permuting_channels_permutes_the_selection() -> None:
    graph, groups, _, _ = looked_at("grouped")
    scores = RandomScores(3).scores(graph, groups)
    moved: dict[str, np.ndarray] = {}
    orders: dict[str, np.ndarray] = {}
    generator = np.random.default_rng(0)
    for group in groups.groups:
        order = np.arange(group.size)
        for cell in range(int(group.cells.max()) + 1):  # within cells: they are not alike
            members = np.flatnonzero(group.cells == cell)
            order[members] = generator.permutation(members)
        orders[group.name], moved[group.name] = order, scores[group.name][order]
    selections: list[Selection] = []
    for some in (scores, moved):
        space, layers = a_space("grouped", some)
        price = layers.price("ms", Steps(), "fp32")
        widths_ = allocate(space, price, 0.7 * price.total({}), "knapsack")
        selections.append(space.selection(widths_))
    assert selections[0].keep.keys() == selections[1].keep.keys() != set()
    for name, mask in selections[0].keep.items():
        assert np.array_equal(mask[orders[name]], selections[1].keep[name])


def test_candidates_are_few_multiples_and_include_both_ends() -> None:
    _, groups, _, _ = looked_at("group_shuffle")
    scores = {g.name: np.ones(g.size) for g in groups.groups}
    space = space_of(groups, scores, Allocation(floor=0.25, candidates=3), 2)
    for name, found in space.candidates.items():
        allowed = [w for w in widths(groups[name], 2) if w >= 0.25 * groups[name].size]
        assert len(found) == min(3, len(allowed))
        assert (found[0], found[-1]) == (allowed[0], groups[name].size)


@pytest.mark.parametrize("normalise", ["share", "mean", "sum"])
def test_normalised_scores_do_not_depend_on_scale(normalise: Normalise) -> None:
    graph, groups, layers, _ = looked_at("residual")
    scores = RandomScores(1).scores(graph, groups)
    scaled = {name: s * 10.0**i for i, (name, s) in enumerate(scores.items())}
    price = layers.price("macs", Steps(), "fp32")
    found = [
        allocate(
            space_of(groups, s, Allocation(normalise=normalise), 1),
            *(price, 0.6 * price.total({}), "knapsack"),
        )
        for s in (scores, scaled)
    ]
    assert found[0] == found[1]


def test_losses_by_hand() -> None:
    """Of one group of 6 that two layers read, half of its channels gone."""
    _, groups, layers, _ = looked_at("broadcast")
    group = groups.groups[0]
    readers = len({value.node for value in group.read})
    assert readers > 1
    scores = {g.name: np.arange(1.0, g.size + 1) for g in groups.groups}
    lost = {"none": 6.0, "mean": 6 / 3.5, "sum": 6 / 21, "share": -readers * math.log(15 / 21)}
    lost["cumulative"] = 3.0
    for normalise, want in lost.items():
        settings = Allocation(normalise=normalise, floor=0)  # pyright: ignore
        problem = space_of(groups, scores, settings, 1).problem(
            layers.price("channels", Steps(), "fp32")
        )
        choices = problem.choices[group.name]
        assert choices.loss[choices.widths.index(group.size // 2)] == pytest.approx(want)


def test_large_networks_take_seconds() -> None:
    """50 groups in blocks of 10 that read each other, as in a DenseNet."""
    r = random.Random(0)
    names = [f"g{i:03}" for i in range(50)]
    sizes = dict.fromkeys(names, 512)
    terms = [random_term(r, a, b, sizes) for a, b in itertools.pairwise(names)]
    for start in range(0, 50, 10):
        block = names[start : start + 10]
        for i in range(2, 10, 2):
            slopes = dict.fromkeys(block[:i], (1.0, 0.0)) | {block[i]: (0.0, 1.0)}
            terms.append(Term((i * 512, 512), slopes, lambda n: n[0] * n[1] / 1e3 + n[1]))
    candidates = tuple(range(32, 513, 32))
    choices: dict[str, Choices] = {}
    for name in names:
        scores = np.cumsum(np.sort(np.random.default_rng(len(choices)).random(512)))
        choices[name] = Choices(candidates, np.array([[0.0, *scores][512 - w] for w in candidates]))
    problem = Problem(choices, Price(sizes, tuple(terms)))
    started = time.process_time()
    budget = 0.6 * problem.price.total({})
    chosen = solve(problem, budget)
    assert chosen is not None
    assert 0.999 * budget < problem.price.total(chosen) <= budget
    assert time.process_time() - started < 10


# --- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["knapsack", "global", "uniform"])
def test_a_budget_out_of_reach_names_the_closest(kind: Allocated) -> None:
    space, layers = a_space("residual")
    price = layers.price("ms", Steps(), "fp32")
    with pytest.raises(UnreachableError) as error:
        allocate(space, price, 1e-9, kind)
    assert error.value.closest == pytest.approx(price.total(cheapest(space.problem(price))))


def test_groups_that_cannot_become_narrower_say_why() -> None:
    graph, groups, _, _ = looked_at("residual")
    scores = FilterNorm().scores(graph, groups)
    space = space_of(groups, scores, Allocation(), 4)
    assert {s.node for s in space.skipped} | set(space.candidates) == set(scores)
    with pytest.raises(InputError, match="none of its smaller widths is a multiple of 64"):
        space_of(groups, scores, Allocation(), 64)
    silent = dict(list(scores.items())[1:])
    unscored = space_of(groups, silent, Allocation(), 1).skipped
    assert "says nothing" in unscored[0].reason
    broken = {name: np.full(s.shape, np.nan) for name, s in scores.items()}
    with pytest.raises(InputError, match="no numbers"):
        space_of(groups, broken, Allocation(), 1)


def test_multiples_are_halved_while_every_group_is_too_narrow() -> None:
    _, groups, _, _ = looked_at("residual")
    widest = max(group.size for group in groups.groups)
    assert Allocation().multiple_of(groups, 2) == 2
    assert Allocation().multiple_of(groups, 4 * widest) == widest // 2
    assert Allocation(multiple=512).multiple_of(groups, 8) == 512
    assert Allocation(floor=0.99).multiple_of(groups, 8) == 1


def test_a_share_for_each_group() -> None:
    _, groups, _, _ = looked_at("residual")
    first = groups.groups[0].name
    assert per_group(groups, {first: 0.5}, 1)[0] == {first: groups[first].size // 2}
    found, skipped = per_group(groups, {first: 0.99}, 8)
    assert found == {first: groups[first].size}
    assert "rounds to all" in skipped[0].reason
    for ratio, message in ((0.0, "would vanish"), (1.0, "stay whole")):
        with pytest.raises(InputError, match=message):
            per_group(groups, {first: ratio}, 1)
    with pytest.raises(InputError, match="no channel group of that name"):
        per_group(groups, {"nothing": 0.5}, 1)


@pytest.mark.parametrize("wrong", [{"multiple": 0}, {"floor": 1.0}, {"candidates": 1}])
def test_options_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Allocation(**wrong)  # pyright: ignore
