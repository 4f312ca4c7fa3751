"""Groups and spans together: never worse than spans alone, exact prices, no budget missed that
slicing can meet."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from math import inf

import pytest
import torch
from by_macs import ByMacs
from small_networks import Classifier, InvertedResidual, conv
from torch import fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.budget import predicted_ms, price_of
from shrinkc.compiler.depth.choice_sets import Plans, outline
from shrinkc.compiler.depth.choices import KINDS, Choice, choices
from shrinkc.compiler.pipeline.deployed import deployed
from shrinkc.compiler.plan import slicings as slicings_module
from shrinkc.compiler.plan.group_choices import GroupChoice, group_choices, sliced
from shrinkc.compiler.plan.slicings import Slicing, Slicings
from shrinkc.compiler.recover.divergence import Damage
from shrinkc.passes.analysis.linear.spans import NoSpan, find_spans

TABLE = ByMacs()
LEFT: dict[frozenset[str], fx.GraphModule] = {}  # by what is sliced off


@pytest.fixture(autouse=True)
def _shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has the same network, and damages of its own: whatever is sliced off, the network
    that is left and its choices are worked out once."""
    monkeypatch.setattr(slicings_module, "sliced", _sliced)
    monkeypatch.setattr(slicings_module, "find_spans", lambda graph: graph)
    monkeypatch.setattr(slicings_module, "choices", lambda graph, *_: _choices(graph))


def _sliced(graph: fx.GraphModule, chosen: Sequence[GroupChoice]) -> fx.GraphModule:
    assert graph is network()
    key = frozenset(choice.label for choice in chosen)
    if key not in LEFT:
        LEFT[key] = sliced(graph, chosen)
    return LEFT[key]


@cache
def _choices(graph: fx.GraphModule) -> tuple[list[Choice], list[NoSpan]]:
    return choices(find_spans(graph), price_of(TABLE, "fp32"), KINDS)


@cache
def network() -> fx.GraphModule:
    torch.manual_seed(0)
    model = Classifier(
        *(conv(3, 8, 3, 2), nn.ReLU6(), InvertedResidual(8, 8), InvertedResidual(8, 8)),
        *(InvertedResidual(8, 12), InvertedResidual(12, 12)),
        channels=12,
    )
    return deployed(capture(model.eval(), (torch.randn(1, 3, 20, 20),)))


def slicings(slices: float, spans: float, seed: int = 0) -> Slicings:
    """Damages by chance: about so much for every millisecond that is saved."""
    graph = network()
    found, _ = _choices(graph)
    hidden = {c.span.hidden.producer for c in found if c.channels and c.span.hidden}
    groups = group_choices(graph, TABLE, "fp32", hidden)
    generator = torch.Generator().manual_seed(seed)

    def damage(each: float, saving_ms: float) -> Damage:
        factor = 0.5 + float(torch.rand(1, generator=generator))
        return Damage(each * factor * saving_ms, 1.0, 0.0)

    damages = {c.label: damage(slices, c.saving_ms) for c in groups}
    damages |= {c.label: damage(spans, c.saving_ms) for c in found}
    whole = Plans(graph, TABLE, "fp32", found, [damages[c.label] for c in found])
    return Slicings(whole, groups, damages, KINDS)


def milliseconds(slicing: Slicing, budget_ms: float) -> float:
    plans = slicing.plans
    shape = outline(plans.graph, [plans.found[i] for i in plans.within(budget_ms)])
    return predicted_ms(shape, TABLE, "fp32")


def exhaustively(every: Slicings, budget_ms: float) -> float:
    groups = dict.fromkeys(choice.group.name for choice in every.slices)
    of_each = [[None, *(c for c in every.slices if c.group.name == name)] for name in groups]
    taken = (tuple(c for c in some if c is not None) for some in itertools.product(*of_each))
    return min(every.of(slices).total(budget_ms) for slices in taken)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("slices", "spans"), [(1.0, 1.0), (0.2, 1.0), (5.0, 1.0)])
def test_within_the_budget_and_near_the_best_of_all_bases(
    slices: float, spans: float, seed: int
) -> None:
    every = slicings(slices, spans, seed)
    for share in (0.9, 0.6):
        budget = share * every.whole.before_ms
        damage, slicing = every.best(budget)
        assert damage <= every.of(()).total(budget)
        assert damage == slicing.total(budget) < inf
        assert milliseconds(slicing, budget) <= budget
        assert damage <= 1.1 * exhaustively(every, budget)


def test_slices_that_cost_nothing_are_taken_and_dear_ones_are_not() -> None:
    free = slicings(0.0, 1.0)
    budget = 0.8 * free.whole.before_ms
    damage, slicing = free.best(budget)
    assert damage < free.of(()).total(budget)
    assert slicing.slices
    dear = slicings(1e6, 1.0)
    assert dear.best(budget)[1].slices == ()


def test_what_spans_alone_cannot_reach_is_reached_with_groups() -> None:
    every = slicings(1.0, 1.0)
    whole = every.of(())
    budget = (every.fastest_ms(1) + 2 * whole.fastest_ms(1)) / 3
    assert every.fastest_ms(1) < budget < whole.fastest_ms(1)
    assert whole.total(budget) == inf
    damage, slicing = every.best(budget)
    assert damage < inf
    assert milliseconds(slicing, budget) <= budget
    assert every.best(0.5 * every.fastest_ms(1))[0] == inf


def test_what_cannot_come_below_a_limit_is_not_looked_for() -> None:
    every = slicings(0.5, 1.0)
    budget = 0.7 * every.whole.before_ms
    damage, slicing = every.best(budget)
    assert slicing.slices
    other = slicings(0.5, 1.0)
    assert other.best(budget, 0.1 * damage)[1].slices == ()
    assert len(other._made) == 1


def test_a_base_prices_its_spans_as_they_are_in_it() -> None:
    every = slicings(1.0, 1.0)
    last = every.slices[-1]
    slicing = every.of([last])
    assert slicing is every.of([last])
    graph = sliced(every.whole.graph, [last])
    assert slicing.plans.before_ms == pytest.approx(predicted_ms(graph, TABLE, "fp32"))
    index = next(i for i, c in enumerate(slicing.plans.found) if c.kind == "drop")
    choice = slicing.plans.found[index]
    less = predicted_ms(outline(slicing.plans.graph, [choice]), TABLE, "fp32")
    assert slicing.plans.before_ms - less == pytest.approx(choice.saving_ms)


def test_layers_in_fp32_are_priced_anew() -> None:
    every = slicings(1.0, 1.0)
    every.of(())
    other = every.with_fp32(["x"])
    assert other.of(()).plans.keep_fp32 == ["x"]
    assert not every.of(()).plans.keep_fp32
