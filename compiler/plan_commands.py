"""`shrinkc MODEL --speedup S | --budget-ms B | --max-drop P | --pareto N`, and `shrinkc apply`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir
from rich.markup import escape
from rich.table import Table
from torch import fx

from ..passes.base import Skip
from . import show
from .changed import Changed, compile_changed, plan_section, training_pictures, work_folder
from .cli import print_json
from .commands import CompileArguments, images_of, input_shapes, preprocessing_of, progress
from .errors import InputError
from .load import load_model
from .options import PRECISIONS
from .picture import Preprocessing
from .plan.plan_file import Plan, plan_files, read_plan
from .plan.planner import Planned, Planner, Planning
from .plan.replay import known, replay
from .progress import Progress
from .report import Report
from .report_sections import FrontierPoint, PlanSection, Sections
from .shrink.closed_form import ClosedForm
from .shrink.recipe import Recipe
from .shrink.retrain import retrain
from .stages import captured, cost_table, require_convolutions
from .train.cache import Reading, load_pictures, with_margin
from .train.compute import require_training

MOST_POINTS = 20  # of a frontier


@dataclass(frozen=True)
class PlanGoal:
    """Exactly one of these.

    speedup    over the original in fp32
    budget_ms  by the target's table
    max_drop   of top-1, in points
    pareto     points of the frontier, from the most accurate to the fastest
    """

    speedup: float | None = None
    budget_ms: float | None = None
    max_drop: float | None = None
    pareto: int | None = None

    @property
    def given(self) -> bool:
        return any(
            v is not None for v in (self.speedup, self.budget_ms, self.max_drop, self.pareto)
        )

    def check(self) -> None:
        """Raise InputError."""
        names = ("speedup", "budget_ms", "max_drop", "pareto")
        given = [f"--{n.replace('_', '-')}" for n in names if getattr(self, n) is not None]
        if len(given) > 1:
            raise InputError(f"give one of {', '.join(given)}, not several")
        if self.speedup is not None and not 1 < self.speedup < float("inf"):
            raise InputError(f"--speedup {self.speedup:g}: give more than 1")
        if self.budget_ms is not None and not 0 < self.budget_ms < float("inf"):
            raise InputError(f"--budget-ms {self.budget_ms:g}: give milliseconds above 0")
        if self.max_drop is not None and not 0 <= self.max_drop < 100:
            raise InputError(f"--max-drop {self.max_drop:g}: give points of top-1, 0 to 100")
        if self.pareto is not None and not 3 <= self.pareto <= MOST_POINTS:
            raise InputError(f"--pareto {self.pareto}: give 3 to {MOST_POINTS} points")


@dataclass(frozen=True)
class PlanArguments:
    """The command line, as given; `compile.images` are what plans are fitted to.

    precision   fp32, int8, or None: whichever is better
    evaluation  other pictures, that plans are judged on
    train       pictures to train on after the fits, labelled by folders; `recipe`: how
    """

    compile: CompileArguments
    goal: PlanGoal
    precision: str | None
    evaluation: Path | None
    train: Path | None = None
    recipe: Recipe = field(default_factory=Recipe)


def run_plan(a: PlanArguments) -> None:
    """Plan, compile what the plan leaves, print both."""
    given = a.compile
    a.goal.check()
    if a.train is not None:
        require_training()
    if a.precision not in (None, *PRECISIONS):
        raise InputError(f"--precision {a.precision}: choose {' or '.join(PRECISIONS)}")
    if given.images is None:
        raise InputError("planning looks at pictures; give --images DIR (no labels are needed)")
    table = cost_table(given.target, given.threads)
    model = load_model(given.model, arch=given.arch, trust=given.trust)
    shapes = input_shapes(model, given.shapes)
    preprocessing = None if len(shapes) > 1 else preprocessing_of(given, shapes)
    if preprocessing is None:
        raise InputError("planning works for networks with one input that reads pictures (N,C,H,W)")
    reporter = progress(given.as_json)
    with reporter.task("Capturing"):
        graph = captured(model, shapes)
        require_convolutions(graph)
    out = given.out or Path(f"{given.model.stem}-{Path(given.target).name}-planned")
    images = images_of(given.images, None, labelled=False)
    assert images is not None
    pictures = load_pictures(images, with_margin(preprocessing), Reading(), reporter)
    pictures = replace(pictures, labels=None)  # class folders need not be in the network's order
    held_out = None
    if a.evaluation is not None:
        held_out = training_pictures(
            replace(given, images=a.evaluation), None, preprocessing, out, reporter
        )
    cache = Path(user_cache_dir("shrinkc", appauthor=False), "damages")
    planning = Planning(
        PRECISIONS if a.precision is None else (a.precision,),
        ClosedForm(cache=cache),
        given.threads,
        training=f"{a.train} {a.recipe}" if a.train else "",
        folder=work_folder(out),
    )
    train = _training(a, preprocessing, out, reporter) if a.train else None
    planner = Planner(
        *(graph, pictures, table, planning), held_out=held_out, train=train, progress=reporter
    )
    work = _Work(a, planner, shapes, preprocessing, out, reporter)
    if a.goal.pareto is not None:
        work.frontier(a.goal.pareto)
    else:
        work.one()


def _training(
    a: PlanArguments, preprocessing: Preprocessing, out: Path, reporter: Progress
) -> Callable[[fx.GraphModule, fx.GraphModule], fx.GraphModule]:
    """Batch norms put back, self-distillation from the original, as `shrinkc shrink` does."""
    pictures = training_pictures(a.compile, a.train, preprocessing, out, reporter)
    folder = work_folder(out)

    def train(fitted: fx.GraphModule, original: fx.GraphModule) -> fx.GraphModule:
        return retrain(fitted, original, pictures, a.recipe, folder, reporter)

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
        if goal.max_drop is not None:
            planned = planner.dropping(goal.max_drop / 100)
        else:
            budget = goal.budget_ms or planner.before_ms / (goal.speedup or 1)
            if budget >= planner.before_ms:
                raise InputError(
                    f"{planner.before_ms:.4g} ms fit into {budget:g} ms already; give less, or "
                    "leave out the budget"
                )
            planned = planner.within(budget)
        report = self._compiled(planned, self.out)
        notes = planner.notes
        if self.a.compile.as_json:
            plan = planned.plan.model_dump(mode="json", exclude={"ranges"})
            print_json({"plan": plan, "notes": notes, "compiled": report.to_json()})
            return
        show_plan(planned.plan, notes)
        show.report(report, self.out)

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
        refused = tuple(Skip(r.node, r.reason) for r in self.planner.refused)
        report, _ = compile_changed(
            replace(given, precision=plan.precision),
            Changed(planned.graph_module, self.planner.original, "planned"),
            *(self.shapes, self.preprocessing, self.a.evaluation, out, self.reporter),
            known=known(plan, planned.tensors),
            sections=Sections(plan=_section(plan, refused), frontier=frontier, noise=planned.noise),
            extras=plan_files(plan, planned.tensors),
        )
        return report


def _section(plan: Plan, refused: tuple[Skip, ...] = ()) -> PlanSection:
    return plan_section("planned, closed form", plan.steps, plan.precision, refused)


def run_apply(given: CompileArguments, plan_path: Path) -> None:
    """Do again what a plan says, and compile."""
    plan, tensors = read_plan(plan_path)
    target = given.target or plan.target
    cost_table(target, given.threads)
    model = load_model(given.model, arch=given.arch, trust=given.trust)
    shapes = input_shapes(model, given.shapes)
    reporter = progress(given.as_json)
    with reporter.task("Capturing"):
        graph = captured(model, shapes)
    with reporter.task("Applying the plan"):
        original, changed = replay(graph, plan, tensors)
    given = replace(given, target=target, precision=plan.precision)
    out = given.out or Path(f"{given.model.stem}-{Path(target).name}-planned")
    report, _ = compile_changed(
        *(given, Changed(changed, original, "planned"), shapes),
        *(_reading(given, shapes), given.images, out, reporter),
        known=known(plan, tensors),
        sections=Sections(plan=_section(plan)),
        extras=plan_files(plan, tensors),
    )
    if given.as_json:
        print_json({"plan": plan.model_dump(mode="json", exclude={"ranges"})} | report.to_json())
        return
    show_plan(plan, [])
    show.report(report, out)


def _reading(given: CompileArguments, shapes: list[tuple[int, ...]]) -> Preprocessing | None:
    return None if given.images is None else preprocessing_of(given, shapes)


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


def show_plan(plan: Plan, notes: list[str]) -> None:
    """What is done, and what was promised."""
    console = show.wide_console()
    for step in plan.steps:
        what = f"{step.kind} to {step.channels}" if step.channels else step.kind
        agrees = "" if step.agreement is None else f", alone it agrees on {step.agreement:.1%}"
        where = step.sink if step.kind == "slice" else f"{step.source} … {step.sink}"
        line = f"{what} {where}: saves {step.saving_ms:.3g} ms{agrees}"
        console.print(escape(line))
    if not plan.steps:
        console.print("no layer changes")
    if plan.keep_fp32:
        console.print(escape(f"fp32 in the int8 files: {', '.join(plan.keep_fp32)}"))
    measured = f"; measured {plan.measured_speedup:.2f}×" if plan.measured_speedup else ""
    console.print(
        f"{plan.precision}, predicted {plan.before_ms:.4g} ms (fp32) → {plan.after_ms:.4g} ms, "
        f"{plan.speedup:.2f}×{measured}"
    )
    if plan.promise is not None:
        console.print(promise_line(plan))
    for note in notes:
        console.print(escape(note))


def promise_line(plan: Plan) -> str:
    promise = plan.promise
    assert promise is not None
    how = "counted" if promise.labelled else "expected, without labels"
    low, high = (100 * end for end in promise.interval)
    return (
        f"top-1 falls by {100 * promise.drop:.2f} points ({how}; {low:.2f} to {high:.2f} with "
        f"95% confidence), it agrees with the original on {promise.agreement:.1%} of "
        f"{promise.pictures} pictures that it was not fitted to"
    )


def show_frontier(rows: list[dict[str, Any]], notes: list[str], out: Path) -> None:
    console = show.wide_console()
    table = Table(title="frontier, over the original in fp32", title_justify="left")
    for header in ("folder", "precision", "predicted", "measured", "drop", "agrees", "steps"):
        left = header in ("folder", "precision")
        table.add_column(header, justify="left" if left else "right")
    for row in rows:
        measured = row["measured_speedup"]
        table.add_row(
            escape(row["folder"]),
            row["precision"],
            f"{row['predicted_speedup']:.2f}×",
            f"{measured:.2f}×" if measured else "",
            f"{100 * row['drop']:.2f}",
            f"{row['agreement']:.1%}",
            str(row["steps"]),
        )
    console.print(table)
    for note in notes:
        console.print(escape(note))
    console.print(escape(f"each with its plan in {out}/"))
