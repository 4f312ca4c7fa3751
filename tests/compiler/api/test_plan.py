"""`shrinkc.plan`, `apply` and `shrink`: one plan and one shrunk network, looked at from all
sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ray_double import FakeRay, installed
from small_networks import Classifier, InvertedResidual, conv, mobilenet_v2
from torch import nn
from untouched import small, untouched

import shrinkc
from shrinkc import Goal, Recipe, ShrinkcError
from shrinkc.compiler.api.plan import Planned
from shrinkc.compiler.api.shrink import Shrunk
from shrinkc.compiler.recover import distil
from shrinkc.compiler.support.disk.cache import nothing_kept

X = torch.randn(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(24, 3, 20, 20, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(24) % 5
FASTER = Goal.speedup(1.05)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return mobilenet_v2()


def planned_of(model: nn.Module, **options: Any) -> Planned:
    given: dict[str, Any] = {"target": "rpi4", "images": IMAGES, "goal": FASTER, "runs": 0}
    return shrinkc.plan(model, X, **{**given, **options})


def shrunk_of(model: nn.Module, **options: Any) -> Shrunk:
    given: dict[str, Any] = {"target": "rpi4", "images": IMAGES, "goal": FASTER, "runs": 0}
    return shrinkc.shrink(model, X, **{**given, **options})


@pytest.fixture(scope="module")
def planned(model: nn.Module) -> Planned:
    with untouched(model):
        return planned_of(
            model,
            precision="fp32",
            evaluation=((x, int(y)) for x, y in zip(IMAGES, LABELS, strict=True)),
        )


@pytest.fixture(scope="module")
def shrunk(model: nn.Module) -> Shrunk:
    with untouched(model):
        return shrunk_of(model, steps=2, evaluation=(IMAGES, LABELS))


def test_a_plan_is_made_and_judged(planned: Planned) -> None:
    assert planned.plan.speedup >= 1.05
    assert planned.judged is not None
    assert planned.judged.images == 24  # a generator is read once
    assert planned.judged.original_top1 is not None
    assert {"plan.json", "plan.safetensors", "model.tflite"} <= set(planned.files)
    assert not planned.training
    torch.testing.assert_close(planned.compiled(X), planned(X))  # pyright: ignore


def test_choices_are_measured_side_by_side(
    model: nn.Module, planned: Planned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    given = {"precision": "fp32", "evaluation": (IMAGES, LABELS)}
    with nothing_kept(), installed(monkeypatch, FakeRay(1, 1)) as ray:
        beside = planned_of(model, **given, recipe=Recipe(parallel="ray"))
        assert len(ray.jobs) > 2
    steps = [(step.kind, step.source, step.channels) for step in planned.plan.steps]
    assert [(step.kind, step.source, step.channels) for step in beside.plan.steps] == steps


def test_it_is_applied_again(model: nn.Module, planned: Planned, tmp_path: Path) -> None:
    planned.save(tmp_path)
    for path in (str(tmp_path), tmp_path / "plan.json"):
        with untouched(model):
            again = shrinkc.apply(model, path, X, runs=0)
        assert torch.equal(again(X), planned(X))
        assert again.files["model.tflite"] == planned.files["model.tflite"]
    with pytest.raises(ShrinkcError, match="made for another network"):
        shrinkc.apply(small(8), tmp_path, X, runs=0)
    with pytest.raises(ShrinkcError, match="`plan` is a Planned; give a path"):
        shrinkc.apply(model, planned, X)  # pyright: ignore


@pytest.mark.parametrize("made", ["planned", "shrunk"])
def test_a_result_trains_and_is_compiled_again(made: str, request: pytest.FixtureRequest) -> None:
    result: Planned | Shrunk = request.getfixturevalue(made)
    kept = {name: x.clone() for name, x in result.state_dict().items()}
    optimiser = torch.optim.SGD(result.train().parameters(), 0.1)
    F.cross_entropy(result(IMAGES), LABELS).backward()
    assert all(p.grad is not None for p in result.parameters())
    optimiser.step()
    with untouched(result):
        again = shrinkc.compile(result, X, target="rpi4", runs=0)
    torch.testing.assert_close(again(X), result.eval()(X))
    with pytest.raises(ShrinkcError, match="trained since its files were made"):
        result.save("never")
    optimiser.zero_grad()
    result.load_state_dict(kept)  # as the other tests know it
    torch.testing.assert_close(result.compiled(X), result(X))  # pyright: ignore


def test_a_shrunk_network_is_pruned(shrunk: Shrunk) -> None:
    assert shrunk.speedup >= 1.05
    with untouched(shrunk):
        found = shrinkc.prune(shrunk, X, goal=Goal.macs(0.9))
    assert found(X).shape == (1, 5)


BOTH: list[tuple[dict[str, Any], str]] = [
    ({"images": None}, "`images` are needed"),
    ({"images": IMAGES[:0]}, "`images` holds a tensor that is empty"),
    ({"images": IMAGES[:1]}, "`images` holds a single one; give 2 or more"),
    ({"goal": None}, "give exactly one of `speedup`, `budget_ms`"),
    ({"goal": "speedup"}, "`goal` is a str; give one such as Goal.speedup"),
    ({"goal": 2}, "`goal` is a int"),
    ({"goal": Goal.macs(0.5)}, "`macs` cannot be the goal here"),
    ({"precision": "int4"}, "`precision` int4"),
    ({"target": 3}, "`target` is a int"),
    ({"threads": 0}, "`threads` 0"),
    ({"runs": -1}, "`runs` -1"),
    ({"task": "classification"}, "`task` is a str"),
    ({"folder": "/proc/none/kept"}, "`folder` .* cannot be made"),
    ({"evaluation": "none"}, "check `evaluation`"),
    ({"evaluation": iter([])}, "`evaluation` gave no images; a generator can be read only once"),
    ({"evaluation": (IMAGES, LABELS + 5)}, "`evaluation` has the label 9"),
    ({"train": "none"}, "check `train`"),
]
SHRINKING: list[tuple[dict[str, Any], str]] = [
    ({"method": "x"}, "`method` x: give one of"),
    ({"method": "depthshrinker"}, "learns from labels; give `train`"),
    ({"method": "depthshrinker", "steps": 3}, "`steps` belongs to closed-form"),
    ({"labels": True}, "`labels`: the `images` have none"),
    ({"steps": "2"}, "`steps` '2'"),
    ({"steps": -1}, "`steps` -1"),
    ({"options": 3}, "`options` is a int; give a Trained"),
]


@pytest.mark.parametrize(("options", "message"), [*BOTH, ({"recipe": 3}, "`recipe` is a int")])
def test_plans_that_cannot_be_made(model: nn.Module, options: Any, message: str) -> None:
    with untouched(model), pytest.raises(ShrinkcError, match=message) as caught:
        planned_of(model, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("options", "message"), [*BOTH, *SHRINKING])
def test_shrinking_that_cannot_be_done(model: nn.Module, options: Any, message: str) -> None:
    with untouched(model), pytest.raises(ShrinkcError, match=message) as caught:
        shrunk_of(model, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("points", [0, 2.5, "3", None])
def test_points_of_a_frontier(model: nn.Module, points: Any) -> None:
    with pytest.raises(ShrinkcError, match="`points`"):
        shrinkc.frontier(model, X, points=points, target="rpi4", images=IMAGES)


class OneAtATime(nn.Module):
    """Writes into its output, so that it can only be exported, for the batch that it is given."""

    def __init__(self) -> None:
        super().__init__()
        block = InvertedResidual(8, 8, expansion=6)
        self.network = Classifier(conv(3, 8, 3, 2), nn.ReLU6(), block, channels=8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.network(x)
        written = torch.zeros_like(y)
        written[:, 0] = y[:, 0]
        written[:, 1] = y[:, 1] * 2
        return written.reshape(len(x), -1)


def test_what_takes_one_sample_at_a_time_is_fitted_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distil, "STEPS", (4, 8))  # of 16 images, one after the other
    torch.manual_seed(0)
    network = OneAtATime().eval()
    graph = shrinkc.capture(network, X)
    assert not graph.meta["dynamic_batch"]
    planned = shrinkc.plan(
        graph, X, target="rpi4", images=IMAGES, goal=FASTER, precision="fp32", runs=0
    )
    assert planned.plan.promise is not None
    assert planned.plan.speedup >= 1.05
    pruned = shrinkc.prune(network, X, goal=Goal.channels(0.8), images=IMAGES, criterion="he")
    assert pruned(X).isfinite().all()
    with pytest.raises(ShrinkcError, match="takes batches of 2 only"):
        shrinkc.plan(network, IMAGES[:2], target="rpi4", images=IMAGES, goal=FASTER, runs=0)
    with pytest.raises(ShrinkcError, match="batches of one size only cannot be trained"):
        planned_of(graph, train=(IMAGES, LABELS), precision="fp32")


def test_what_cannot_be_reached_names_what_can(model: nn.Module) -> None:
    with pytest.raises(shrinkc.errors.UnreachableGoalError, match="the fastest is") as told:
        planned_of(model, goal=Goal.speedup(50), precision="fp32")
    fastest = told.value.fastest_ms
    assert fastest is not None
    reached = planned_of(model, goal=Goal.budget_ms(1.03 * fastest), precision="fp32")
    assert reached.plan.after_ms <= 1.03 * fastest
