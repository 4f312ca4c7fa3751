"""What a network costs before anything is done is one number, whoever is asked; what is exact is
done first, and what is promised is what the files are predicted to take."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hand_built import randomise
from small_networks import Classifier, InvertedResidual, RepVgg
from torch import nn

import shrinkc
from shrinkc import Goal

X = torch.zeros(1, 3, 32, 32)
IMAGES = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@cache
def model() -> nn.Module:
    """Branches that merge, and a block that does not."""
    torch.manual_seed(0)
    net = Classifier(RepVgg(3, 16, 2), RepVgg(16, 16), InvertedResidual(16, 16), channels=16)
    for part in net.modules():
        if not list(part.children()):
            randomise(part, torch.Generator().manual_seed(0))
    return net.eval()


def asked(command: str, precision: str, speedup: float) -> Any:
    options: dict[str, Any] = {"target": "rpi4", "images": IMAGES, "precision": precision}
    if command == "compile":
        return shrinkc.compile(model(), X, runs=0, **options)
    if command == "shrink":
        options["steps"] = 1
    run: Callable[..., Any] = getattr(shrinkc, command)
    return run(model(), X, goal=Goal.speedup(speedup), runs=0, **options)


@cache
def compiled(precision: str) -> tuple[float, float]:
    """Milliseconds before and after."""
    report = asked("compile", precision, 1).report
    return report.predicted_before.total_ms, report.predicted_after.total_ms


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("command", ["plan", "prune", "shrink"])
def test_before_is_one_number_and_a_speedup_is_over_it(command: str, precision: str) -> None:
    before, exact = compiled(precision)
    assert exact < before
    speedup = 1.08 * before / exact  # more than what costs nothing
    result = asked(command, precision, speedup)
    own = result.plan if command == "plan" else result
    report = result.report
    assert own.before_ms == pytest.approx(before, rel=1e-9)
    assert report.predicted_before.total_ms == pytest.approx(before, rel=1e-9)
    assert report.predicted_after.total_ms == pytest.approx(own.after_ms, rel=1e-9)
    assert speedup <= own.speedup == own.before_ms / own.after_ms
    assert own.speedup <= 1.25 * speedup  # steps of eight channels


@pytest.mark.parametrize("command", ["plan", "prune", "shrink"])
def test_what_is_exact_comes_before_what_costs_accuracy(command: str) -> None:
    before, exact = compiled("fp32")
    result = asked(command, "fp32", 0.98 * before / exact)
    own = result.plan if command == "plan" else result
    assert own.after_ms == pytest.approx(exact, rel=1e-9)
    with torch.no_grad():
        got, want = result(IMAGES), model()(IMAGES)
    assert torch.allclose(got, want, atol=1e-4 * float(want.abs().max()))
