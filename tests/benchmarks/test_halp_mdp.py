"""HALP and MDP as benchmarks.peers has them: what goes, and that it is what matters least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from by_macs import ByMacs
from small_networks import Classifier, InvertedResidual, conv
from torch import Tensor, fx, nn

from benchmarks.shared.halp_mdp import METHODS, Program, Taylor, halp, mdp
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.depth.sets.fitting import compatible_sets
from shrinkc.compiler.pipeline.deployed import deployed
from shrinkc.compiler.plan.group_choices import GroupChoice
from shrinkc.errors import UnreachableGoalError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.base import copy_graph
from shrinkc.passes.criteria.shared.data import Batch, Observed
from shrinkc.passes.criteria.shared.masked_reads import masked_reads

TABLE, SIZE = ByMacs(), 16
NAMES = sorted(METHODS)


@cache
def network() -> fx.GraphModule:
    torch.manual_seed(0)
    model = Classifier(
        *(conv(3, 16, 3, 2), nn.ReLU6(), InvertedResidual(16, 16), InvertedResidual(16, 16)),
        *(InvertedResidual(16, 24), InvertedResidual(24, 24)),
        channels=24,
    )
    return deployed(capture(model.eval(), (torch.randn(1, 3, SIZE, SIZE),)))


@cache
def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(6, 3, SIZE, SIZE, generator=generator) for _ in range(2)]
    return [((x,), network()(x)[0].argmax(1).detach()) for x in images]


@cache
def program() -> Program:
    return Program.of(network(), batches(), TABLE)


def before_ms() -> float:
    return predicted_ms(network(), TABLE)


def widths(graph: fx.GraphModule) -> dict[str, int]:
    return {group.name: group.size for group in channel_groups(graph).groups}


def loss(graph: fx.GraphModule, batch: Batch, masked: dict[tuple[str, str, int], float]) -> float:
    """The mean over a batch with channels times a factor where some node reads them."""

    def read(node: fx.Node, source: fx.Node, value: Tensor) -> Tensor:
        for (reader, read, channel), factor in masked.items():
            if (reader, read) == (node.name, source.name):
                value = value.clone()
                value.select(1, channel).mul_(factor)
        return value

    (x,), labels = batch
    with torch.no_grad():
        outputs = Observed(graph, read=read).run(x.double())
    return float(F.cross_entropy(outputs[0], labels))


def slope(graph: fx.GraphModule, batch: Batch, reads: Sequence[tuple[str, str, int]]) -> float:
    up, down = (loss(graph, batch, dict.fromkeys(reads, 1 + h)) for h in (1e-5, -1e-5))
    return (up - down) / 2e-5


def test_taylor_scores_by_finite_differences() -> None:
    graph, wide = network(), copy_graph(network()).double()
    groups = channel_groups(graph)
    scores = Taylor(batches()).scores(graph, groups)
    for group in groups.groups:
        for channel in (0, group.size - 1):
            reads = [
                (*at, int(position))
                for at, some in masked_reads(groups).items()
                for one in some
                for position, of in zip(one.positions, one.channels, strict=True)
                if (one.group, of) == (group.name, channel)
            ]
            expected = np.mean([abs(slope(wide, batch, reads)) for batch in batches()])
            found = scores[group.name][channel]
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_a_block_counts_its_channels_and_what_it_adds_to_the_stream() -> None:
    graph, wide, scores = network(), copy_graph(network()).double(), program().scores
    drop = next(c for c in program().slicings.whole.found if c.kind == "drop")
    sink = next(node for node in graph.graph.nodes if node.name == drop.span.sink)
    (branch,) = (x.name for x in sink.all_input_nodes if x.name != drop.span.source)
    added = [
        np.mean([abs(slope(wide, batch, [(sink.name, branch, c)])) for batch in batches()])
        for c in range(16)
    ]
    hidden = next(
        group
        for group in channel_groups(graph).groups
        if {value.node for value in group.made} <= set(drop.span.nodes)
    )
    expected = float(np.sum(added) + scores[hidden.name].sum())
    damages = program().slicings.damages
    assert damages is not None
    assert damages[drop.label].loss == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("speedup", [1.1, 1.4])
def test_the_budget_is_met(method: str, speedup: float) -> None:
    found = METHODS[method](network(), batches(), TABLE, Goal.speedup(speedup))
    assert predicted_ms(found, TABLE) <= before_ms() / speedup
    assert widths(found) != widths(network())
    assert found(batches()[0][0][0])[0].shape == (6, 5)


@pytest.mark.parametrize("method", NAMES)
def test_a_budget_out_of_reach_is_an_error(method: str) -> None:
    with pytest.raises(UnreachableGoalError):
        METHODS[method](network(), batches(), TABLE, Goal.speedup(60))


def test_halp_keeps_the_channels_of_the_highest_scores() -> None:
    """What goes of a group is nowhere more important than what stays: its filters are those of the
    highest scores, in their order."""
    found = halp(network(), batches(), TABLE, Goal.speedup(1.3))
    scores, after = Taylor(batches()).scores(network(), channel_groups(network())), widths(found)
    narrower = [g for g in channel_groups(network()).groups if after[g.name] < g.size]
    assert narrower
    for group in narrower:
        kept = np.sort(np.argsort(scores[group.name])[-after[group.name] :])
        path = next(s.path for s in group.slices if s.role == "out" and s.parameter == "weight")
        assert torch.equal(found.state_dict()[path], network().state_dict()[path][kept])


def sets() -> Iterator[tuple[float, float]]:
    """(damage, milliseconds) of every set of choices that there is."""
    slicings = program().slicings
    by_group: dict[str, list[GroupChoice | None]] = {}
    for choice in slicings.slices:
        by_group.setdefault(choice.group.name, [None]).append(choice)
    for some in product(*by_group.values()):
        slicing = slicings.of([choice for choice in some if choice is not None])
        plans = slicing.plans
        for chosen in compatible_sets(plans.options):
            saved = sum(plans.options[i].saving for i in chosen)
            yield slicing.damage + plans.damage(chosen), plans.before_ms - saved


def test_mdp_finds_the_least_loss_of_channels_and_blocks_together() -> None:
    every = list(sets())
    for speedup in (1.2, 1.5, 2.0, 2.5):
        budget_ms = before_ms() / speedup
        least = min(damage for damage, ms in every if ms <= budget_ms)
        assert program().slicings.best(budget_ms)[0] == pytest.approx(least, rel=0.02)


def test_mdp_leaves_out_what_does_nothing() -> None:
    """A block that adds nothing, and whose channels do nothing then, goes first; the answers stay
    the same."""
    graph = copy_graph(network())
    spans = {choice.span for choice in program().slicings.whole.found if choice.kind == "drop"}
    silent = min(spans, key=lambda span: span.sink)
    assert silent.hidden is not None
    layer = next(n for n in graph.graph.nodes if n.name == silent.hidden.consumer)
    last = graph.get_submodule(str(layer.target))
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    ((x,), labels), *_ = batches()
    saved = next(
        choice.saving_ms
        for choice in program().slicings.whole.found
        if choice.kind == "drop" and choice.span is silent
    )
    goal = Goal.budget_ms(before_ms() - saved)
    found = mdp(graph, [((x,), labels)], TABLE, goal)
    assert len(found.graph.nodes) < len(graph.graph.nodes)
    assert torch.allclose(found(x)[0], graph(x)[0], atol=1e-5)
