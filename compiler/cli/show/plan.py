"""A plan, its promise and a frontier, on the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.api.plan import Planned
from shrinkc.compiler.cli.output import as_json, current, print_json, show_warning, wide_console
from shrinkc.compiler.cli.show.report import report as show_report
from shrinkc.compiler.cli.show.report import report_json
from shrinkc.compiler.plan.drop import estimates
from shrinkc.compiler.plan.plan_file import Plan, Resolution, Step
from shrinkc.compiler.report.html.comparison import PAGE
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.tasks.wording import (
    AGREEMENT,
    drop_words,
    error_words,
    likeness_words,
    share,
)


def show_plan(plan: Plan, notes: Sequence[str], *, task: Task = CLASSIFICATION) -> None:
    """What is done, and what was promised."""
    console = wide_console()
    if plan.resolution is not None:
        console.print(escape(f"{plan.resolution}: {_cost(plan.resolution)}"))
    for step in plan.steps:
        what = f"{step.kind} to {step.channels}" if step.channels else step.kind
        where = step.sink if step.kind == "slice" else f"{step.source} … {step.sink}"
        console.print(escape(f"{what} {where}: {_cost(step)}"))
    if not plan.steps:
        console.print("no layer changes")
    if plan.keep_fp32:
        console.print(escape(f"fp32 in the int8 files: {', '.join(plan.keep_fp32)}"))
    measured = f"; measured {plan.measured_speedup:.2f}×" if plan.measured_speedup else ""
    console.print(
        f"{plan.precision}, predicted {plan.before_ms:.4g} ms (fp32) → {plan.after_ms:.4g} ms, "
        f"{plan.speedup:.2f}×{measured}"
    )
    if plan.resolution is None and all(step.kind == "exact" for step in plan.steps):
        console.print(f"{plan.precision} alone: no layer is narrowed, dropped or merged at a loss")
    if plan.promise is not None:
        console.print(promise_line(plan, task=task))
    for note in notes:
        console.print(escape(note))


def _cost(one: Step | Resolution) -> str:
    agrees = ""
    if one.agreement is not None:
        agrees = f", alone it agrees on {one.agreement:.1%}"
    elif one.loss is not None:
        agrees = f", alone its error is {share(one.loss)} of the outputs' variance"
    return f"saves {one.saving_ms:.3g} ms{agrees}"


def promise_line(plan: Plan, *, task: Task = CLASSIFICATION) -> str:
    promise = plan.promise
    assert promise is not None
    images = f"{counted(promise.images, 'image')} that it was not fitted to"
    if promise.drop is None:
        return f"{error_words(estimates(promise))}, on {images}"
    how = "counted" if promise.labelled else "expected, without labels"
    drop = drop_words(task.metric, promise.drop, promise.interval, how, task.style)
    if promise.agreement is None:
        return f"{drop}; {error_words(estimates(promise))}, on {images}"
    alike = likeness_words(task.likeness, promise.agreement, "the original")
    return f"{drop}, {alike} {'of' if task.likeness == AGREEMENT else 'on'} {images}"


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan without the ranges of activations, which are many."""
    return plan.model_dump(mode="json", exclude={"ranges"})


def planned_report(planned: Planned, out: Path) -> None:
    """The plan and what was compiled, as JSON or for people."""
    plan, report = planned.plan, planned.report
    if as_json():
        print_json(planned_json(planned))
        return
    show_warning(planned.warning)
    show_plan(plan, planned.notes, task=report.task)
    show_report(report, out)


def planned_json(planned: Planned) -> dict[str, Any]:
    on = {target: asdict(times) for target, times in planned.on.items()}
    return {
        "plan": plan_json(planned.plan),
        **({"on": on} if on else {}),
        "warning": planned.warning and current().flagged(planned.warning),
        "notes": list(planned.notes),
        "compiled": report_json(planned.report),
    }


def frontier_report(points: Sequence[Planned], out: Path) -> None:
    """A row for each point, as JSON or for people; every one has a folder in `out`."""
    rows, notes = [_row(point, point.label) for point in points], points[0].notes
    if as_json():
        print_json({"frontier": rows, "notes": list(notes)})
        return
    _rows_table("frontier, over the original in fp32", rows)
    _ending(notes, out)


def targets_report(plans: Mapping[str, Planned], out: Path) -> None:
    """A row for each target, as JSON or for people; every one has a folder in `out`."""
    if as_json():
        print_json({"targets": {target: planned_json(one) for target, one in plans.items()}})
        return
    for target, planned in plans.items():
        show_warning(planned.warning and f"{target}: {planned.warning}")
    rows = [_row(planned, target) for target, planned in plans.items()]
    _rows_table("each target, over the original in fp32 there", rows)
    _ending([f"{t}: {note}" for t, planned in plans.items() for note in planned.notes], out)


def _ending(notes: Sequence[str], out: Path) -> None:
    console = wide_console()
    for note in notes:
        console.print(escape(note))
    console.print(escape(f"each with its plan in {out}/, compared in {out / PAGE}"))


def _rows_table(title: str, rows: Sequence[dict[str, Any]]) -> None:
    table = Table(title=title, title_justify="left")
    scored = any(row["agreement"] is not None for row in rows)
    judged = ("drop", "agrees") if scored else ("error over variance", "at most, 95%")
    sized = [] if all(row["resolution"] is None for row in rows) else ["images"]
    for header in ("folder", *sized, "precision", "predicted", "measured", *judged, "steps"):
        left = header in ("folder", "precision", "images")
        table.add_column(header, justify="left" if left else "right")
    for row in rows:
        measured = row["measured_speedup"]
        table.add_row(
            escape(row["folder"]),
            *([_size(row)] if sized else []),
            row["precision"],
            f"{row['predicted_speedup']:.2f}×",
            f"{measured:.2f}×" if measured else "",
            *(_scores(row) if scored else _errors(row)),
            str(row["steps"]),
        )
    wide_console().print(table)


def _size(row: dict[str, Any]) -> str:
    found = row["resolution"]
    return "" if found is None else "×".join(map(str, found["size"]))


def _scores(row: dict[str, Any]) -> tuple[str, str]:
    drop, agreement = row["drop"], row["agreement"]
    found = "" if drop is None else f"{row['points'] * drop:.2f}"
    return found, "" if agreement is None else f"{agreement:.1%}"


def _errors(row: dict[str, Any]) -> tuple[str, str]:
    """Of the output that suffers most."""
    outputs: list[dict[str, Any]] = row["outputs"]
    worst = max(outputs, key=lambda one: one["error"], default=None)
    if worst is None:
        return "", ""
    ends = worst["interval"]
    return share(worst["error"]), share(ends[1]) if ends else ""


def _row(point: Planned, folder: str) -> dict[str, Any]:
    plan, promise = point.plan, point.plan.promise
    return {
        "predicted_speedup": plan.speedup,
        "predicted_ms": plan.after_ms,
        "measured_speedup": plan.measured_speedup,
        "precision": plan.precision,
        "resolution": None if plan.resolution is None else plan.resolution.model_dump(),
        "drop": None if promise is None else promise.drop,
        "points": point.report.task.points,
        "agreement": None if promise is None else promise.agreement,
        "outputs": [] if promise is None else [one.model_dump() for one in promise.outputs],
        "steps": len(plan.steps),
        "bytes": {a.file: a.bytes for a in point.report.artefacts},
        "folder": folder,
    }
