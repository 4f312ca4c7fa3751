"""Plans start from the network that the plain compile leaves: never slower, never less exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from by_macs import ByMacs
from small_networks import NETWORKS, Classifier, InvertedResidual, RepVgg, conv, folded
from torch import Tensor, fx, nn

from shrinkc.compiler.cost.budget import predicted_ms, price_of
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.depth.closed_form import ClosedForm
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.pipeline.deployed import merge_passes, merged
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.plan.finished_plans import Planned
from shrinkc.compiler.plan.plan_file import plan_files, read_plan
from shrinkc.compiler.plan.planner import Planner, Planning, prepare_planning
from shrinkc.compiler.plan.replay import replay
from shrinkc.compiler.recover.distil import Tuning
from shrinkc.compiler.recover.rebuild_span import Rebuilding
from shrinkc.errors import LoadError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.table import OpEstimate

SIZE = 16
QUICK = ClosedForm(rebuilding=Rebuilding(steps=0), tuning=Tuning(steps=0))


class Int8Pays(ByMacs):
    """Twice as fast in int8."""

    def estimate(self, key: OpKey) -> OpEstimate:
        known = super().estimate(key)
        return replace(known, ms=known.ms / (2 if key.precision == "int8" else 1))


def branches() -> nn.Module:
    """Three branches each that merge into one, and an inverted residual."""
    parts = (
        RepVgg(3, 8, 2),
        RepVgg(8, 8),
        InvertedResidual(8, 8),
        RepVgg(8, 12, 2),
        RepVgg(12, 12),
    )
    return Classifier(*parts, channels=12)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "branches": branches,
    "mobilenet_v2": NETWORKS["mobilenet_v2"],
    "thin": lambda: Classifier(
        *(conv(3, 8, 3, 2), nn.ReLU(), conv(8, 16, 1), conv(16, 8, 1), nn.ReLU(), conv(8, 8, 3)),
        channels=8,
    ),
}


@cache
def network(name: str) -> fx.GraphModule:
    return folded(MODELS[name](), size=SIZE, batch=1).float()


def images() -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (24, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
    return Images(pixels, None, (0.5,), (0.25,))


def planner(name: str, precisions: tuple[str, ...] = ("fp32",)) -> Planner:
    return prepare_planning(
        network(name), images(), Int8Pays(), Planning(precisions, QUICK, sets=1)
    )


def compiled_ms(name: str, precision: str = "fp32") -> float:
    """What the plain compile leaves, all passes run for themselves."""
    passes = merge_passes(price_of(Int8Pays(), precision))
    return predicted_ms(run_exact_passes(network(name), passes)[0].float(), Int8Pays(), precision)


def outputs(graph: fx.GraphModule) -> Tensor:
    some = images()
    with torch.no_grad():
        return torch.cat([graph(x[None])[0] for x in some.inputs(some.pixels[:6])])


@pytest.mark.parametrize("name", MODELS)
def test_no_plan_is_dominated_by_the_plain_compile(name: str) -> None:
    one = planner(name)
    exact_ms = compiled_ms(name)
    assert exact_ms < one.before_ms or name == "mobilenet_v2"
    for speedup in (1.0, one.before_ms / exact_ms, 1.1 * one.before_ms / exact_ms):
        planned = one.within(one.before_ms / speedup)
        plan = planned.plan
        assert plan.before_ms == pytest.approx(predicted_ms(network(name), Int8Pays()))
        assert plan.after_ms <= exact_ms * (1 + 1e-9)
        assert plan.after_ms == pytest.approx(predicted_ms(planned.graph_module, Int8Pays()))
        if speedup <= one.before_ms / exact_ms:
            assert {step.kind for step in plan.steps} <= {"exact"}
            assert plan.promise is not None
            assert plan.promise.drop == 0
            error = (outputs(planned.graph_module) - outputs(network(name))).abs().max()
            assert error < 1e-4 * outputs(network(name)).abs().max()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_merging_saves_is_not_asked_of_choices(precision: str) -> None:
    one = planner("branches", (precision,))
    exact_ms = compiled_ms("branches", precision)
    planned = one._planned(one._fitted(one.chosen(0.9 * exact_ms)[0]))
    assert planned.plan.after_ms == pytest.approx(0.9 * exact_ms, rel=0.1)
    assert planned.plan.after_ms <= 0.9 * exact_ms
    kinds = [step.kind for step in planned.plan.steps]
    assert kinds.count("exact") == len(one.candidates.starts[precision].merges) > 0
    assert kinds[: kinds.count("exact")] == ["exact"] * kinds.count("exact")
    assert len(kinds) > kinds.count("exact")


def written(planned: Planned, folder: Path) -> Path:
    for name, content in plan_files(planned.plan, planned.tensors).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("share", [1.0, 0.8])
def test_exact_merges_replay_bit_by_bit(share: float, tmp_path: Path) -> None:
    one = planner("branches")
    planned = one.within(share * compiled_ms("branches"))
    plan, tensors = read_plan(written(planned, tmp_path))
    again = replay(network("branches"), plan, tensors)[1]
    assert torch.equal(outputs(again), outputs(planned.graph_module))
    steps = (plan.steps[0].model_copy(update={"source": plan.steps[0].sink}), *plan.steps[1:])
    with pytest.raises(LoadError, match="the plan cannot merge"):
        replay(network("branches"), plan.model_copy(update={"steps": steps}), tensors)


def test_precisions_that_merge_the_same_share_what_is_measured() -> None:
    starts = planner("branches", ("fp32", "int8")).candidates.starts
    assert starts["fp32"].graph_module is starts["int8"].graph_module


@pytest.mark.parametrize("name", MODELS)
def test_merges_name_their_ends_and_what_they_save(name: str) -> None:
    graph, table = network(name), ByMacs()
    found = merged(graph, price_of(table, "fp32"))
    saved = predicted_ms(graph, table) - predicted_ms(found.graph_module, table)
    assert saved == pytest.approx(sum(one.saving_ms for one in found.merges))
    assert all(one.saving_ms > 0 for one in found.merges)
    assert found.merges or found.graph_module is graph


def test_the_fastest_point_of_what_is_exact_is_the_first_of_a_frontier() -> None:
    first = planner("branches").frontier(4)[0].plan
    assert first.after_ms == pytest.approx(compiled_ms("branches"))
    assert {step.kind for step in first.steps} == {"exact"}


def test_a_goal_that_is_met_exactly_costs_nothing() -> None:
    one = planner("branches")
    speedup = 0.99 * one.before_ms / compiled_ms("branches")
    assert speedup > 1
    plan = one.reach(Goal.speedup(speedup)).plan
    assert plan.promise is not None
    assert plan.promise.drop == 0
