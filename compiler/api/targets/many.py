"""`shrinkc.plan_for`: the same network planned for several targets."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from shrinkc.compiler.api.plan import Planned, Plans
from shrinkc.compiler.api.steps.network import Inputs, Model
from shrinkc.compiler.api.steps.results import save_together
from shrinkc.compiler.api.steps.target import Target, cost_table, options_of, target_name
from shrinkc.compiler.api.steps.work_folder import alone_in_folder
from shrinkc.compiler.cost.goal import PLAN_GOALS, Goal, required
from shrinkc.compiler.images.source import Given
from shrinkc.compiler.recover.recipe import Recipe
from shrinkc.compiler.support.checks import listed
from shrinkc.compiler.support.choices import Precision
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.asked import AskedTask, asked_task
from shrinkc.compiler.tasks.own_metric import Metric
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.train.settings.own_loss import Loss
from shrinkc.errors import InputError, UnreachableGoalError


class PlannedFor(Mapping[str, Planned]):
    """Name of a target → what was planned for it."""

    def __init__(self, plans: Mapping[str, Planned]) -> None:
        self._plans = dict(plans)

    def __getitem__(self, target: str) -> Planned:
        return self._plans[target]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plans)

    def __len__(self) -> int:
        return len(self._plans)

    def save(self, out: str | os.PathLike[str]) -> Path:
        """Write each into a folder of its target's name in `out`, and a page that compares them:
        all or nothing. Raises InputError where that fails."""
        return save_together(self._plans, out)

    def __repr__(self) -> str:
        lines = "; ".join(planned.summary() for planned in self._plans.values())
        return f"PlannedFor({lines})"


@alone_in_folder
def plan_for(
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
    resolutions: Sequence[int] | None = None,
    folder: str | os.PathLike[str] | None = None,
    name: str | None = None,
    command: str | None = None,
    progress: Progress | bool = False,
) -> PlannedFor:
    """A plan for each of several targets, each for its own times. What the network's answers,
    choices and sets of choices cost is measured once.

    Args:
        targets: names or folders of latency tables, or "host".

    The other arguments, and what is raised, are those of `plan`. A goal that one target cannot
    reach ends all, before anything is fitted; the error names the target.
    """
    goal, named = required(goal, PLAN_GOALS), target_names(targets)
    for target in named.values():
        cost_table(target, threads)  # an unknown one is told before anything
    first, *others = named.values()
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
        goal=goal,
        resolutions=resolutions,
    )
    every = dict(zip(named, [plans, *(plans.on(target) for target in others)], strict=True))
    for short, one in every.items():
        with _named(short):
            one.planner.require_reach(goal)
    found: dict[str, Planned] = {}
    for short, one in every.items():
        with _named(short):
            found[short] = one.made(one.planner.reach(goal))
    return PlannedFor(found)


@contextmanager
def _named(target: str) -> Generator[None]:
    """What is wrong with a goal says on which target."""
    try:
        yield
    except UnreachableGoalError as error:
        message = f"{target}: {error.message}"
        raise UnreachableGoalError(message, error.hint, error.fastest_ms) from error
    except InputError as error:
        raise InputError(f"{target}: {error.message}", error.hint) from error


def target_names(targets: Sequence[Target], parameter: str = "targets") -> dict[str, str]:
    """What each is called among the others → its name or folder. Raises InputError, which names
    the parameter, for none, and for one that is there twice."""
    if isinstance(targets, (str, os.PathLike)):
        raise InputError("`targets` is one target; give a list, or use shrinkc.plan")
    given = [target_name(one) for one in listed(parameter, targets, object, "targets")]
    if not given:
        raise InputError("`targets` is empty; give the name of a latency table")
    found: dict[str, str] = {}
    for one in given:
        short = Path(one).name if Path(one).is_dir() else one.replace("/", "-")
        if short in found:
            raise InputError(f"`{parameter}` has {short} more than once; give each once")
        found[short] = one
    return found
