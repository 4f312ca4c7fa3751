"""Layer Folding: σ_α, its gradient, the penalty, thresholds, and the method on a small network."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from depth_cases import SIZE, ByWork, captured, images
from torch import fx, nn

from shrinkc.compiler.cost.budget import predicted_ms, price_of
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.depth import trained
from shrinkc.compiler.depth.masks.annealing import Annealed, annealed, annealing
from shrinkc.compiler.depth.masks.depthshrinker import searching
from shrinkc.compiler.depth.masks.gates import Search, search_space
from shrinkc.compiler.depth.masks.layer_folding import (
    LAMBDA,
    PUBLISHED,
    THRESHOLD,
    Folding,
    foldable,
    learn_alphas,
    past_threshold,
    penalty,
    within,
)
from shrinkc.compiler.depth.methods import method_of
from shrinkc.compiler.depth.options import depth_options
from shrinkc.compiler.depth.surgery import DepthPlan, prepare
from shrinkc.compiler.depth.trained import LAYER_FOLDING, Trained, TrainedShrink, shrink_trained
from shrinkc.compiler.pipeline.deployed import Network, network
from shrinkc.compiler.recover.recipe import Recipe, trainer_for
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.train.settings.config import Moment
from shrinkc.errors import InputError, UnreachableGoalError
from shrinkc.passes.analysis.linear.spans import activations


def folding(alpha: float, activation: nn.Module | None = None) -> Folding:
    one = Folding(activation or nn.ReLU6())
    one.alpha.data.fill_(alpha)
    return one


def test_an_activation_and_its_alpha_by_hand() -> None:
    """¼·x + ¾·σ(x) of −2, 3 and 8; with the gradients 1, 1 and 3 from above, α's is that of
    x − σ(x), −2 + 0 + 3·2, and x's is ¼ + ¾·σ′(x)."""
    one, x = folding(0.25), torch.tensor([-2.0, 3, 8], requires_grad=True)
    y = one(x)
    assert y.tolist() == pytest.approx([-0.5, 3, 6.5])
    (y * torch.tensor([1.0, 1, 3])).sum().backward()
    assert one.alpha.grad is not None
    assert x.grad is not None
    assert float(one.alpha.grad) == pytest.approx(4)
    assert x.grad.tolist() == pytest.approx([0.25, 1, 0.75])


def test_the_penalty_pulls_to_1_and_not_from_0() -> None:
    """¼·(1 + 0.75 + 0 + 0.44); −2·¼·α below 1, 2·¼·α above."""
    some = [folding(alpha) for alpha in (0.0, 0.5, 1.0, 1.2)]
    loss = penalty(some)
    assert LAMBDA == 0.25
    assert float(loss.detach()) == pytest.approx(0.25 * 2.19)
    loss.backward()
    found = [one.alpha.grad for one in some]
    assert [float(g) for g in found if g is not None] == pytest.approx([0, -0.25, 0, 0.6], abs=1e-6)


def test_the_published_schedule() -> None:
    assert (PUBLISHED.epochs, PUBLISHED.search_epochs, PUBLISHED.batch) == (100, 100, 128)
    assert (PUBLISHED.learning_rate, PUBLISHED.weight_decay) == (1e-3, 0)
    assert (PUBLISHED.distillation, PUBLISHED.smoothing, THRESHOLD) == (0, 0, 0.9)


# --- which activations go ------------------------------------------------------------------------


@cache
def net() -> Network:
    return network(captured())


def space() -> Search:
    merges, _ = depth_options(net(), price_of(ByWork(), "fp32"), ("merge",))
    return search_space(net(), merges, per_activation=True)


def reached(search: Search, chosen: list[int], alphas: list[float]) -> float:
    """The smallest α that goes."""
    return min(alphas[unit] for i in chosen for unit in search.members[i])


def test_at_0_the_network_is_what_it_was_and_at_1_they_are_gone() -> None:
    search = space()
    model, found = foldable(net(), search)
    assert len(found) == len(search.units)
    x = torch.randn(2, 3, SIZE, SIZE)
    names = tuple(name for (name,) in search.units)
    gone = prepare(net().graph, DepthPlan(names), None).graph
    with torch.no_grad():
        assert torch.equal(model(x)[0], net().graph(x)[0])
        for one in found:
            one.alpha.fill_(1.0)
        assert torch.allclose(model(x)[0], gone(x)[0], atol=1e-5)


def test_a_budget_takes_the_largest_alphas_that_are_enough() -> None:
    """Against the threshold one activation higher, of which no set of options saves as much."""
    search = space()
    generator = torch.Generator().manual_seed(0)
    most = sum(option.saving_ms for option in search.options)
    for _ in range(20):
        alphas = (torch.rand(len(search.units), generator=generator) * THRESHOLD).tolist()
        asked = float(torch.rand((), generator=generator)) * 0.5 * most
        try:
            chosen = within(search, alphas, asked)
        except UnreachableGoalError:
            continue
        assert sum(search.options[i].saving_ms for i in chosen) >= asked
        least = reached(search, chosen, alphas)
        stricter = [alpha if alpha > least else -1.0 for alpha in alphas]
        assert reached(search, within(search, stricter, asked), stricter) < 0


def test_all_that_have_passed_are_alike() -> None:
    """Those that are nearest to linear go, not those of the largest α."""
    search = space()
    for target, units in enumerate(search.members):
        alphas = [0.95 if u in units else 1.5 for u in range(len(search.units))]
        chosen = within(search, alphas, search.options[target].saving_ms)
        assert {u for i in chosen for u in search.members[i]} == set(units)
    assert within(search, alphas, 0.0) == []


def test_more_than_can_be_saved_names_the_most() -> None:
    search = space()
    with pytest.raises(UnreachableGoalError, match=r"at most .* ms can be saved"):
        within(search, [0.5] * len(search.units), 1e6)


def test_without_a_goal_the_authors_threshold_says_what_goes() -> None:
    search = space()
    target = next(i for i, units in enumerate(search.members) if len(units) == 2)
    alphas = [0.95 if u in search.members[target] else 0.89 for u in range(len(search.units))]
    assert past_threshold(search, alphas) == [target]
    assert (0,) not in search.members  # the stem's saves nothing alone
    alphas = [0.95] + [0.89] * (len(alphas) - 1)
    with pytest.raises(InputError, match=r"α of 1 of \d+ activations passed 0.9 \(the largest: 0"):
        past_threshold(search, alphas)


# --- learned -------------------------------------------------------------------------------------


def test_alphas_are_learned_from_labels_and_never_negative(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Brightness is linear: the labels need no activation, and α rises once it is off 0."""
    own, search, recipe = network(captured()), space(), Recipe(batch=16, learning_rate=0.1)
    trainer = trainer_for(images(), own.graph, searching(recipe), None, "", Silent())
    before = {name: value.clone() for name, value in own.graph.state_dict().items()}
    alphas = learn_alphas(own, search, trainer, 8)
    assert len(alphas) == len(search.units)
    assert min(alphas) >= 0
    assert max(alphas) > THRESHOLD
    changed = [n for n, v in own.graph.state_dict().items() if not torch.equal(v, before[n])]
    assert changed  # the network keeps the weights that were learned with them


QUICK = Trained(Recipe(epochs=1, search_epochs=1, batch=16))


def run(goal: Goal | None, folder: Path | None = None, **changed: object) -> TrainedShrink:
    options = replace(QUICK, **changed)  # pyright: ignore[reportArgumentType]
    given = captured(), images(), ByWork(), "fp32", LAYER_FOLDING, goal
    return shrink_trained(*given, options=options, folder=folder)


def test_a_goal_is_met_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    found = run(Goal.speedup(1.3), tmp_path)
    assert found.after_ms <= found.before_ms / 1.3
    assert found.after_ms == predicted_ms(found.graph_module, ByWork(), "fp32")
    before, after = (len(activations(g)) for g in (found.original, found.graph_module))
    assert after < before
    assert list(tmp_path.glob("*/folding/last.pt"))
    again = run(Goal.speedup(1.3), tmp_path)
    x = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(again.graph_module(x)[0], found.graph_module(x)[0])
    for taken in found.taken:
        assert taken.alphas
        assert ", α " in str(taken)
    gone = set(found.plan.removed)
    told = {skip.node for skip in found.skipped if skip.reason.startswith("its α is")}
    assert told.isdisjoint(gone)
    assert told


def learned(monkeypatch: pytest.MonkeyPatch, alphas: list[float]) -> None:
    """Nothing is trained for them."""
    monkeypatch.setattr(trained, "learn_alphas", lambda *_: alphas)


def test_what_has_not_passed_goes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    search = space()
    some = [i for i, units in enumerate(search.members) if len(units) == 2][1]
    alphas = [0.7 if u in search.members[some] else 0.1 for u in range(len(search.units))]
    learned(monkeypatch, alphas)
    saving = search.options[some].saving_ms
    before = predicted_ms(net().folded, ByWork(), "fp32")
    found = run(Goal.budget_ms(before - 0.5 * saving))
    assert found.plan.removed == search.options[some].plan.removed
    assert [taken.alphas for taken in found.taken] == [(0.7, 0.7)]


def test_the_threshold_is_the_authors_without_a_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    search = space()
    some = next(i for i, units in enumerate(search.members) if len(units) == 2)
    learned(monkeypatch, [1.0 if u in search.members[some] else 0.8 for u in range(99)][:7])
    assert len(search.units) == 7
    assert run(None).plan.removed == search.options[some].plan.removed
    method_of("layer-folding").check(None, Trained())
    learned(monkeypatch, [0.8] * 7)
    with pytest.raises(InputError, match=r"α of 0 of 7 activations passed 0.9") as error:
        run(None)
    assert error.value.hint is not None
    assert "or a goal" in error.value.hint


def test_out_of_reach_is_told_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "learn_alphas", None)
    with pytest.raises(UnreachableGoalError, match=r"from .* ms the best is .* ms"):
        run(Goal.speedup(90))


def test_labels_and_activations_are_needed() -> None:
    given = ByWork(), "fp32", LAYER_FOLDING, Goal.speedup(1.2)
    with pytest.raises(InputError, match="layer-folding learns from labels"):
        shrink_trained(captured(), images(labelled=False), *given)
    linear = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1))
    graph = graph_of(nn.Sequential(*linear, nn.Flatten(), nn.Linear(4, 3)))
    with pytest.raises(InputError, match="no two layers with an activation between them"):
        shrink_trained(graph, images(), *given)


def graph_of(model: nn.Module) -> fx.GraphModule:
    from shrinkc.compiler.capture import capture

    return capture(model.eval(), (torch.randn(1, 3, SIZE, SIZE),))


# --- little by little ----------------------------------------------------------------------------


def test_what_is_annealed_starts_at_its_alpha() -> None:
    names = [name for (name,) in space().units][:2]
    prepared = prepare(net().graph, DepthPlan(tuple(names)), None).graph
    model = annealed(prepared, net().graph, names, {names[0]: 0.6})
    found = [m for m in model.modules() if isinstance(m, Annealed)]
    assert sorted(float(one.gone) for one in found) == pytest.approx([0, 0.6])
    step = annealing(1.0).after_step
    assert step is not None
    seen: list[list[float]] = []
    for number in range(4):
        step(model, Moment(number, 4, 0, 1))
        seen.append(sorted(float(one.gone) for one in found))
    want = [[0.25, 0.7], [0.5, 0.8], [0.75, 0.9], [1.0, 1.0]]
    assert seen == [pytest.approx(pair) for pair in want]


def test_the_method_anneals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    learned(monkeypatch, [0.5] * 7)
    at_once, slowly = (run(Goal.speedup(1.3), anneal=share) for share in (0.0, 0.5))
    assert at_once.plan == slowly.plan
    x = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert not torch.equal(at_once.graph_module(x)[0], slowly.graph_module(x)[0])
