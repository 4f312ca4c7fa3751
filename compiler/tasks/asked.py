"""What a user says that a network is for; what is not said is told by its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from shrinkc.compiler.tasks.own_metric import Metric, OwnMetric
from shrinkc.compiler.tasks.task import Task
from shrinkc.errors import InputError


@dataclass(frozen=True)
class AskedTask:
    """A task, or None for what its outputs tell; a metric of one's own in place of the task's, and
    weights of the outputs, of a task that has them."""

    task: Task | None = None
    metric: OwnMetric | None = None
    weights: tuple[float, ...] = ()

    def completed(self, task: Task) -> Task:
        """With metric and weights. Raises InputError for weights of a task that has none."""
        if self.weights:
            if isinstance(task, OwnMetric) or "weights" not in {
                f.name for f in fields(_plain(task))
            }:
                raise InputError(
                    f"`output_weights`: the task {task.name} weighs its outputs itself"
                )
            task = replace(_plain(task), weights=self.weights)
        return task if self.metric is None else replace(self.metric, base=task)


def _plain(task: Task) -> Any:
    return task


def asked_task(
    task: object, metric: object = None, output_weights: Sequence[float] | None = None
) -> AskedTask:
    """Of parameters. Raises InputError for what is no task, no function or no numbers."""
    if isinstance(task, AskedTask):
        return task
    if task is not None and not isinstance(task, Task):
        raise InputError(
            f"`task` is a {type(task).__name__}; give an object that derives from Task"
        )
    return AskedTask(task, own_metric(metric), tuple(output_weights or ()))


def own_metric(metric: object, called: str | None = None) -> OwnMetric | None:
    """A function as a metric. Raises InputError for what is none."""
    if metric is None:
        return None
    if not callable(metric) or isinstance(metric, type):
        raise InputError(
            f"`metric` is a {type(metric).__name__}; give a function of outputs and labels that "
            "returns a number, higher is better"
        )
    function: Metric = metric
    return OwnMetric(function, called or getattr(metric, "__name__", type(metric).__name__))
