"""`shrinkc MODEL --speedup S | --budget-ms B | --max-drop P | --pareto N`, and `shrinkc apply`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import fx

from shrinkc.compiler.api.steps.changed_network import (
    Changed,
    compile_changed,
    plan_section,
    training_images,
    work_folder,
)
from shrinkc.compiler.api.steps.request import CompileArguments
from shrinkc.compiler.cli.output import print_json
from shrinkc.compiler.cli.show.plan import show_frontier, show_plan
from shrinkc.compiler.cli.show.report import report as show_report
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.images.preprocessing import Preprocessing
from shrinkc.compiler.plan.finished_plans import Planned
from shrinkc.compiler.plan.plan_file import Plan, plan_files
from shrinkc.compiler.plan.planner import Planner
from shrinkc.compiler.plan.replay import stored_calibration
from shrinkc.compiler.recover.recipe import Recipe
from shrinkc.compiler.recover.retrain import retrain
from shrinkc.compiler.report.report import Report
from shrinkc.compiler.report.sections import FrontierPoint, PlanSection, Sections
from shrinkc.compiler.support.progress import Progress
from shrinkc.passes.base import Skip


@dataclass(frozen=True)
class PlanArguments:
    """The command line, as given; `compile.images` are what plans are fitted to.

    precision   fp32, int8, or None: whichever is better
    evaluation  other images, that plans are judged on
    train       images to train on after the fits, labelled by folders; `recipe`: how
    pareto      points of a frontier, instead of a goal
    """

    compile: CompileArguments
    goal: Goal | None
    precision: str | None
    evaluation: Path | None
    train: Path | None = None
    recipe: Recipe = field(default_factory=Recipe)
    pareto: int | None = None


def _training(
    a: PlanArguments, preprocessing: Preprocessing, out: Path, reporter: Progress
) -> Callable[[fx.GraphModule, fx.GraphModule], fx.GraphModule]:
    """Batch norms put back, self-distillation from the original, as `shrinkc shrink` does."""
    images = training_images(a.compile, a.train, preprocessing, out, reporter)
    folder = work_folder(out)

    def train(fitted: fx.GraphModule, original: fx.GraphModule) -> fx.GraphModule:
        return retrain(fitted, original, images, a.recipe, folder, reporter)

    return train


@dataclass(frozen=True, eq=False)
class _Work:
    a: PlanArguments
    planner: Planner
    shapes: list[tuple[int, ...]]
    preprocessing: Preprocessing
    out: Path
    reporter: Progress

    def one(self) -> None:
        planner, goal = self.planner, self.a.goal
        assert goal is not None
        planned = planner.reach(goal)
        report = self._compiled(planned, self.out)
        notes = planner.notes
        if self.a.compile.as_json:
            plan = planned.plan.model_dump(mode="json", exclude={"ranges"})
            print_json({"plan": plan, "notes": notes, "compiled": report.to_json()})
            return
        show_plan(planned.plan, notes, task=planner.task)
        show_report(report, self.out)

    def frontier(self, count: int) -> None:
        """A folder for each point."""
        points = self.planner.frontier(count)
        rows: list[dict[str, Any]] = []
        for planned in points:
            folder = self.out / _folder(planned.plan)
            shown = tuple(_frontier_point(p.plan, p is planned) for p in points)
            report = self._compiled(planned, folder, shown)
            rows.append(_point(planned.plan, report) | {"folder": folder.name})
        if self.a.compile.as_json:
            print_json({"frontier": rows, "notes": self.planner.notes})
            return
        show_frontier(rows, self.planner.notes, self.out)

    def _compiled(
        self, planned: Planned, out: Path, frontier: tuple[FrontierPoint, ...] = ()
    ) -> Report:
        plan, given = planned.plan, self.a.compile
        refused = tuple(Skip(r.node, r.reason) for r in self.planner.candidates.refused)
        report, _ = compile_changed(
            replace(given, precision=plan.precision),
            Changed(planned.graph_module, self.planner.original, "planned"),
            *(self.shapes, self.preprocessing, self.a.evaluation, out, self.reporter),
            stored=stored_calibration(plan, planned.tensors),
            sections=Sections(plan=_section(plan, refused), frontier=frontier, noise=planned.noise),
            extras=plan_files(plan, planned.tensors),
            task=self.planner.task,
        )
        return report


def _section(plan: Plan, refused: tuple[Skip, ...] = ()) -> PlanSection:
    return plan_section("planned, closed form", plan.steps, plan.precision, refused)


# --- reports -------------------------------------------------------------------------------------


def _folder(plan: Plan) -> str:
    return f"{plan.speedup:.2f}x-{plan.precision}"


def _frontier_point(plan: Plan, chosen: bool) -> FrontierPoint:
    measured = plan.measured_speedup and plan.before_ms / plan.measured_speedup
    agreement = plan.promise and plan.promise.agreement
    return FrontierPoint(
        *(plan.speedup, plan.after_ms, measured, None, agreement, plan.precision, chosen)
    )


def _point(plan: Plan, report: Report) -> dict[str, Any]:
    promise = plan.promise
    return {
        "predicted_speedup": plan.speedup,
        "predicted_ms": plan.after_ms,
        "measured_speedup": plan.measured_speedup,
        "precision": plan.precision,
        "drop": None if promise is None else promise.drop,
        "agreement": None if promise is None else promise.agreement,
        "steps": len(plan.steps),
        "bytes": {a.file: a.bytes for a in report.artefacts},
    }
