"""Two-stage DP: sets A and S, states of ends, the importance that is published."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from depth_cases import SIZE, ByWork, captured, images
from pass_checks import random_inputs
from torch import nn

from shrinkc.compiler.cost.budget import price_of
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.depth.options import DepthOption, depth_spans
from shrinkc.compiler.depth.select import Option, most, select
from shrinkc.compiler.depth.sets.two_stage import boundary, fastest_merges, interval_options
from shrinkc.compiler.depth.surgery import finish, prepare, union
from shrinkc.compiler.depth.trained import TWO_STAGE_DP, Trained, shrink_trained
from shrinkc.compiler.depth.trials import Tried, damage
from shrinkc.compiler.pipeline.deployed import Network, network
from shrinkc.compiler.recover.recipe import Recipe
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.table import OpEstimate
from shrinkc.passes.algebra.intervals import region_order
from shrinkc.passes.analysis.linear.spans import activations


@pytest.fixture(scope="module")
def net() -> Network:
    return network(captured())


def options_of(net: Network, both: bool = True) -> list[DepthOption]:
    return interval_options(net, depth_spans(net).spans, price_of(ByWork(), "fp32"), both)


# --- the choice ----------------------------------------------------------------------------------


def test_intervals_that_meet_agree_on_the_activation_between_them() -> None:
    """0.1 and 0.1 would be least, but one wants an activation at x and the other none."""
    options = [
        Option(0, 1, 1.0, 0.1, (("x", True),)),
        Option(0, 1, 1.0, 0.3, (("x", False),)),
        Option(2, 3, 1.0, 0.5, (("x", True),)),
        Option(2, 3, 1.0, 0.1, (("x", False),)),
    ]
    assert select(options, 2.0) == [1, 3]
    assert select(options, 1.0) in ([0], [3])
    assert most(options) == 2.0


@pytest.mark.parametrize("seed", range(200))
def test_the_choice_with_states_equals_brute_force(seed: int) -> None:
    rng = random.Random(seed)
    options: list[Option] = []
    for _ in range(rng.randint(1, 8)):
        first = rng.randint(0, 6)
        ends = tuple((name, rng.random() < 0.5) for name in rng.sample("abc", rng.randint(0, 2)))
        options.append(Option(first, first + rng.randint(0, 2), rng.random(), rng.random(), ends))
    sets = [
        chosen
        for size in range(len(options) + 1)
        for chosen in itertools.combinations(options, size)
        if all(a.goes_with(b) for a, b in itertools.combinations(chosen, 2))
    ]
    best = max(math.fsum(o.saving for o in s) for s in sets)
    assert most(options) == pytest.approx(best)
    for share in (0.3, 0.7, 0.99):
        found = [options[i] for i in select(options, share * best)]
        assert all(a.goes_with(b) for a, b in itertools.combinations(found, 2))
        enough = [s for s in sets if math.fsum(o.saving for o in s) >= share * best]
        least = min(math.fsum(o.damage for o in s) for s in enough)
        assert math.fsum(o.damage for o in found) == pytest.approx(least)


# --- intervals -----------------------------------------------------------------------------------


def test_an_interval_may_be_merged_in_parts(net: Network) -> None:
    """Where one convolution for all is slower than one for each of its parts (T_opt)."""
    spans = depth_spans(net).spans
    place = {node.name: i for node, i in region_order(net.folded.graph.nodes).items()}
    price = price_of(ByWork(), "fp32")
    long = max(spans, key=lambda span: len(span.nodes))
    inside = [s for s in spans if set(s.nodes) < set(long.nodes) and s.saving(price) > 0]
    found = fastest_merges(long, inside, price, place)
    sets = [
        chosen
        for size in range(len(inside) + 1)
        for chosen in itertools.combinations(inside, size)
        if all(set(a.nodes).isdisjoint(b.nodes) for a, b in itertools.combinations(chosen, 2))
    ]
    best = max(sum(part.saving(price) for part in s) for s in sets)
    assert sum(part.saving(price) for part in found) == pytest.approx(best)
    parted = [o for o in options_of(net, both=False) if len(o.plan.merged) > 1]
    assert parted
    for option in parted:  # A keeps none of the activations inside, S ends several layers there
        assert set(option.span.removed) <= set(option.plan.removed)
        assert option.saving_ms > max(0.0, option.span.saving(price))


def test_ends_of_a_block_are_tried_with_an_activation_and_without(net: Network) -> None:
    """A block from a linear bottleneck to the next: no activation at either end, so one may come;
    behind the expansion there is one, so it may go."""
    folded = net.folded
    bottleneck = boundary(folded, "add")
    assert (bottleneck.activation, bottleneck.free) == (None, True)
    assert bottleneck.states(both=True) == (False, True)
    assert bottleneck.states(both=False) == (False,)
    behind = next(name for name in activations(folded))
    assert boundary(folded, behind).activation == behind
    assert boundary(folded, behind).states(both=True) == (True, False)
    block = [o for o in options_of(net) if (o.span.source, o.span.sink) == ("add", "add_1")]
    assert {o.ends for o in block} == {
        (("add", a), ("add_1", b)) for a in (True, False) for b in (True, False)
    }
    assert len({o.label for o in options_of(net)}) == len(options_of(net))
    for option in block:
        wanted = {value for value, on in option.ends if on}
        assert set(option.plan.activated) == wanted


@pytest.mark.parametrize("seed", range(16))
def test_what_is_trained_is_what_is_merged_in_every_state(net: Network, seed: int) -> None:
    rng = random.Random(seed)
    chosen: list[DepthOption] = []
    options = options_of(net)
    for option in rng.sample(options, len(options)):
        if all(option.priced(0).goes_with(o.priced(0)) for o in chosen):
            chosen.append(option)
    plan = union(option.plan for option in chosen)
    prepared = prepare(net.graph.double(), plan, nn.ReLU6())
    merged = finish(prepared).double()
    net.graph.float()
    (x,) = random_inputs(prepared.graph)
    with torch.no_grad():
        got, want = merged(x)[0], prepared.graph.double()(x)[0]
    assert torch.allclose(got, want, rtol=0, atol=2e-6 * float(want.abs().max()))
    left = {node.name for node in prepared.graph.graph.nodes}
    assert left.isdisjoint(plan.removed)
    assert {f"{value}_act" for value in plan.activated} <= left


# --- importance ----------------------------------------------------------------------------------


def test_the_importance_is_the_accuracy_that_is_lost() -> None:
    """Σ A(i, j) − αĀ over the intervals, less that of the network as it is: Ā = 0.9, four layers in
    one interval with 0.8. At α = 1.5 that is (0.8 − 1.35) − 4 · (0.9 − 1.35) = 1.25 more."""
    before, after = Tried(0.3, 0.9), Tried(0.6, 0.8)
    assert damage("accuracy", before, after, layers=4) == pytest.approx(0.1)
    assert damage("accuracy", before, after, layers=4, alpha=1.5) == pytest.approx(-1.25)
    assert damage("loss", before, after, layers=4, alpha=1.5) == pytest.approx(0.3)


def test_a_loss_that_falls_is_no_damage() -> None:
    assert damage("loss", Tried(0.3, 0.9), Tried(0.2, 0.9)) == 0


class PartsPay(ByWork):
    """Dense kernels larger than 3 cost twice as much."""

    def estimate(self, key: OpKey) -> OpEstimate:
        found = super().estimate(key)
        factor = 2 if max(key.kernel, default=1) > 3 else 1
        return OpEstimate(factor * found.ms, "made up", False)


def test_the_method_takes_intervals_and_meets_the_budget() -> None:
    result = shrink_trained(
        *(captured(blocks=2), images(), PartsPay(), "fp32", TWO_STAGE_DP, Goal.speedup(1.2)),
        options=Trained(Recipe(epochs=1, steps=2, batch=16), alpha=1.2),
    )
    assert result.after_ms <= result.before_ms / 1.2
    assert {taken.importance for taken in result.taken} == {"accuracy"}
    with torch.no_grad():
        assert torch.isfinite(result.graph_module(torch.randn(2, 3, SIZE, SIZE))[0]).all()
