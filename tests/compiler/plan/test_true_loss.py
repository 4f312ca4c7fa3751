"""Sets of choices judged by what they lose together: the best of few, a better one of many, each
within the budget and judged once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from by_macs import ByMacs
from hand_built import randomise
from small_networks import Classifier, InvertedResidual, conv
from torch import fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.depth.closed_form import ClosedForm
from shrinkc.compiler.depth.sets.fitting import compatible_sets
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.plan import planner as planning_module
from shrinkc.compiler.plan.comparing import true_loss
from shrinkc.compiler.plan.comparing.span_factors import SeenSet
from shrinkc.compiler.plan.comparing.true_loss import QuickFits, nearest
from shrinkc.compiler.plan.planner import Planner, Planning, prepare_planning
from shrinkc.compiler.plan.slicings import Slicing
from shrinkc.compiler.recover.distil import Tuning
from shrinkc.compiler.recover.divergence import Damage
from shrinkc.compiler.recover.rebuild_span import Rebuilding
from shrinkc.compiler.support.progress import Silent

SIZE, SETS = 20, 12


@cache
def captured() -> fx.GraphModule:
    torch.manual_seed(0)
    blocks = [InvertedResidual(8, 8, expansion=6) for _ in range(3)]
    model = Classifier(conv(3, 8, 3, 2), nn.ReLU6(), *blocks, channels=8)
    for part in model.modules():
        if not list(part.children()):
            randomise(part, torch.Generator().manual_seed(0))
    return capture(model.eval(), (torch.randn(1, 3, SIZE, SIZE),))


def planner(folder: Path | None = None) -> Planner:
    closed = ClosedForm(("narrow", "drop"), Rebuilding(steps=0), Tuning(steps=0), cache=folder)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
    images = Images(pixels, None, (0.5,), (0.25,))
    planning = Planning(("fp32",), closed, groups=False)
    return prepare_planning(captured(), images, ByMacs(), planning)


def slicing(one: Planner, choices: int | None = None) -> Slicing:
    """Without groups; of `choices` single ones, evenly spread."""
    found = one.candidates.judged["fp32"].of(())
    plans = found.plans
    some = range(len(plans.found)) if choices is None else range(0, len(plans.found), 3)
    assert plans.damages is not None
    damages = [plans.damages[i] for i in some][:choices]
    few = [plans.found[i] for i in some][:choices]
    return replace(found, plans=replace(plans, found=few, damages=damages))


def quick(one: Planner, some: Slicing) -> QuickFits:
    return QuickFits(some, one.candidates.starts["fp32"].graph_module, one.judge)


def test_of_few_sets_the_best_is_found() -> None:
    """As by brute force."""
    one = planner()
    some = slicing(one, 4)
    plans, fits = some.plans, quick(one, some)
    budget = 0.85 * plans.before_ms
    within = [s for s in compatible_sets(plans.options) if plans.cost(s) <= budget]
    assert 1 < len(within) <= SETS
    worst = max(within, key=fits.loss)
    found = nearest(fits, worst, budget, SETS, Silent())
    assert fits.loss(found) == min(map(fits.loss, within)) < fits.loss(worst)


@dataclass(eq=False)
class Planted:
    """What sets lose: by span so many times what the sums say."""

    slicing: Slicing
    times: Sequence[float]
    asked: list[Sequence[int]] = field(default_factory=list[Sequence[int]])

    def loss(self, chosen: Sequence[int]) -> float:
        self.asked.append(chosen)
        plans = self.slicing.plans
        spans = list(dict.fromkeys(choice.span for choice in plans.found))
        factors = [self.times[spans.index(plans.found[i].span)] for i in chosen]
        return sum(f * plans.options[i].damage for f, i in zip(factors, chosen, strict=True))


def misleading(one: Planner) -> tuple[Slicing, Planted]:
    """Damages of one span are three times too small, of another three times too large."""
    some = slicing(one)
    squares = [Damage(choice.saving_ms**2, 1.0, 0.0) for choice in some.plans.found]
    some = replace(some, plans=some.plans.judged(squares))
    return some, Planted(some, (3.0, 1 / 3, 1.0))


@pytest.mark.parametrize("share", [0.8, 0.7, 0.6])
def test_of_many_a_better_one_is_found_within_the_budget(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(true_loss, "ENOUGH", 0)
    some, lost = misleading(planner())
    plans = some.plans
    budget = share * plans.before_ms
    misled = plans.within(budget)
    found = nearest(lost, misled, budget, SETS, Silent())  # pyright: ignore
    asked = {frozenset(chosen) for chosen in lost.asked}
    assert len(lost.asked) == len(asked) <= 1 + len(misled) + SETS
    assert plans.cost(found) <= budget
    keeping = [chosen for chosen in asked if plans.cost(list(chosen)) <= budget]
    assert lost.loss(found) == min(map(lost.loss, map(sorted, keeping))) < 0.9 * lost.loss(misled)


def test_for_another_budget_no_choice_is_left_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen for one tells the factors of the other: the first set that they propose is
    better already, and nothing is judged that goes beyond the budget's needs."""
    monkeypatch.setattr(true_loss, "ENOUGH", 0)
    some, lost = misleading(planner())
    plans, seen = some.plans, list[SeenSet]()
    for share in (0.7, 0.6):
        lost.asked.clear()
        budget = share * plans.before_ms
        misled = plans.within(budget)
        found = nearest(lost, misled, budget, SETS, Silent(), seen)  # pyright: ignore
    first, second, *_ = lost.asked
    assert len(seen) > len(lost.asked)
    assert all(0.9 * budget < plans.cost(one) <= budget for one in lost.asked)
    assert lost.loss(found) <= lost.loss(second) < 0.9 * lost.loss(first)


def test_nothing_to_choose_is_nothing() -> None:
    one = planner()
    assert nearest(quick(one, slicing(one)), [], 1e9, SETS, Silent()) == []


def test_where_no_other_set_keeps_the_budget_the_given_one_stays() -> None:
    one = planner()
    some = slicing(one)
    chosen = some.plans.within(0.7 * some.plans.before_ms)
    assert sorted(chosen) == nearest(quick(one, some), chosen, 0.0, SETS, Silent())


def test_losses_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for another run: each is judged once."""
    one = planner(tmp_path)
    some = slicing(one)
    chosen = some.plans.within(0.7 * some.plans.before_ms)

    def found() -> list[int]:
        fits = quick(one, some)
        return nearest(fits, chosen, 0.7 * some.plans.before_ms, SETS, Silent())

    first = found()
    monkeypatch.setattr(QuickFits, "fitted", None)
    assert found() == first


def test_a_plan_takes_the_set_that_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    one = planner()
    budget = 0.7 * one.before_ms
    best = one.chosen(budget)[0]
    others = compatible_sets(best.slicing.plans.options)
    other = next(s for s in others if best.slicing.plans.cost(s) <= budget and s != best.chosen)
    monkeypatch.setattr(planning_module, "nearest", lambda *_: other)
    steps = one.within(budget).plan.steps
    assert {(s.source, s.sink) for s in steps} == {
        (c.span.source, c.span.sink) for c in (best.slicing.plans.found[i] for i in other)
    }
