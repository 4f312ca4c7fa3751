"""Practise: what is lost without a block once adaptors did what they can, and what is dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from depth_cases import SIZE, ByWork, images
from small_networks import Basic, Classifier, InvertedResidual, conv, resnet_20, vgg
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.depth.practise import practise as practising
from shrinkc.compiler.depth.practise.adaptors import (
    around,
    with_adaptors,
    without_adaptors,
)
from shrinkc.compiler.depth.practise.mimic import Mimic, Mimicry, Step
from shrinkc.compiler.depth.practise.practise import (
    DroppedBlock,
    Practise,
    Practised,
    by_score,
    gaps,
    practise,
)
from shrinkc.compiler.depth.surgery import DepthPlan, prepare
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.pipeline.deployed import network
from shrinkc.compiler.recover.distil import tapped
from shrinkc.compiler.support.progress import Silent
from shrinkc.errors import InputError, UnreachableGoalError
from shrinkc.passes.ir import module_of

QUICK = Practise(Mimicry(steps=6, learning_rate=1e-3))


def captured(model: nn.Module, seed: int = 0) -> fx.GraphModule:
    """With the statistics of the images, as a network that was trained has them."""
    torch.manual_seed(seed)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            cast(Any, module).reset_parameters()
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)
    (x,) = images().taken(torch.arange(48))
    model.train()(x)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return capture(model.eval(), (torch.randn(1, 3, SIZE, SIZE),))


def residual() -> nn.Module:
    blocks = [Basic(6, 6), Basic(6, 6), Basic(6, 8, 2), Basic(8, 8)]
    return Classifier(conv(3, 6, 3), nn.ReLU(), *blocks, channels=8)


def run(model: nn.Module, goal: Goal, folder: Path | None = None, **more: Any) -> Practised:
    given = captured(model), images(labelled=False), ByWork(), "fp32", goal
    return practise(*given, folder=folder, **({"options": QUICK} | more))


def test_blocks_behind_the_last_features_stay() -> None:
    """Maps of one pixel count as pooled; nothing that is measured sees a block on them."""
    late = nn.Sequential(conv(6, 8, 3, SIZE), nn.ReLU(), InvertedResidual(8, 8))
    model = Classifier(conv(3, 6, 3), nn.ReLU(), Basic(6, 6), nn.ReLU(), late, channels=8)
    found = run(model, Goal.speedup(1.02))
    assert [block.sink for block in found.taken] == ["add"]
    assert ("add_1", practising.BEHIND) in {(skip.node, skip.reason) for skip in found.skipped}


# --- recoverability ------------------------------------------------------------------------------


class Scaling(nn.Module):
    """relu(3·x) behind a block that computes v + 2·relu(0.25·v) = 1.5·v of v ≥ 0."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = (nn.Conv2d(1, 1, 1, bias=False) for _ in range(3))
        for layer, weight in ((self.stem, 3.0), (self.one, 0.25), (self.two, 2.0)):
            nn.init.constant_(layer.weight, weight)
        self.last = nn.Conv2d(1, 2, 1, bias=False)
        nn.init.ones_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        v = self.stem(x).relu()
        return self.last((v + self.two(self.one(v).relu())).relu()).mean((2, 3))


def grey() -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (16, 4, 4, 1), generator=generator).to(torch.uint8)
    return Images(pixels, None)


def test_recoverability_by_hand() -> None:
    """Without adaptors mean((1.5·v − v)²) of twice the same channel is lost; with one behind the
    stem and one in front of the last layer nothing, since their product becomes 1.5."""
    net = network(capture(Scaling().eval(), (torch.randn(1, 1, 4, 4),)))
    add = next(n.name for n in net.graph.graph.nodes if n.name.startswith("add"))
    source = next(n.name for n in net.graph.graph.nodes if n.name == "relu")
    plan = DepthPlan(dropped=((source, add),))
    graph = prepare(net.graph, plan, None).graph
    options = Mimicry(steps=400, learning_rate=0.05, weight_decay=0.0)
    mimic = Mimic.of(net.graph, grey(), (4, 4), options, Silent())
    where = around(graph, gaps(plan).values())
    assert (where.behind, where.front) == (("stem",), ("last",))
    v = 3 * grey().taken(torch.arange(16))[0]
    assert mimic.loss(tapped(graph, mimic.feature)) == pytest.approx(float(((0.5 * v) ** 2).mean()))
    adapted = mimic.fit(with_adaptors(graph, where), mimic.feature, None, norms=False)
    assert mimic.loss(tapped(adapted, mimic.feature)) < 1e-6
    front, behind = (
        cast(nn.Conv2d, adapted.get_submodule(n)).weight.detach() for n in ("last_front", "stem")
    )
    assert float(front * behind) == pytest.approx(1.5, abs=1e-3)
    merged = without_adaptors(adapted, where)
    product = [cast(nn.Conv2d, merged.get_submodule(n)).weight.detach() for n in ("stem", "last")]
    assert float(product[0] * product[1][0]) == pytest.approx(4.5, abs=1e-2)
    assert len(merged.graph.nodes) == len(graph.graph.nodes)


def test_the_least_score_goes_first_until_it_is_enough() -> None:
    """Recoverabilities 0.4, 0.3, 0.9 over 4, 1 and 10 ms: the last block first, not the second."""
    lost, ms = (0.4, 0.3, 0.9), (4.0, 1.0, 10.0)
    blocks = [DroppedBlock("", "", m, r, r / m) for r, m in zip(lost, ms, strict=True)]

    def saves(needed: float) -> list[int]:
        return by_score(blocks, lambda few: sum(ms[i] for i in few) >= needed)

    assert saves(0) == []
    assert saves(3) == [2]
    assert saves(11) == [2, 0]
    assert saves(14.5) == [2, 0, 1]


def test_rates_fall_at_two_fifths() -> None:
    assert [Step().factor(i, 10, 1) for i in range(10)] == [1.0] * 4 + [0.1] * 6


# --- adaptors ------------------------------------------------------------------------------------


def test_adaptors_are_where_the_stream_of_the_stage_is_written_and_read() -> None:
    """As in the authors' code: behind the last layers of earlier blocks, in front of the first
    layers of later blocks and of the next stage with its projection."""
    net = network(captured(residual()))
    names = [n.name for n in net.graph.graph.nodes]
    source = next(n for n in names if n.startswith("body_2_last"))
    sink = [n for n in names if n.startswith("add")][1]
    plan = DepthPlan(dropped=((source, sink),))
    where = around(prepare(net.graph, plan, None).graph, gaps(plan).values())
    assert where.behind == ("body_0_0", "body_2_two_0")
    assert where.front == ("body_4_one_0", "body_4_short_0")


def test_adaptors_merge_exactly_at_every_position(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(captured(resnet_20()))
    names = [n.name for n in net.graph.graph.nodes]
    plan = DepthPlan(dropped=(("body_1", next(n for n in names if n.startswith("add"))),))
    graph = prepare(net.graph, plan, None).graph
    where = around(graph, gaps(plan).values())
    adapted = with_adaptors(graph, where)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    merged = without_adaptors(adapted, where)
    (x,) = (torch.randn(4, 3, SIZE, SIZE),)
    with torch.no_grad():
        assert torch.allclose(merged(x)[0], adapted(x)[0], atol=1e-5)
        assert not torch.allclose(merged(x)[0], graph(x)[0], atol=1e-3)
    assert all(p.requires_grad for p in merged.parameters())


def test_gaps_of_neighbours_lead_back_to_the_first_source() -> None:
    plan = DepthPlan(dropped=(("a", "b"), ("b", "c"), ("f", "g")))
    assert gaps(plan) == {"b": "a", "c": "a", "g": "f"}


# --- the method ----------------------------------------------------------------------------------


def test_a_budget_is_met_and_features_come_near(tmp_path: Path) -> None:
    table, goal = ByWork(), Goal.speedup(1.4)
    found = run(residual(), goal, tmp_path)
    assert found.after_ms <= found.before_ms / 1.4
    assert found.after_ms == predicted_ms(found.graph_module, table, "fp32")
    assert found.taken
    assert found.adaptors
    scores = [block.score for block in found.taken]
    assert scores == sorted(scores)
    assert all(b.score == b.recoverability / b.saving_ms for b in found.taken)
    layers = [type(module_of(found.graph_module, n)) for n in found.graph_module.graph.nodes]
    assert nn.BatchNorm2d not in layers
    again = run(residual(), goal, tmp_path)  # everything is loaded
    x = torch.randn(4, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(again.graph_module(x)[0], found.graph_module(x)[0])
    assert again.taken == found.taken


def test_training_brings_the_features_nearer() -> None:
    goal = Goal.speedup(1.2)
    net = network(captured(residual()))
    mimic = Mimic.of(net.folded, images(), (SIZE, SIZE), Mimicry(), Silent())

    def left(steps: int) -> float:
        options = Practise(Mimicry(steps=steps, learning_rate=0.01))
        found = run(residual(), goal, options=options)
        feature = next(
            n.name
            for n in reversed(list(found.graph_module.graph.nodes))
            if n.name == mimic.feature or n.name.startswith("body_4_last")
        )
        return mimic.loss(tapped(found.graph_module, feature))

    assert left(150) < 0.7 * left(0)


def test_the_last_block_has_the_features_of_what_is_before_it() -> None:
    """Its sum is the last map: what is before it has to become that."""
    model = nn.Sequential(
        *(conv(3, 6, 3, 2), nn.ReLU(), InvertedResidual(6, 6), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(6, 3)),
    )
    found = run(model, Goal.speedup(1.05))
    (block,) = found.taken
    assert block.recoverability > 0
    assert found.adaptors.behind
    assert not found.adaptors.front


def test_scores_are_kept_when_a_run_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = practising.finished, list[int]()

    def stopping(jobs: object, count: int, *args: Any, **kwargs: Any) -> Iterator[object]:
        asked.append(count)
        results = real(jobs, count, *args, **kwargs)  # pyright: ignore
        yield from islice(results, 1) if len(asked) == 1 else results
        if len(asked) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(practising, "finished", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(residual(), Goal.speedup(1.2), tmp_path)
    (journal,) = tmp_path.glob("*.jsonl")
    assert len(journal.read_text().splitlines()) == 1
    blocks = len(run(residual(), Goal.speedup(1.2), tmp_path).taken)
    assert asked == [len(journal.read_text().splitlines()), asked[0] - 1]
    assert blocks


def test_side_by_side_blocks_have_the_same_scores() -> None:
    """Another process knows the network's nodes by other names once blocks are gone."""
    alone = run(residual(), Goal.speedup(1.4))
    beside = run(residual(), Goal.speedup(1.4), options=replace(QUICK, parallel=2))
    assert beside.taken == alone.taken


def test_a_network_that_fits_as_it_is_keeps_its_blocks() -> None:
    before = run(residual(), Goal.speedup(1.2)).before_ms
    found = run(residual(), Goal.budget_ms(0.999999 * before), measured_ms=lambda _: 0.0)
    assert not found.taken
    assert found.after_ms == pytest.approx(before)


def test_a_measured_budget() -> None:
    """A device on which every network takes longer than the table says."""
    table, by_table = ByWork(), run(residual(), Goal.speedup(1.2))
    before = by_table.before_ms
    more = 1.01 * (before / 1.2 - by_table.after_ms)

    def measured_ms(merged: fx.GraphModule) -> float:
        return predicted_ms(merged, table, "fp32") + more

    found = run(residual(), Goal.speedup(1.2), measured_ms=measured_ms)
    assert measured_ms(found.graph_module) <= before / 1.2
    assert len(found.taken) > len(by_table.taken)
    with pytest.raises(UnreachableGoalError, match=r"no plan was measured within .* it took"):
        run(residual(), Goal.speedup(1.2), measured_ms=lambda _: before)


# --- what cannot be ------------------------------------------------------------------------------


def test_a_budget_out_of_reach_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"cannot be reached: from .* the best is .* ms, \d"):
        run(residual(), Goal.speedup(50))


def test_no_block_that_can_be_dropped_says_why() -> None:
    with pytest.raises(InputError, match=r"nothing to shrink in depth: .*no shortcut leads around"):
        run(vgg(), Goal.speedup(1.2))


class Grouped(nn.Module):
    """Whatever is beside the block has groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 6, 3, groups=3), nn.Conv2d(6, 6, 1, groups=2)
        self.block = InvertedResidual(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(self.stem(x).relu())).mean((2, 3))


def test_neighbours_that_cannot_take_adaptors_in() -> None:
    with pytest.raises(InputError, match="no convolution without groups, before it or behind it"):
        run(Grouped(), Goal.speedup(1.2))


def test_batches_of_one_size() -> None:
    graph = captured(residual())
    graph.meta["dynamic_batch"] = False
    with pytest.raises(InputError, match="batches of one size only"):
        practise(graph, images(), ByWork(), "fp32", Goal.speedup(1.2), options=QUICK)


def test_at_most_so_many_images_evenly_spread() -> None:
    net = network(captured(residual()))
    some = replace(QUICK.mimicry, images=10)
    mimic = Mimic.of(net.graph, images(48), (SIZE, SIZE), some, Silent())
    assert len(mimic.images) == 10
    assert torch.equal(mimic.images.pixels[1], images(48).pixels[4])
