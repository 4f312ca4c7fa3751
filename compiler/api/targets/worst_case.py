"""`shrinkc.plan_worst_case`: one network that keeps to a goal on several targets.

Each target's table proposes sets of choices, which count as what they take where that is most; of
the proposals the one of least damage becomes the plan.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from shrinkc.compiler.api.plan import Planned, Plans, Times
from shrinkc.compiler.api.steps.network import Inputs, Model
from shrinkc.compiler.api.steps.target import Target, cost_table, options_of
from shrinkc.compiler.api.steps.work_folder import alone_in_folder
from shrinkc.compiler.api.targets.many import target_names
from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.cost.goal import SHRINK_GOALS, Goal, required
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.images.source import Given
from shrinkc.compiler.plan.finished_plans import Planned as Found
from shrinkc.compiler.plan.planner import Bound
from shrinkc.compiler.recover.recipe import Recipe
from shrinkc.compiler.support.choices import Precision, is_host
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.asked import AskedTask, asked_task
from shrinkc.compiler.tasks.own_metric import Metric
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.train.settings.own_loss import Loss
from shrinkc.errors import InputError, UnreachableGoalError


@alone_in_folder
def plan_worst_case(
    model: Model,
    inputs: Inputs = None,
    *,
    targets: Sequence[Target],
    goal: Goal,
    images: Given,
    precision: Precision | None = None,
    evaluation: Given | None = None,
    train: Given | None = None,
    recipe: Recipe | None = None,
    task: Task | AskedTask | None = None,
    metric: Metric | None = None,
    loss: Loss | None = None,
    opset: int = 17,
    threads: int = 1,
    runs: int = 30,
    folder: str | os.PathLike[str] | None = None,
    name: str | None = None,
    command: str | None = None,
    progress: Progress | bool = False,
) -> Planned:
    """One network that is as fast as asked for on every target, by the targets' tables.

    Args:
        targets: two or more names or folders of latency tables.
        goal: Goal.speedup over the original on the same target, or Goal.budget_ms.

    The other arguments, and what is raised, are those of `plan`.

    Returns:
        The plan for the target whose table proposed it; `on` has the times on all of them.
    """
    goal, named = required(goal, SHRINK_GOALS), target_names(targets)
    if len(named) < 2:
        raise InputError("`targets` is one; give two or more, or use shrinkc.plan")
    if any(map(is_host, named.values())):
        raise InputError("`targets` has host, whose whole files are timed; give tables alone")
    tables = {short: cost_table(target, threads) for short, target in named.items()}
    first, *_ = named.values()
    plans = Plans.of(
        *(model, inputs, options_of(first, precision or "fp32", opset, threads, runs)),
        *(precision, images),
        evaluation=evaluation,
        train=train,
        recipe=recipe,
        folder=folder,
        name=name,
        command=command,
        progress=progress,
        task=asked_task(task, metric),
        loss=loss,
        resolutions=None,
    )
    original = plans.planner.original
    before = {short: predicted_ms(original, one, "fp32") for short, one in tables.items()}
    limits = _limits(goal, before)
    proposed: list[tuple[float, str, Plans]] = []
    missed: list[UnreachableGoalError] = []
    for short, target in named.items():
        bounds = [
            Bound(tables[other], limits[short] / limits[other]) for other in named if other != short
        ]
        one = plans.on(target, bounds)
        try:
            least = min(c.damage for c in one.planner.chosen(limits[short]))
        except UnreachableGoalError as error:
            message = f"{short}, and as fast on the others: {error.message}"
            missed.append(UnreachableGoalError(message, error.hint, error.fastest_ms))
            continue
        proposed.append((least, short, one))
    if not proposed:
        raise missed[0]
    _, short, best = min(proposed, key=lambda row: row[0])
    found = best.planner.within(limits[short])
    on = _times(found, before, tables)
    told = (f"planned for all of {', '.join(named)}", *map(_said, on, on.values()))
    planned = best.made(found, told=told)
    planned.on = on
    return planned


def _limits(goal: Goal, before: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds of each target. Raises InputError where all targets keep to theirs already."""
    if goal.kind == "speedup":
        return {short: goal.budget(ms) for short, ms in before.items()}
    if all(ms <= goal.value for ms in before.values()):
        most = max(before.values())
        raise InputError(f"{most:.4g} ms fit into {goal.value:g} ms already; give less")
    return dict.fromkeys(before, goal.value)


def _times(
    found: Found, before: Mapping[str, float], tables: Mapping[str, CostTable]
) -> dict[str, Times]:
    plan, graph = found.plan, found.graph_module
    return {
        short: Times(ms, predicted_ms(graph, tables[short], plan.precision, plan.keep_fp32))
        for short, ms in before.items()
    }


def _said(short: str, times: Times) -> str:
    return f"{short}: {times.before_ms:.4g} → {times.after_ms:.4g} ms, {times.speedup:.2f}×"
