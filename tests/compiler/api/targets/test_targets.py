"""One network for several targets: a plan each, or one that keeps to the goal on all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import mobilenet_v2
from torch import nn

import shrinkc
from shrinkc import Goal, ShrinkcError
from shrinkc.compiler.api.targets.many import PlannedFor, target_names
from shrinkc.compiler.plan import planner
from shrinkc.compiler.plan.judging import Judge
from shrinkc.compiler.report.html.comparison import PAGE
from shrinkc.errors import UnreachableGoalError

X = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
TARGETS = ("rpi4", "v100")  # one is bound by arithmetic, the other by launching kernels
GIVEN: dict[str, Any] = {"images": IMAGES, "precision": "fp32", "runs": 0}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return mobilenet_v2()


@pytest.fixture(scope="module")
def each(model: nn.Module) -> PlannedFor:
    return shrinkc.plan_for(model, X, targets=TARGETS, goal=Goal.speedup(1.3), **GIVEN)


def ms(planned: nn.Module, target: str) -> float:
    """Of the planned network on any target."""
    return shrinkc.estimate(planned, X, target=target).total_ms


def test_each_target_has_the_plan_that_it_has_alone(model: nn.Module, each: PlannedFor) -> None:
    assert list(each) == list(TARGETS)
    for target in TARGETS:
        alone = shrinkc.plan(model, X, target=target, goal=Goal.speedup(1.3), **GIVEN)
        assert each[target].plan == alone.plan
        assert each[target].files["model.tflite"] == alone.files["model.tflite"]
    assert each["rpi4"].plan.steps != each["v100"].plan.steps


def test_each_has_a_folder_beside_the_page_that_compares(each: PlannedFor, tmp_path: Path) -> None:
    each.save(tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {*TARGETS, PAGE}
    assert {p.name for p in (tmp_path / "out" / "v100").iterdir()} >= {"plan.json", "report.html"}
    page = (tmp_path / "out" / PAGE).read_text()
    for target, planned in each.items():
        assert f'href="{target}/report.html"' in page
        assert f"{planned.plan.speedup:.2f}×" in page


def test_the_originals_answers_are_computed_once(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    judges: list[object] = []
    promise = Judge.promise

    def watched(self: Judge, *given: Any) -> Any:
        judges.append(self)
        return promise(self, *given)

    monkeypatch.setattr(Judge, "promise", watched)
    shrinkc.plan_for(model, X, targets=TARGETS, goal=Goal.speedup(1.3), **GIVEN)
    assert len(judges) > 1
    assert len(set(map(id, judges))) == 1


def test_the_worst_case_keeps_to_the_goal_everywhere(model: nn.Module, each: PlannedFor) -> None:
    """Where the plan for one target alone does not."""
    before = {target: shrinkc.estimate(model, X, target=target).total_ms for target in TARGETS}
    goal = 1.3
    assert before["rpi4"] / ms(each["v100"], "rpi4") < 0.9 * goal
    one = shrinkc.plan_worst_case(model, X, targets=TARGETS, goal=Goal.speedup(goal), **GIVEN)
    assert list(one.on) == list(TARGETS)
    assert any(one.plan.after_ms == pytest.approx(t.after_ms) for t in one.on.values())
    for target, times in one.on.items():
        assert times.speedup >= goal
        assert times.before_ms == pytest.approx(each[target].plan.before_ms)
        assert f"{target}: " in " ".join(one.report.notes)


def test_milliseconds_are_the_same_for_all(model: nn.Module) -> None:
    """A target that keeps to them as it is asks for nothing."""
    before = {t: shrinkc.estimate(model, X, target=t).total_ms for t in ("rpi4", "rpi5")}
    assert before["rpi5"] < 0.9 * before["rpi4"]
    asked = Goal.budget_ms(0.9 * before["rpi4"])
    one = shrinkc.plan_worst_case(model, X, targets=list(before), goal=asked, **GIVEN)
    assert max(times.after_ms for times in one.on.values()) <= asked.value
    with pytest.raises(ShrinkcError, match="fit into"):
        shrinkc.plan_worst_case(
            model, X, targets=list(before), goal=Goal.budget_ms(2 * before["rpi4"]), **GIVEN
        )


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ([], "`targets` is empty"),
        ("rpi4", "`targets` is one target"),
        (["rpi4", "rpi4"], "rpi4 more than once"),
        (["rpi4", "no such"], "unknown target"),
        ([1], "`target`"),
    ],
)
def test_targets_that_are_none(model: nn.Module, targets: Any, said: str) -> None:
    for function in (shrinkc.plan_for, shrinkc.plan_worst_case):
        with pytest.raises(ShrinkcError, match=said):
            function(model, X, targets=targets, goal=Goal.speedup(1.1), **GIVEN)


def test_the_worst_case_refuses_what_it_cannot_keep(model: nn.Module) -> None:
    for targets, goal, said in (
        (["rpi4"], Goal.speedup(1.1), "two or more"),
        (["rpi4", "host"], Goal.speedup(1.1), "host"),
        (["rpi4", "rpi5"], Goal.max_drop(1.0), "max_drop"),
    ):
        with pytest.raises(ShrinkcError, match=said):
            shrinkc.plan_worst_case(model, X, targets=targets, goal=goal, **GIVEN)


def test_a_goal_out_of_reach_names_its_target_before_anything_is_fitted(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "untuned", None)
    for function in (shrinkc.plan_for, shrinkc.plan_worst_case):
        with pytest.raises(UnreachableGoalError, match=r"rpi4|v100"):
            function(model, X, targets=TARGETS, goal=Goal.speedup(500), **GIVEN)


def test_tables_of_one_runtime_have_folders_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "board").mkdir()
    given = ["rpi4/tflite-ruy", "odroid-n2/tflite-ruy", str(tmp_path / "board")]
    assert target_names(given) == dict(
        zip(("rpi4-tflite-ruy", "odroid-n2-tflite-ruy", "board"), given, strict=True)
    )
