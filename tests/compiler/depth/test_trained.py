"""Depth by training: plans, options, masks, importances, and every method on a small network."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from depth_cases import SIZE, ByWork, captured, images
from pass_checks import fingerprint, random_inputs
from small_networks import CifarBasic, conv
from torch import fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.budget import predicted_ms, price_of
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.depth.closed_form import ClosedForm
from shrinkc.compiler.depth.masks.gates import Gates, gated, search_space
from shrinkc.compiler.depth.methods import DepthMethod, DepthResult, DepthTask, method_of
from shrinkc.compiler.depth.options import DepthOption, depth_options
from shrinkc.compiler.depth.sets.pricing import priced
from shrinkc.compiler.depth.surgery import DepthPlan, finish, finished_ms, prepare, union
from shrinkc.compiler.depth.trained import (
    DEPTHSHRINKER,
    LAYER_PRUNING,
    LAYERMERGE,
    TWO_STAGE_DP,
    Trained,
    TrainedMethod,
    TrainedShrink,
    expand,
    shrink_trained,
)
from shrinkc.compiler.pipeline.deployed import Network, network
from shrinkc.compiler.recover.recipe import Recipe
from shrinkc.compiler.support.progress import Silent
from shrinkc.errors import InputError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.table import OpEstimate
from shrinkc.passes.analysis.linear.spans import activations
from shrinkc.passes.ir import module_of


@pytest.fixture(scope="module")
def net() -> Network:
    return network(captured())


def all_options(net: Network) -> list[DepthOption]:
    return depth_options(net, price_of(ByWork(), "fp32"), ("merge", "identity", "drop"))[0]


def some(options: list[DepthOption], seed: int) -> list[DepthOption]:
    """Random disjoint ones."""
    chosen: list[DepthOption] = []
    for option in random.Random(seed).sample(options, len(options)):
        if all(option.first > o.last or option.last < o.first for o in chosen):
            chosen.append(option)
    return chosen[: 1 + seed % 4]


# --- plans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("seed", range(24))
def test_what_is_trained_is_what_is_merged(net: Network, seed: int, activated: bool) -> None:
    before = fingerprint(net.graph)
    plan = union(o.plan for o in some(all_options(net), seed))
    activation = nn.ReLU6() if activated else None
    prepared = prepare(net.graph.double(), plan, activation)
    merged = finish(prepared).double()
    net.graph.float()
    assert fingerprint(net.graph) == before
    (x,) = random_inputs(prepared.graph)
    with torch.no_grad():
        got, want = merged(x)[0], prepared.graph.double()(x)[0]
    assert torch.allclose(got, want, rtol=0, atol=2e-6 * float(want.abs().max()))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in merged.modules())
    left = {n.target for n in merged.graph.nodes}
    assert left.isdisjoint(plan.identity)


def test_a_plan_for_another_network_is_refused(net: Network) -> None:
    with pytest.raises(InputError, match="does not fit"):
        prepare(net.graph, DepthPlan(removed=("nothing",)), None)
    with pytest.raises(InputError, match="no span here"):
        prepare(net.graph, DepthPlan(dropped=(("a", "b"),)), None)


def test_the_price_of_options_is_close_to_the_whole_networks(net: Network) -> None:
    table = ByWork()
    whole = predicted_ms(net.folded, table, "fp32")
    for option in random.Random(0).sample(all_options(net), 12):
        saved = whole - finished_ms(prepare(net.graph, option.plan, None), table, "fp32")
        assert saved == pytest.approx(option.saving_ms, rel=0.02), option.label


def test_options_say_why_there_are_none() -> None:
    layers = (nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3))
    plain = network(capture(nn.Sequential(*layers).eval(), (torch.randn(1, 3, SIZE, SIZE),)))
    with pytest.raises(InputError, match="nothing to shrink in depth"):
        depth_options(plain, price_of(ByWork(), "fp32"), ("merge",))


class ThinPays(ByWork):
    """A table on which large kernels cost more: the identity pays where merging does not."""

    def estimate(self, key: OpKey) -> OpEstimate:
        found = super().estimate(key)
        large = max(key.kernel, default=1) > 3
        return OpEstimate(found.ms * (4 if large else 1), "made up", False)


def test_layermerge_keeps_a_convolution_in_every_span() -> None:
    """A block whose convolutions all are the identity is left out as a whole, which is another
    method; what cannot be merged is refused with the reason, and never tried."""
    block = CifarBasic(4, 4)
    model = nn.Sequential(*conv(3, 4, 3), nn.ReLU(), block, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    graph = capture(model.eval(), (torch.randn(1, 3, SIZE, SIZE),))
    basic, table = network(graph), ThinPays()
    found, _ = depth_options(basic, price_of(table, "fp32"), LAYERMERGE.moves)
    assert not any(option.plan.dropped for option in found)

    def cost_ms(plan: DepthPlan) -> float:
        return finished_ms(prepare(basic.graph, plan, nn.ReLU()), table, "fp32")

    kept, refused = priced(found, cost_ms)
    empty = [o for o in found if len(o.plan.identity) == 2 and o.span.source != "input_1"]
    assert len(empty) == 1
    gone = {option.label for option in found} - {option.label for option in kept}
    assert gone == {option.label for option in empty}
    assert all("does not fit" in r.reason for r in refused)
    for option in kept:
        assert cost_ms(DepthPlan()) - cost_ms(option.plan) == pytest.approx(option.saving_ms)


# --- masks ---------------------------------------------------------------------------------------


def test_masks_select_and_pass_gradients_straight_through(net: Network) -> None:
    space = search_space(net, all_options(net))
    assert sum(len(unit) == 2 for unit in space.units) == 3  # the activations of one block
    model, gates = gated(net, space)
    (x,) = (torch.randn(2, 3, SIZE, SIZE),)
    with torch.no_grad():
        assert torch.equal(model(x)[0], net.graph(x)[0])
    gates.open[0] = 0
    removed = prepare(net.graph, DepthPlan(removed=space.units[0]), None).graph
    with torch.no_grad():
        assert torch.allclose(model(x)[0], removed(x)[0], atol=1e-5)
    model(x)[0].sum().backward()
    grad = gates.scores.grad
    assert grad is not None
    assert bool((grad != 0).all())  # of closed ones too


def test_the_gradient_of_a_mask_is_that_of_its_block() -> None:
    gates = Gates(1)
    mask = gates.mask(0)
    (3.0 * mask + 2.0 * (1 - mask)).backward()
    assert gates.scores.grad is not None
    assert float(gates.scores.grad) == 1.0


def test_a_mask_for_each_activation(net: Network) -> None:
    options = all_options(net)
    space = search_space(net, options, per_activation=True)
    assert all(len(unit) == 1 for unit in space.units)
    assert len(space.units) > len(search_space(net, options).units)


def test_the_chosen_units_are_the_cheapest_that_save_enough(net: Network) -> None:
    """Against all sets of options."""
    merges, _ = depth_options(net, price_of(ByWork(), "fp32"), ("merge",))
    space = search_space(net, merges)
    generator = random.Random(0)
    for _ in range(20):
        scores = [generator.random() for _ in space.units]
        most = sum(o.saving_ms for o in space.options)
        asked = generator.uniform(0.1, 0.6) * most
        sets = [
            chosen
            for size in range(1, 5)
            for chosen in combinations(range(len(space.options)), size)
            if _disjoint([space.options[i] for i in chosen])
            and sum(space.options[i].saving_ms for i in chosen) >= asked
        ]
        if not sets:
            continue
        cost = min(sum(scores[u] for i in s for u in space.members[i]) for s in sets)
        found = space.within(asked, scores)
        assert sum(scores[u] for i in found for u in space.members[i]) == pytest.approx(cost)


def _disjoint(options: list[DepthOption]) -> bool:
    pairs = combinations(options, 2)
    return all(a.first > b.last or a.last < b.first for a, b in pairs)


def test_keeping_a_number_of_units_keeps_the_largest_scores(net: Network) -> None:
    space = search_space(net, all_options(net))
    scores = [float(i) for i in range(len(space.units))]
    for count in range(1, len(scores)):
        closed = space.closed(space.keeping(count, scores))
        assert set(closed).isdisjoint(range(len(scores) - count, len(scores)))


def test_a_unit_that_makes_no_option_alone_leaves_its_place_to_the_next(net: Network) -> None:
    """The stem's activation saves nothing by itself: without its neighbour it stays."""
    merges, _ = depth_options(net, price_of(ByWork(), "fp32"), ("merge",))
    space = search_space(net, merges)
    alone = {units[0] for units in space.members if len(units) == 1}
    (stem,) = set(range(len(space.units))) - alone
    scores = [1.0 + i for i in range(len(space.units))]
    scores[stem] = 0.0
    chosen = space.keeping(len(scores) - 1, scores)
    assert space.closed(chosen) == [min(alone)]


# --- methods -------------------------------------------------------------------------------------

QUICK = Trained(Recipe(epochs=1, steps=2, batch=16))


def run(
    method: TrainedMethod, goal: Goal | None, folder: Path | None, **changed: object
) -> TrainedShrink:
    options = replace(QUICK, **changed) if changed else QUICK  # pyright: ignore[reportArgumentType]
    return shrink_trained(
        *(captured(blocks=2), images(), ByWork(), "fp32", method, goal),
        options=options,
        folder=folder,
    )


@pytest.mark.parametrize("method", [DEPTHSHRINKER, TWO_STAGE_DP, LAYERMERGE, LAYER_PRUNING])
def test_every_method_meets_the_budget_and_merges(method: TrainedMethod, tmp_path: Path) -> None:
    table = ByWork()
    result = run(method, Goal.speedup(1.3), tmp_path)
    assert result.after_ms <= result.before_ms / 1.3
    assert result.after_ms == predicted_ms(result.graph_module, table, "fp32")
    assert result.taken
    before, after = (len(activations(g)) for g in (result.original, result.graph_module))
    assert after < before
    again = run(method, Goal.speedup(1.3), tmp_path)  # everything is loaded
    assert again.plan == result.plan
    (x,) = (torch.randn(2, 3, SIZE, SIZE),)
    with torch.no_grad():
        assert torch.equal(again.graph_module(x)[0], result.graph_module(x)[0])


def test_a_plan_is_corrected_by_what_is_measured() -> None:
    """A device on which every network takes a little longer than the table says."""
    table, graph = ByWork(), captured(blocks=2)
    before = predicted_ms(network(graph).folded, table, "fp32")

    def measured_ms(merged: fx.GraphModule) -> float:
        return predicted_ms(merged, table, "fp32") + 0.1 * before

    result = shrink_trained(
        *(graph, images(), table, "fp32", LAYER_PRUNING, Goal.speedup(1.2)),
        options=QUICK,
        measured_ms=measured_ms,
    )
    budget = result.before_ms / 1.2
    assert measured_ms(result.graph_module) <= budget
    by_table = run(LAYER_PRUNING, Goal.speedup(1.2), None)
    assert result.after_ms <= by_table.after_ms
    with pytest.raises(InputError, match="no plan was measured within"):
        shrink_trained(
            *(graph, images(), table, "fp32", LAYER_PRUNING, Goal.speedup(1.2)),
            options=QUICK,
            measured_ms=lambda merged: before,
        )


def test_depthshrinker_keeps_as_many_blocks_as_asked_for() -> None:
    net = network(captured(blocks=2))
    space = search_space(net, all_options(net))
    blocks = len(space.units)
    result = run(DEPTHSHRINKER, None, None, keep_blocks=blocks - 1)
    assert tuple(result.plan.removed) in space.units
    kept = run(DEPTHSHRINKER, None, None, keep_ratio=0.5).plan.removed
    assert len([u for u in space.units if not set(u) & set(kept)]) >= round(blocks / 2)


def test_importance_is_kept_when_a_run_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shrinkc.compiler.depth import trials

    asked: list[int] = []
    real = trials.finished

    def stopping(jobs: object, count: int, *args: Any, **kwargs: Any) -> Iterator[object]:
        asked.append(count)
        results = real(jobs, count, *args, **kwargs)  # pyright: ignore
        yield from islice(results, 2) if len(asked) == 1 else results
        if len(asked) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(trials, "finished", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(LAYERMERGE, Goal.speedup(1.3), tmp_path)
    (journal,) = tmp_path.glob("*.jsonl")
    assert len(journal.read_text().splitlines()) == 2
    run(LAYERMERGE, Goal.speedup(1.3), tmp_path)
    assert asked == [len(journal.read_text().splitlines()), asked[0] - 2]


def test_expansion_ends_in_the_network_it_began_with() -> None:
    result = expand(captured(blocks=2), images(), ByWork(), "fp32", options=QUICK)
    assert result.after_ms == pytest.approx(result.before_ms)
    layers = [
        Counter(type(module_of(g, node)).__name__ for node in g.graph.nodes)
        for g in (result.graph_module, result.original)
    ]
    assert layers[0] == layers[1]


@pytest.mark.parametrize(
    ("method", "goal", "message"),
    [
        (LAYER_PRUNING, Goal.speedup(90), "cannot be reached"),
        (LAYER_PRUNING, Goal.macs(0.5), "`macs` cannot be the goal here"),
        (LAYER_PRUNING, None, "give exactly one of `speedup`, `budget_ms`"),
        (DEPTHSHRINKER, None, "give exactly one of `speedup`, `budget_ms`"),
        (DEPTHSHRINKER, Goal.budget_ms(1e9), "fit into"),
    ],
)
def test_goals_that_cannot_be(method: TrainedMethod, goal: Goal | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(method, goal, None)


def test_blocks_that_cannot_be_kept() -> None:
    with pytest.raises(InputError, match=r"`keep_blocks` 99 of .*: give 0 to"):
        run(DEPTHSHRINKER, None, None, keep_blocks=99)
    with pytest.raises(InputError, match=r"`keep_ratio` 1.5: give 0 or more"):
        Trained(keep_ratio=1.5)


@pytest.mark.parametrize(
    ("name", "goal", "options", "message"),
    [
        ("two-stage-dp", None, Trained(), "give exactly one of `speedup`, `budget_ms`"),
        ("closed-form", Goal.macs(0.5), Trained(), "`macs` cannot be the goal here"),
        ("two-stage-dp", None, Trained(keep_blocks=1), "belong to the method depthshrinker alone"),
        ("depthshrinker", Goal.speedup(2), Trained(keep_blocks=1), "not several"),
        ("expand", Goal.speedup(2), Trained(), "expand makes nothing faster"),
        (
            "magic",
            None,
            Trained(),
            "`method` magic: give one of closed-form, practise, depthshrinker",
        ),
    ],
)
def test_what_a_method_cannot_be_asked_for(
    name: str, goal: Goal | None, options: Trained, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        method_of(name).check(goal, options)


def test_a_method_of_ones_own_is_an_object() -> None:
    def as_it_is(task: DepthTask) -> DepthResult:
        graph = network(task.captured).folded
        ms = predicted_ms(graph, task.table, task.precision)
        return DepthResult(graph, graph, ms, ms, (), ())

    method = DepthMethod("none", as_it_is, learns=False)
    assert method_of(method) is method
    given = (captured(blocks=2), images(), ByWork(), "fp32", Goal.speedup(2))
    task = DepthTask(*given, ClosedForm(), Trained(), None, Silent(), None)
    assert method.shrink(task).after_ms == method.shrink(task).before_ms


def test_labels_are_needed() -> None:
    with pytest.raises(InputError, match="learns from labels"):
        shrink_trained(
            *(captured(), images(labelled=False), ByWork(), "fp32", LAYERMERGE),
            Goal.speedup(1.2),
        )
