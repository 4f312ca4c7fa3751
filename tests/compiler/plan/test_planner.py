"""Plans over depth, width and precision on a tiny network: the better precision, within the budget,
judged on images that no fit saw, kept and replayed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hand_built import randomise
from small_networks import Classifier, InvertedResidual, conv
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.cost.predict import predict
from shrinkc.compiler.depth.closed_form import ClosedForm
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.ops import Conv
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.measure import speedup as measuring
from shrinkc.compiler.plan import candidates, file_timing, judging
from shrinkc.compiler.plan import planner as planning_module
from shrinkc.compiler.plan.comparing import finalists
from shrinkc.compiler.plan.finished_plans import Planned
from shrinkc.compiler.plan.int8_variants import PrecisionVariant
from shrinkc.compiler.plan.judging import Judge
from shrinkc.compiler.plan.plan_file import OutputPromise, Plan, Promise, plan_files, read_plan
from shrinkc.compiler.plan.planner import Planner, Planning, prepare_planning
from shrinkc.compiler.plan.replay import replay, stored_calibration
from shrinkc.compiler.quantise.options import Int8
from shrinkc.compiler.recover.distil import Tuning
from shrinkc.compiler.recover.divergence import Damage
from shrinkc.compiler.recover.rebuild_span import Rebuilding
from shrinkc.errors import InputError, LoadError, TableError, UnreachableGoalError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.table import OpEstimate
from shrinkc.passes.base import copy_graph

SIZE = 20
QUICK = ClosedForm(rebuilding=Rebuilding(steps=0), tuning=Tuning(steps=0))


@pytest.fixture(scope="module", autouse=True)
def _damages(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Most tests plan for the same network and images: damages are measured once."""
    global QUICK
    QUICK = replace(QUICK, cache=tmp_path_factory.mktemp("damages"))


@dataclass(frozen=True)
class Device:
    """A microsecond for every thousand multiply-accumulates, int8 `faster` times as fast."""

    faster: float = 1.5
    target: str = "device"

    def estimate(self, key: OpKey) -> OpEstimate:
        speed = self.faster if key.precision == "int8" else 1.0
        return OpEstimate((1e-3 + key.macs * 1e-6) / speed, "measured", False)

    def network_overhead_ms(self, precision: str) -> float:
        return 0.001

    def spread(self, precision: str, unlike_share: float) -> float | None:
        return None


class OnlyFp32(Device):
    def network_overhead_ms(self, precision: str) -> float:
        if precision != "fp32":
            raise TableError("device knows no int8")
        return 0.001


def network() -> fx.GraphModule:
    return copy_graph(captured())


@cache
def captured() -> fx.GraphModule:
    torch.manual_seed(0)
    model = Classifier(
        *(conv(3, 8, 3, 2), nn.ReLU6()),
        *(InvertedResidual(8, 8, expansion=6), InvertedResidual(8, 8, expansion=6)),
        InvertedResidual(8, 12, expansion=6),
        channels=12,
    )
    for part in model.modules():
        if not list(part.children()):
            randomise(part, torch.Generator().manual_seed(0))
    return capture(model.eval(), (torch.randn(1, 3, SIZE, SIZE),))


def some_images(count: int = 40, seed: int = 0, labels: Tensor | None = None) -> Images:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    pixels = (smooth * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return Images(pixels, labels, (0.5,), (0.25,))


def planner(
    table: Device | None = None,
    precisions: tuple[str, ...] = ("fp32", "int8"),
    folder: Path | None = None,
    held_out: Images | None = None,
) -> Planner:
    planning = Planning(precisions, QUICK, folder=folder, sets=1)
    return prepare_planning(
        network(), some_images(), table or Device(), planning, held_out=held_out
    )


def outputs(graph: fx.GraphModule) -> Tensor:
    images = some_images()
    with torch.no_grad():
        return graph(images.inputs(images.pixels))[0]


def promised(drop: float) -> Promise:
    shares = {"drop": drop, "interval": (-1, 1), "agreement": 0.9}
    ends = (0, 2 * drop)
    output = OutputPromise(error=drop, interval=ends, worst=drop, worst_interval=ends)
    return Promise(images=10, outputs=(output,), **shares)


@pytest.fixture
def harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that int8 does nothing to; this one, of random weights, suffers."""
    monkeypatch.setattr(Planner, "variants", [PrecisionVariant("fp32"), PrecisionVariant("int8")])


@pytest.mark.usefixtures("harmless")
def test_int8_alone_is_taken_where_it_is_fast_enough() -> None:
    one = planner()
    planned = one.within(one.before_ms / 1.4)
    assert planned.plan.precision == "int8"
    assert not planned.plan.steps
    assert planned.plan.speedup == pytest.approx(1.5, rel=1e-2)


def test_spans_shrink_in_fp32_where_int8_gains_nothing() -> None:
    one = planner(Device(faster=1.0))
    planned = one.within(one.before_ms / 1.2)
    assert planned.plan.precision == "fp32"
    assert planned.plan.steps
    assert planned.plan.after_ms <= one.before_ms / 1.2


def test_both_together_go_further_than_each() -> None:
    most = {p: planner(precisions=(p,)).most for p in ("fp32", "int8")}
    one = planner()
    assert one.most == pytest.approx(max(most.values()))
    asked = 1.2 * max(1.5, most["fp32"])
    planned = one.within(one.before_ms / asked)
    assert planned.plan.precision == "int8"
    assert planned.plan.steps
    assert planned.plan.speedup >= asked


def test_the_damage_of_int8_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    one = planner()
    monkeypatch.setattr(
        Planner, "variants", [PrecisionVariant("fp32"), PrecisionVariant("int8", damage=1e9)]
    )
    assert one.within(one.before_ms / 1.2).plan.precision == "fp32"


def test_the_damage_of_int8_is_measured_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closed = replace(QUICK, cache=tmp_path)

    def asked() -> Planner:
        return prepare_planning(network(), some_images(), Device(), Planning(closed=closed))

    first = asked().variants
    assert [variant.precision for variant in first[:2]] == ["fp32", "int8"]
    assert first[1].damage > 0
    monkeypatch.setattr(judging, "prepare", None)
    assert asked().variants == first


def test_layers_that_int8_spoils_stay_fp32_and_are_paid_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = planner()
    spoilt = [op.name for op in lower(one.original).ops if isinstance(op, Conv)][3]
    kept = PrecisionVariant("int8", 0.01, Int8(keep_fp32=(spoilt,)))
    monkeypatch.setattr(
        Planner, "variants", [PrecisionVariant("fp32", 1e9), PrecisionVariant("int8", 1e9), kept]
    )
    planned = one.within(one.before_ms / 1.3)
    plan = planned.plan
    assert plan.precision == "int8"
    assert plan.keep_fp32 == (spoilt,)
    assert plan.after_ms <= one.before_ms / 1.3
    all_int8 = predicted_ms(planned.graph_module, Device(), "int8")
    layer = {x.name: x.ms for x in predict(lower(planned.graph_module), Device()).layers}[spoilt]
    conversions = 2 * 1e-3
    assert plan.after_ms == pytest.approx(all_int8 + layer * (1 - 1 / 1.5) + conversions)
    for name, content in plan_files(plan, planned.tensors).items():
        (tmp_path / name).write_bytes(content)
    again, tensors = read_plan(tmp_path)
    _, graph = replay(network(), again, tensors)
    int8 = stored_calibration(again, tensors)
    assert int8 is not None
    file = TFLITE.write_int8(int8.prepared(graph).quantisation, inputs()).data
    assert types_of(file)[spoilt] == "float32"
    wrong = again.model_copy(update={"keep_fp32": ("nowhere",)})
    with pytest.raises(LoadError, match="keeps 'nowhere' in fp32"):
        replay(network(), wrong, tensors)


def inputs() -> list[tuple[Tensor, ...]]:
    images = some_images(8)
    return [(x[None],) for x in images.inputs(images.pixels)]


def types_of(file: bytes) -> dict[str, str]:
    """Tensor of a TFLite file → type of its numbers."""
    runner = TFLITE.open(file)
    details = runner._it.get_tensor_details()
    return {x["name"]: np.dtype(x["dtype"]).name for x in details}


def test_a_target_without_int8_is_planned_in_fp32_and_says_so() -> None:
    one = planner(OnlyFp32())
    assert one.precisions == ("fp32",)
    assert one.notes[0] == "not planned in int8: device knows no int8"
    with pytest.raises(InputError, match="device knows no int8"):
        planner(OnlyFp32(), ("int8",))


def test_an_unreachable_budget_names_the_fastest_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(candidates, "measure", None)
    one = planner()
    with pytest.raises(InputError, match=f"the fastest is .* ms, {one.most:.2f}×"):
        one.within(one.before_ms / 1000)


def test_images_that_are_all_alike_are_noted() -> None:
    images = some_images()
    plain = replace(images, pixels=torch.full_like(images.pixels, 90))
    one = prepare_planning(network(), plain, Device(), Planning(closed=QUICK))
    colour, seen = one.notes
    assert colour.startswith("30 of 30 images have one colour each; a plan is fitted to them")
    assert "in 30 of 30 images; a plan is fitted to them" in seen
    graph = network()
    with torch.no_grad():  # random weights answer with one class
        graph.get_submodule("fc").weight.mul_(100)
        scores = scores_of(graph, images)
        graph.get_submodule("fc").bias.sub_(scores.mean(0))
    assert not prepare_planning(graph, images, Device(), Planning(closed=QUICK)).notes


def scores_of(graph: fx.GraphModule, images: Images) -> Tensor:
    with torch.no_grad():
        return graph(images.inputs(images.pixels))[0]


def test_images_that_judge_are_not_those_that_fit() -> None:
    one = planner()
    assert not set(one.judge.sample.indices) & set(one.judge.held.indices)
    assert len(one.judge.sample) + len(one.judge.held) == 40
    labels = torch.zeros(30, dtype=torch.long)
    other = planner(held_out=some_images(30, 1, labels))
    assert len(other.judge.sample) == 40
    promise = other.within(other.before_ms / 1.4).plan.promise
    assert promise is not None
    assert promise.images == 30
    assert promise.labelled


def test_a_frontier_gets_faster_from_the_network_as_it_is() -> None:
    one = planner()
    found = [planned.plan for planned in one.frontier(6)]
    assert found[0].precision == "fp32"
    assert not found[0].steps
    assert found[0].promise is not None
    assert found[0].promise.agreement == 1.0
    speeds = [plan.speedup for plan in found]
    assert speeds == sorted(speeds)
    assert len(found) >= 4
    with pytest.raises(InputError, match="a frontier of 2 points"):
        one.frontier(2)


def test_the_fastest_within_a_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    one = planner()

    def promise(_: Judge, graph: fx.GraphModule, precision: str) -> Promise:
        lost = 0.0 if precision == "fp32" else 0.01
        gone = len(list(one.original.graph.nodes)) - len(list(graph.graph.nodes))
        return promised(min(1.0, lost + 0.02 * gone))

    monkeypatch.setattr(Judge, "promise", promise)
    strict, loose = one.dropping(0.01), one.dropping(0.5)
    assert strict.plan.promise is not None
    assert strict.plan.promise.drop <= 0.01
    assert loose.plan.speedup > strict.plan.speedup >= 1.5 - 1e-3


def test_a_drop_may_hold_with_confidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every interval reaches 20 points beyond what was found."""
    one = planner()

    def promise(_: Judge, graph: fx.GraphModule, precision: str) -> Promise:
        gone = len(list(one.original.graph.nodes)) - len(list(graph.graph.nodes))
        lost = min(1.0, 0.03 * gone)
        return promised(lost).model_copy(update={"interval": (lost - 0.2, lost + 0.2)})

    monkeypatch.setattr(Judge, "promise", promise)
    plain, sure = one.dropping(0.25), one.dropping(0.25, confident=True)
    assert plain.plan.promise is not None
    assert sure.plan.promise is not None
    assert sure.plan.promise.interval[1] <= 0.25 < plain.plan.promise.interval[1]
    assert plain.plan.speedup > sure.plan.speedup > 1


def test_a_drop_is_looked_for_closer_where_it_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """The eight speedups alone leave a gap, in which there is a plan that keeps to it."""
    asked: list[float] = []

    def within(self: Planner, budget_ms: float) -> Planned:
        speedup = self.before_ms / budget_ms
        asked.append(speedup)
        told = {"after_ms": budget_ms, "promise": promised(speedup / 10)}
        found = Planned(base.model_copy(update=told), {}, self.original)
        self.finished.put(f"{budget_ms:.6g}", found)
        return found

    one = planner()
    points, base = one._speedups(8), planner().within(one.before_ms / 1.1).plan
    monkeypatch.setattr(Planner, "within", within)
    met = one.dropping(0.137).plan.speedup
    below = max(x for x in points if x <= 1.37)
    above = min(x for x in points if x > 1.37)
    assert below < met <= 1.37
    assert len(asked) <= 5
    assert max(asked[-2:]) < above


def test_what_bears_nothing_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    one = planner()
    lost = promised(0.5)
    monkeypatch.setattr(Judge, "promise", lambda *_: lost)
    planned = one.dropping(0.01)
    assert planned.plan.precision == "fp32"
    assert not planned.plan.steps
    assert any("stays as it is" in note for note in one.notes)


def replayed(planned: Planned, folder: Path) -> tuple[Plan, dict[str, Tensor]]:
    """Written and read; it leads to the same network, bit by bit."""
    for name, content in plan_files(planned.plan, planned.tensors).items():
        (folder / name).write_bytes(content)
    plan, tensors = read_plan(folder)
    assert plan == planned.plan
    _, again = replay(network(), plan, tensors)
    assert torch.equal(outputs(again), outputs(planned.graph_module))
    return plan, tensors


@pytest.mark.parametrize("speedup", [1.4, 2.2])
def test_a_plan_replays_bit_by_bit(speedup: float, tmp_path: Path) -> None:
    one = planner()
    planned = one.within(one.before_ms / speedup)
    replayed(planned, tmp_path)


def free_slices(one: Planner) -> Planner:
    """As if slicing channel groups did no damage, and all else did some: what the network's narrow
    spans lose is rounding, of either sign."""
    judged = one.candidates.judged
    for precision, slicings in judged.items():
        damages = dict.fromkeys(slicings.damages or {}, Damage(0.01, 1.0, 0.0))
        damages |= {choice.label: Damage(0.0, 1.0, 0.0) for choice in slicings.slices}
        whole = slicings.whole.judged([damages[choice.label] for choice in slicings.whole.found])
        judged[precision] = replace(slicings, whole=whole, damages=damages, _made={})
    return one


@pytest.mark.parametrize(("precision", "speedup"), [("fp32", 1.5), ("int8", 2.4)])
def test_plans_that_slice_channel_groups_replay_bit_by_bit(
    precision: str, speedup: float, tmp_path: Path
) -> None:
    one = free_slices(planner(precisions=(precision,)))
    candidates = one.chosen(one.before_ms / speedup)  # fitted, others may lose less
    sliced_first = min(candidates, key=lambda c: (not c.slicing.slices, c.damage))
    planned = one._planned(one._fitted(sliced_first))
    sliced = [step for step in planned.plan.steps if step.kind == "slice"]
    assert sliced
    assert all(len(s.kept) == s.channels < s.channels_before for s in sliced)
    assert planned.plan.speedup >= speedup
    plan, tensors = replayed(planned, tmp_path)
    step = sliced[0]
    for wrong in (
        {"source": "nowhere"},
        {"kept": (*step.kept[:-1], step.channels_before)},
        {"channels": step.channels - 1},
        {"channels": step.channels_before, "kept": tuple(range(step.channels_before))},
        {"channels": 0, "kept": ()},
    ):
        steps = [step.model_copy(update=wrong), *planned.plan.steps]
        for given in (steps[:1], steps):
            other = plan.model_copy(update={"steps": tuple(given)})
            with pytest.raises(LoadError, match="the plan cannot slice"):
                replay(network(), other, tensors)


def test_channel_groups_stay_where_they_are_not_asked_for() -> None:
    planning = Planning(closed=QUICK, groups=False)
    one = free_slices(prepare_planning(network(), some_images(), Device(), planning))
    steps = one.within(one.before_ms / 2).plan.steps
    assert steps
    assert "slice" not in {step.kind for step in steps}


@pytest.mark.usefixtures("harmless")
def test_only_changed_numbers_are_in_the_file() -> None:
    one = planner()
    only_int8 = one.within(one.before_ms / 1.4).tensors
    assert only_int8
    assert all(name.startswith("int8.") and name.endswith(".bias") for name in only_int8)
    planned = one.within(one.before_ms / 2.2)
    own = [name for name in planned.tensors if not name.startswith("int8.")]
    assert 0 < len(own) < len(planned.graph_module.state_dict())


def test_a_plan_for_another_network_is_refused() -> None:
    one = planner()
    planned = one.within(one.before_ms / 2.2)
    other = network()
    with torch.no_grad():
        next(other.parameters()).mul_(1.01)
    with pytest.raises(InputError, match="made for another network"):
        replay(other, planned.plan, planned.tensors)


def test_steps_and_numbers_that_do_not_fit_are_refused() -> None:
    one = planner()
    planned = one.within(one.before_ms / 2.2)
    first = planned.plan.steps[0]
    moved = first.model_copy(update={"source": "nowhere"})
    plan: Plan = planned.plan.model_copy(update={"steps": (moved,)})
    with pytest.raises(LoadError, match=r"cannot .* 'nowhere'"):
        replay(network(), plan, planned.tensors)
    name = next(iter(planned.tensors))
    wrong = {**planned.tensors, name: torch.zeros(1, 2, 3)}
    with pytest.raises(LoadError, match="do not fit"):
        replay(network(), planned.plan, wrong)


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = planner(folder=tmp_path)
    first = one.within(one.before_ms / 2.2)
    monkeypatch.setattr(planning_module, "untuned", None)  # nothing is fitted again
    again = planner(folder=tmp_path).within(one.before_ms / 2.2)
    assert again.plan == first.plan
    assert torch.equal(outputs(again.graph_module), outputs(first.graph_module))


def test_another_training_is_another_plan(tmp_path: Path) -> None:
    asked: list[str] = []
    for words in ("one epoch", "two epochs", "one epoch"):

        def train(fitted: fx.GraphModule, original: fx.GraphModule, w: str = words) -> Any:
            asked.append(w)
            return fitted

        planning = Planning(("fp32",), QUICK, training=words, folder=tmp_path)
        one = prepare_planning(network(), some_images(), Device(), planning, train=train)
        one.within(one.before_ms / 1.2)
    assert asked == ["one epoch", "two epochs"]


def test_training_comes_before_judging() -> None:
    trained: list[fx.GraphModule] = []

    def train(fitted: fx.GraphModule, original: fx.GraphModule) -> fx.GraphModule:
        with torch.no_grad():
            for parameter in fitted.parameters():
                parameter.mul_(1.5)
        trained.append(fitted)
        return fitted

    one = prepare_planning(
        network(), some_images(), Device(), Planning(("fp32",), QUICK), train=train
    )
    planned = one.within(one.before_ms / 1.2)
    assert len(trained) == 1
    _, again = replay(network(), planned.plan, planned.tensors)
    assert torch.equal(outputs(again), outputs(trained[0]))


def test_where_the_target_is_at_hand_plans_meet_the_budget_by_measuring(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Files that were changed take a tenth longer than the table says."""
    timed: list[bytes] = []

    def speedup(before: bytes, after: bytes, threads: int) -> float:
        timed.append(after)
        return before_ms / (1.1 * shapes[after])

    shapes: dict[bytes, float] = {}

    def file(graph: fx.GraphModule, *_: Any, **__: Any) -> bytes:
        ms = predicted_ms(graph, Device(), "fp32")
        shapes[f"{ms}".encode()] = ms
        return f"{ms}".encode()

    before_ms = planner().before_ms
    monkeypatch.setattr(file_timing, "alone_ms", lambda file, threads: before_ms)
    monkeypatch.setattr(file_timing, "host_file", file)
    monkeypatch.setattr(measuring, "host_file", file)
    monkeypatch.setattr(measuring, "speedup_of", speedup)
    one = planner(Device(target="host"), ("fp32",), tmp_path)
    planned = one.within(one.before_ms / 1.1)
    assert planned.plan.measured_speedup == pytest.approx(planned.plan.speedup / 1.1)
    assert 1.1 <= planned.plan.measured_speedup < 1.3
    assert len(set(timed)) == len(timed)  # the shape that was taken is not timed again
    count = len(timed)
    planner(Device(target="host"), ("fp32",), tmp_path).chosen(one.before_ms / 1.1)
    assert len(timed) == count
    assert planner(precisions=("fp32",)).within(before_ms / 1.1).plan.measured_speedup is None


def test_sums_of_operators_are_scaled_to_the_network_as_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter((7.0, 4.0))
    monkeypatch.setattr(file_timing, "alone_ms", lambda file, threads: next(times))
    for _ in range(2):  # the second knows from the first
        one = planner(Device(target="host"), folder=tmp_path)
        assert one.before_ms == pytest.approx(7)
        assert one.candidates.judged["int8"].whole.before_ms == pytest.approx(4)
    assert planner().before_ms != pytest.approx(7)


@pytest.mark.usefixtures("harmless")
def test_a_precision_that_the_table_finds_worse_is_not_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, asked = planner(), list[str]()

    def measured(variant: PrecisionVariant) -> None:
        asked.append(variant.precision)

    monkeypatch.setattr(one, "_measured", measured)
    one.chosen(one.before_ms / 1.4)  # int8 alone is enough
    assert asked == ["int8"]


# --- the last candidates, and what is known of others -------------------------------------------


def rivals(one: Planner, losses: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As if both precisions cost the same by the table; `losses`: of the fitted network. What is
    fitted in full, in turn."""
    known = [PrecisionVariant("fp32", 0.5), PrecisionVariant("int8", 0.5)]
    monkeypatch.setattr(Planner, "variants", known)
    made: list[str] = []
    plain = Planner._fitted

    def fitted(self: Planner, candidate: Any) -> Any:
        made.append(candidate.variant.precision)
        return plain(self, candidate)

    def loss(self: Judge, graph: fx.GraphModule, prepared: Any = None) -> float:
        return losses["fp32" if prepared is None else "int8"]

    monkeypatch.setattr(Planner, "_fitted", fitted)
    monkeypatch.setattr(Judge, "loss", loss)
    return made


@pytest.mark.parametrize(("int8", "taken"), [(0.2, "int8"), (3.0, "fp32")])
def test_of_the_last_candidates_the_one_that_loses_least_is_taken(
    int8: float, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quick fits lose 1 each, and what the precision costs alone; whatever is fitted first and
    turns out worse than that gives way."""
    one = planner()
    made = rivals(one, {"fp32": 1.0, "int8": int8}, monkeypatch)
    ranks = planning_module.ranked

    def int8_first(*given: Any) -> list[Any]:
        return sorted(ranks(*given), key=lambda row: row[1].variant.precision, reverse=True)

    monkeypatch.setattr(planning_module, "ranked", int8_first)
    plan = one.within(one.before_ms / 1.2).plan
    assert made[0] == "int8"
    assert plan.precision == taken
    assert ("fp32" in made) == (taken == "fp32")


def test_quick_fits_tell_which_candidate_is_nearest() -> None:
    """Against the judgement of all, fitted in full; of so fast a network that more than rounding is
    lost."""
    one = planner(Device(faster=1.0), ("fp32",))
    found = one.chosen(one.before_ms / 2.4)
    starts = {p: start.graph_module for p, start in one.candidates.starts.items()}
    rows = finalists.ranked(found, starts, one.judge, one.progress)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    for quick, candidate in rows:
        full = one.judge.loss(one._planned(one._fitted(candidate)).graph_module)
        assert full == pytest.approx(quick, rel=0.5)


def test_no_plan_loses_more_than_a_faster_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where the faster one was made by another run in the same folder."""
    drops = iter([0.3, 0.1, 0.2])
    monkeypatch.setattr(Judge, "promise", lambda *_: promised(next(drops, 0.9)))
    one = planner(precisions=("fp32",), folder=tmp_path)
    slow, fast = (one.within(one.before_ms / speedup).plan for speedup in (1.1, 1.4))
    assert slow.speedup < fast.speedup
    again = planner(precisions=("fp32",), folder=tmp_path)
    assert again.within(one.before_ms / 1.1).plan == fast
    assert again.within(one.before_ms / 1.2).plan == fast
    assert again.dropping(0.15).plan == fast


def test_a_frontier_holds_nothing_that_is_slower_and_loses_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drops = iter([0.0, 0.1, 0.3, 0.2, 0.4, 0.5])
    monkeypatch.setattr(Judge, "promise", lambda *_: promised(next(drops)))
    found = [planned.plan for planned in planner(precisions=("fp32",)).frontier(6)]
    lost = [plan.promise.drop for plan in found if plan.promise is not None]
    assert len(lost) == len(found) >= 3
    assert 0.3 not in lost
    assert lost == sorted(lost)


def test_a_failed_correction_loses_no_way_in_silence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Int8 files gain nothing until nearly all that can go has gone."""

    def one_for(target: str) -> Planner:
        planning = Planning(closed=QUICK, folder=tmp_path / target, groups=False)
        return prepare_planning(network(), some_images(), Device(target=target), planning)

    table = one_for("device")
    before_ms, priced = table.before_ms, table.candidates.priced
    least = {p: b.whole.before_ms - b.whole.most for p, b in priced.items()}
    monkeypatch.setattr(Planner, "variants", [PrecisionVariant("fp32"), PrecisionVariant("int8")])

    def speedup(_: Any, graph: fx.GraphModule, variant: PrecisionVariant) -> float:
        ms = predicted_ms(graph, Device(), variant.precision)
        if variant.precision == "int8" and ms > needed:
            ms = 0.9 * before_ms
        return before_ms / ms

    needed = 1.05 * least["int8"]
    monkeypatch.setattr(file_timing.FileTiming, "speedup", speedup)
    monkeypatch.setattr(file_timing.FileTiming, "factors", lambda *_: {"fp32": 1.0, "int8": 1.0})
    one = one_for("host")
    budget = (least["int8"] + least["fp32"]) / 2
    assert least["int8"] < budget < least["fp32"]
    assert {c.variant.precision for c in one.chosen(budget)} == {"int8"}
    needed = 0.0  # nothing helps: then fp32 it is, and the notes say why
    budget = (least["fp32"] + before_ms) / 2
    assert {c.variant.precision for c in one.chosen(budget)} == {"fp32"}
    assert any(note.startswith("int8: no plan was measured within") for note in one.notes)
    with pytest.raises(InputError, match=r"int8: no plan was measured within .* the fastest took"):
        one.chosen(0.5 * least["int8"])


@pytest.mark.usefixtures("harmless")
def test_a_way_that_misses_is_asked_for_as_much_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files take 1.5 times what the table says."""
    one, asked = planner(), list[float]()
    budget = one.before_ms / 1.2
    variant = PrecisionVariant("int8")

    def by_table(budget_ms: float, variants: Any) -> list[Any]:
        asked.append(budget_ms)

        def within(wanted_ms: float, _: Any) -> list[int]:
            if 1.5 * budget_ms > 1.0001 * wanted_ms:
                error = UnreachableGoalError("too slow")
                error.fastest_ms = 1.5 * budget_ms
                raise error
            return [0]

        plans = SimpleNamespace(within=within, damage=lambda _: 0.1)
        return [(0.1, v, SimpleNamespace(plans=plans, damage=0.0)) for v in variants]

    monkeypatch.setattr(Planner, "variants", [variant])
    monkeypatch.setattr(one, "by_table", by_table)
    (found,) = one.chosen(budget)
    assert found.variant is variant
    assert asked == [budget, pytest.approx(budget / 1.5)]
