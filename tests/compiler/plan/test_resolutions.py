"""Planners of several image sizes as one: what is fitted, what is taken, what is kept."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from by_macs import ByMacs
from hand_built import randomise
from small_networks import Classifier, InvertedResidual, conv
from torch import fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.depth.closed_form import ClosedForm
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.pipeline.deployed import deployed
from shrinkc.compiler.plan import candidates, file_timing
from shrinkc.compiler.plan import planner as planning_module
from shrinkc.compiler.plan.finished_plans import Planned
from shrinkc.compiler.plan.planner import Planner, Planning, prepare_planning
from shrinkc.compiler.plan.replay import replay
from shrinkc.compiler.plan.resolutions import planner as sizes
from shrinkc.compiler.plan.resolutions.planner import Resolutions
from shrinkc.compiler.recover.distil import Tuning
from shrinkc.compiler.recover.divergence import Damage
from shrinkc.compiler.recover.rebuild_span import Rebuilding
from shrinkc.errors import UnreachableGoalError
from shrinkc.passes.base import copy_graph

QUICK = ClosedForm(("drop",), Rebuilding(steps=0), Tuning(steps=2))
SIZES = (32, 24, 16)
HARMLESS, FATAL = Damage(0.0, 1.0, 0.0), Damage(1e9, 0.0, 0.0)


def network(size: int) -> fx.GraphModule:
    torch.manual_seed(0)
    net = Classifier(
        *(conv(3, 8, 3, 2), nn.ReLU6(), InvertedResidual(8, 8, expansion=6)), channels=8
    )
    for part in net.modules():
        if not list(part.children()):
            randomise(part, torch.Generator().manual_seed(0))
    return capture(net.eval(), (torch.randn(1, 3, size, size),))


def images(size: int) -> Images:
    coarse = torch.rand(24, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    pixels = F.interpolate(coarse, (size, size), mode="bilinear").permute(0, 2, 3, 1)
    return Images((pixels * 255).round().to(torch.uint8).contiguous(), None, (0.5,), (0.25,))


def resolutions(folder: Path | None = None, target: str = "macs") -> Resolutions:
    def one(size: int, whole: Planner | None = None) -> Planner:
        planning = Planning(("fp32",), QUICK, folder=folder, groups=False, sets=1)
        return prepare_planning(network(size), images(size), ByMacs(target), planning, whole=whole)

    whole = one(SIZES[0])
    return Resolutions(whole, [one(size, whole) for size in SIZES[1:]])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes that something is fitted for."""
    found: list[int] = []
    best = Planner._best  # pyright: ignore[reportPrivateUsage]

    def spy(self: Planner, some: Any, budget_ms: float) -> Any:
        found.append(self.judge.held.size[0] if self.judge.held.size else 0)
        return best(self, some, budget_ms)

    monkeypatch.setattr(Planner, "_best", spy)
    return found


def costs(monkeypatch: pytest.MonkeyPatch, of: dict[int, Damage]) -> None:
    """What the sizes cost by themselves."""
    size = property(lambda self: of.get(self.judge.held.size[0]))
    monkeypatch.setattr(Planner, "size_damage", size)


def all_come_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever quick fits lose."""
    monkeypatch.setattr(sizes, "CLOSE", inf)


def test_times_are_over_the_network_at_its_own_size() -> None:
    one = resolutions()
    assert one.before_ms == predicted_ms(deployed(network(32)), ByMacs(), "fp32")
    for planner, size in zip(one.smaller, SIZES[1:], strict=True):
        assert planner.before_ms == one.before_ms
        assert planner.candidates.priced["fp32"].whole.before_ms == pytest.approx(
            predicted_ms(deployed(network(size)), ByMacs(), "fp32")
        )
        assert planner.judge.whole is one.judge
    assert one.most > super(Resolutions, one).most
    assert one.useful > super(Resolutions, one).useful


def test_a_size_that_costs_too_much_is_not_looked_at(
    monkeypatch: pytest.MonkeyPatch, asked: list[int]
) -> None:
    one = resolutions()
    costs(monkeypatch, {24: FATAL, 16: FATAL})
    planned = one.within(one.before_ms / 1.2)
    assert asked == [32]
    assert planned.plan.resolution is None
    assert all("judged" not in vars(smaller.candidates) for smaller in one.smaller)  # measured


@pytest.mark.parametrize(("factor", "planned"), [(0.5, [16]), (1.2, [24, 16]), (1.7, [24])])
def test_sizes_are_planned_whose_quick_fits_come_near_the_best(
    factor: float, planned: list[int], monkeypatch: pytest.MonkeyPatch, asked: list[int]
) -> None:
    """What 16 pixels lose, fitted quickly, is so many times what 24 do; the best comes first."""
    one = resolutions()
    costs(monkeypatch, {24: HARMLESS, 16: HARMLESS})
    ranked = Planner.ranked

    def given(self: Planner, found: Any) -> Any:
        loss = {24: 1.0, 16: factor}[self.judge.held.size[0] if self.judge.held.size else 0]
        return [(loss, candidate) for _, candidate in ranked(self, found)]

    monkeypatch.setattr(Planner, "ranked", given)
    one.within(one.before_ms / 1.5)
    assert asked == planned


def test_at_most_two_sizes_are_planned(monkeypatch: pytest.MonkeyPatch, asked: list[int]) -> None:
    one = resolutions()
    costs(monkeypatch, {24: HARMLESS, 16: HARMLESS})
    all_come_near(monkeypatch)
    monkeypatch.setattr(sizes, "MOST", 1)
    one.within(one.before_ms / 1.5)
    assert len(asked) == 1


def test_what_choices_cost_is_measured_at_the_networks_own_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same choice has the same damage at every size."""
    one = resolutions()
    own = one.candidates.judged["fp32"]

    def nothing(_: fx.GraphModule, wanted: list[Any], *__: Any, **___: Any) -> list[Damage]:
        assert not wanted
        return []

    monkeypatch.setattr(candidates, "measure", nothing)
    for smaller in one.smaller:
        found = smaller.candidates.judged["fp32"]
        assert found.damages
        assert found.damages == {label: own.damages[label] for label in found.damages}


def test_the_one_that_loses_least_is_taken_and_is_distilled_though_no_layer_changes(
    monkeypatch: pytest.MonkeyPatch, asked: list[int]
) -> None:
    one = resolutions()
    costs(monkeypatch, {24: HARMLESS, 16: HARMLESS})
    all_come_near(monkeypatch)
    taught: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    distilled = planning_module.distilled

    def spy(shrunk: Any, teacher: fx.GraphModule, *rest: Any, **options: Any) -> Any:
        reads = (
            next(iter(g.meta["input_shapes"].values())) for g in (shrunk.graph_module, teacher)
        )
        mine, theirs = reads
        taught.append((mine[2:], theirs[2:]))
        return distilled(shrunk, teacher, *rest, **options)

    monkeypatch.setattr(planning_module, "distilled", spy)
    planned = one.within(one.before_ms / 1.5)
    assert asked == [24, 16]  # nothing of what is free was done to layers at its own size
    assert taught == [((24, 24), (32, 32)), ((16, 16), (32, 32))]
    plan = planned.plan
    assert plan.resolution is not None
    assert plan.resolution.size == planned.graph_module.meta["input_shapes"]["x"][2:]
    assert plan.resolution.size_before == (32, 32)
    assert plan.steps == ()
    assert plan.after_ms <= one.before_ms / 1.5
    smaller = network(plan.resolution.size[0])
    _, again = replay(one.captured, plan, planned.tensors, smaller)
    state = again.state_dict()
    assert all(torch.equal(state[n], x) for n, x in planned.graph_module.state_dict().items())


@pytest.mark.parametrize("spoilt", [False, True])
def test_what_distilling_spoils_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch, spoilt: bool
) -> None:
    one = resolutions()
    costs(monkeypatch, {24: HARMLESS, 16: FATAL})
    smaller, made = one.smaller[0], list[fx.GraphModule]()

    def distilled(shrunk: Any, teacher: fx.GraphModule, *_: Any, **__: Any) -> Any:
        """Answers as before, or as nobody does."""
        graph = copy_graph(shrunk.graph_module)
        with torch.no_grad():
            for parameter in graph.parameters():
                parameter.mul_(-1.0 if spoilt else 1.0)
        made.extend((shrunk.graph_module, graph))
        return replace(shrunk, graph_module=graph)

    monkeypatch.setattr(planning_module, "distilled", distilled)
    graph = smaller.within(one.before_ms / 1.5).graph_module
    before, after = made
    assert graph is (before if spoilt else after)


def test_a_stopped_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, asked: list[int], tmp_path: Path
) -> None:
    """One size is done when it is stopped: that is not done again."""
    costs(monkeypatch, {24: HARMLESS, 16: HARMLESS})
    all_come_near(monkeypatch)
    within, stops = Planner.within, [16]

    def stopped(self: Planner, *given: Any) -> Any:
        if type(self) is Planner and self.judge.held.size in [(s, s) for s in stops]:
            raise KeyboardInterrupt
        return within(self, *given)

    monkeypatch.setattr(Planner, "within", stopped)
    first = resolutions(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        first.within(first.before_ms / 1.5)
    assert asked == [24]
    stops.clear()
    second = resolutions(tmp_path)
    planned = second.within(second.before_ms / 1.5)
    assert asked == [24, 16]
    third = resolutions(tmp_path)
    again = third.within(third.before_ms / 1.5)
    assert asked == [24, 16]
    assert again.plan == planned.plan
    assert again.tensors.keys() == planned.tensors.keys()
    for name, tensor in planned.tensors.items():
        assert torch.equal(again.tensors[name], tensor), name


def test_what_no_size_reaches_says_what_the_smallest_does(tmp_path: Path) -> None:
    one = resolutions(tmp_path)
    fastest = min(planner.before_ms / planner.most for planner in one.smaller)
    with pytest.raises(UnreachableGoalError, match="cannot be reached") as caught:
        one.within(fastest / 3)
    assert caught.value.fastest_ms == pytest.approx(fastest, rel=0.05)
    assert one.within(one.before_ms / (0.9 * one.most)).plan.resolution is not None


def test_a_plan_that_is_known_is_taken_whatever_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    one = resolutions()
    costs(monkeypatch, {24: HARMLESS, 16: HARMLESS})
    all_come_near(monkeypatch)
    faster = one.within(one.before_ms / 1.5)
    names = one.known()
    assert {name.partition("/")[0] for name in names} == {"1", "2"}
    assert all(one.kept(name) is not None for name in names)
    costs(monkeypatch, {24: FATAL, 16: FATAL})
    monkeypatch.setattr(planning_module, "lost", lambda plan: float(plan.resolution is None))
    assert one.within(one.before_ms / 1.2).plan == faster.plan


def test_what_may_be_lost_is_met_by_smaller_images(monkeypatch: pytest.MonkeyPatch) -> None:
    one = resolutions()
    costs(monkeypatch, {24: HARMLESS, 16: HARMLESS})
    plan = one.dropping(1.0).plan  # all of it
    assert plan.resolution is not None
    assert plan.speedup > super(Resolutions, one).most
    points = one.frontier(5)
    assert points[0].plan.resolution is None
    assert points[-1].plan.resolution is not None
    assert {type(one.kept(name)) for name in one.known()} == {Planned}


def test_files_of_a_size_are_timed_beside_the_original_at_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the target is at hand; a file's bytes say here how long it takes."""
    pairs: list[tuple[float, float]] = []

    def file(graph: fx.GraphModule, *_: Any, **__: Any) -> bytes:
        return f"{predicted_ms(graph, ByMacs(), 'fp32')}".encode()

    def speedup_of(before: bytes, after: bytes, threads: int) -> float:
        pairs.append((float(before), float(after)))
        return float(before) / float(after)

    monkeypatch.setattr(file_timing, "host_file", file)
    monkeypatch.setattr(file_timing, "alone_ms", lambda data, threads: 2 * float(data))
    monkeypatch.setattr("shrinkc.compiler.measure.speedup.host_file", file)
    monkeypatch.setattr("shrinkc.compiler.measure.speedup.speedup_of", speedup_of)
    costs(monkeypatch, {24: HARMLESS, 16: HARMLESS})
    one = resolutions(tmp_path, target="host")
    own = predicted_ms(deployed(network(32)), ByMacs(), "fp32")
    assert one.before_ms == pytest.approx(2 * own)  # as a whole file
    planned = one.within(one.before_ms / 1.5)
    assert planned.plan.resolution is not None
    assert planned.plan.measured_speedup is not None
    assert planned.plan.measured_speedup >= 1.5
    assert pairs
    assert all(before == pytest.approx(own) for before, _ in pairs)
