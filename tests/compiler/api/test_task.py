"""Outputs that are no classes, from the call to the report."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import shrinkc
from shrinkc import Goal
from shrinkc.compiler.api.plan import Planned
from shrinkc.compiler.report.html.sections.verdict import verdict
from shrinkc.errors import InputError

SIZE = 12
X = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def images(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 3, 3, generator=generator)
    fine = 0.3 * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    return F.interpolate(coarse, size=SIZE, mode="bilinear") + fine


class TwoHeads(nn.Module):
    """Four numbers, and a map that takes most of the time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.head = nn.Conv2d(3, 16, 3, 1, 1), nn.Linear(16, 4)
        self.deep = nn.Sequential(*(nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU()))
        self.map = nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 2, 3, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x).relu()
        return self.head(x.mean((2, 3))), self.map(self.deep(x))


@pytest.fixture(scope="module")
def planned() -> Planned:
    seen = images(60, 1)
    goal = Goal.speedup(1.25)
    return shrinkc.plan(
        TwoHeads().eval(), X, target="rpi4", goal=goal, images=seen, precision="fp32", runs=0
    )


def test_every_output_is_promised_and_counted(planned: Planned) -> None:
    promise = planned.plan.promise
    assert (promise.drop, promise.agreement, len(promise.outputs)) == (None, None, 2)
    others = images(60, 2)
    with torch.no_grad():
        want, got = TwoHeads().eval()(others), planned(others)
    for w, g, output in zip(want, got, promise.outputs, strict=True):
        error = float((g - w).square().mean() / w.var(correction=0))
        low, high = output.interval
        assert low / 1.5 <= error <= 1.5 * high
        assert output.worst >= output.error * 0.5
    assert promise.outputs[1].error > 1e-4  # where the time went, and what was lost
    assert all(step.agreement is None for step in planned.plan.steps)
    assert "error over variance is output 1: " in planned.summary()


def test_files_are_judged_beside_the_model(planned: Planned) -> None:
    report = planned.report
    assert report.task.name == "regression"
    in_torch = report.in_torch.errors[1].value
    assert in_torch > 1e-4
    for file in report.artefacts:
        assert file.agreement is None
        assert file.max_relative_error < 1e-4
        assert file.errors[1].value == pytest.approx(in_torch, rel=1e-2)
    said = verdict(report.to_json())
    assert "beside your model its error over variance is output 1: " in said
    assert "with 95% confidence" in said
    assert "15 images that it was not fitted to" in said


def test_points_of_what_has_none_are_refused() -> None:
    with pytest.raises(InputError, match=r"`max_drop` counts points of R², .*`max_error`"):
        shrinkc.plan(
            TwoHeads().eval(), X, target="rpi4", goal=Goal.max_drop(1), images=images(8, 1)
        )


def test_the_fastest_within_an_error() -> None:
    seen, others = images(32, 1), images(60, 2)
    given = {"target": "rpi4", "images": seen, "evaluation": others, "runs": 0}
    strict, loose = (
        shrinkc.plan(
            TwoHeads().eval(), X, goal=Goal.max_error(most), precision="fp32", **given
        ).plan
        for most in (1e-3, 0.5)
    )
    assert loose.speedup > strict.speedup
    for plan, most in ((strict, 1e-3), (loose, 0.5)):
        assert max(output.worst_interval[1] for output in plan.promise.outputs) <= most


def test_sensitivity_is_of_every_output() -> None:
    """What only the second output reads is not free to prune."""
    net, seen = TwoHeads().eval(), images(64, 1)
    found = shrinkc.sensitivity(net, X, images=seen)
    assert found.judged == "R² against the original"
    of_map = next(curve for curve in found.curves if curve.group.startswith("map"))
    assert of_map.values[-1] < 0.99


def test_a_user_may_say_what_it_is() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    told = shrinkc.compile(net, X, target="rpi4", images=images(8, 1), runs=0).report
    assert (told.task.name, told.artefacts[0].agreement) == ("regression", None)
    classes = shrinkc.Classification()
    said = shrinkc.compile(net, X, target="rpi4", images=images(8, 1), task=classes, runs=0).report
    assert (said.task.name, said.artefacts[0].agreement) == ("classification", 1.0)
