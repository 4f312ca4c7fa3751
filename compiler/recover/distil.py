"""Gentle distillation on the images that the fits used, without labels.

The student's last features and answers are drawn to the original's (Wang and Wu, MiR, 2022;
Practise, 2023): the mean squared error of the features over their variance plus the task's
divergence of the answers (of classes that of Kullback and Leibler), in steps relative to each
filter's size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from shrinkc.compiler.images.augment import Augmentation, RandomResizedCrop, cut, draw
from shrinkc.compiler.recover.layer_problems import Sample, shuffled
from shrinkc.compiler.recover.relative_adam import Relative
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.base import copy_graph

SNAPSHOT = 25  # steps
WARM_UP = 20  # steps


@dataclass(frozen=True)
class Tuning:
    """How long and how gently.

    steps         of `batch` images; 0 tunes nothing
    seconds       ends earlier: the schedule is bent so that it finishes in time
    learning_rate share of a filter's size that a step moves it by
    scale         area of the random crops, as a share of the stored image
    """

    steps: int = 200
    batch: int = 16
    learning_rate: float = 1e-4
    scale: tuple[float, float] = (0.7, 1.0)
    seconds: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """`losses`: of every step; `stopped`: why before the end, or None."""

    graph_module: fx.GraphModule
    losses: tuple[float, ...]
    stopped: str | None


def tune(
    student: fx.GraphModule,
    teacher: fx.GraphModule,
    sample: Sample,
    options: Tuning,
    progress: Progress,
    *,
    task: Task = CLASSIFICATION,
) -> Tuned:
    """All parameters of the student. On a loss that is no number the last good state is kept."""
    feature = last_feature(teacher, student)
    mine = Relative(tapped(student, feature), options.learning_rate, WARM_UP)
    theirs = tapped(teacher, feature).eval()
    losses: list[float] = []
    good = mine.weights()
    stopped, started, scale = None, time.monotonic(), None
    with progress.task("Tuning", options.steps) as done:
        for x in views(sample, options):
            past = _past(len(losses), options, time.monotonic() - started)
            if past >= 1:
                break
            with torch.no_grad():
                wanted = theirs(x)
            scale = scale or float(wanted[0].var()) or 1.0
            value = _loss(mine(x), wanted, scale, task)
            now = float(value.detach())
            if not math.isfinite(now):
                stopped = f"the loss became {now} at step {len(losses) + 1}"
                break
            if len(losses) % SNAPSHOT == 0:
                good = mine.weights()
            mine.step(value, past)
            losses.append(now)
            done()
    result = copy_graph(student)
    result.load_state_dict(good if stopped else mine.weights(), strict=False)
    return Tuned(result, tuple(losses), stopped)


def _loss(got: tuple[Tensor, ...], wanted: tuple[Tensor, ...], scale: float, task: Task) -> Tensor:
    """Of a feature and the answer behind it, each."""
    divergence = task.divergence(got[1:], wanted[1:]).mean()
    return ((got[0] - wanted[0]) ** 2).mean() / scale + divergence


def _past(step: int, options: Tuning, elapsed: float) -> float:
    """The share of the schedule that is over, by steps or by time, whichever is further."""
    by_time = elapsed / options.seconds if options.seconds else 0.0
    return max(step / max(options.steps, 1), by_time)


def views(sample: Sample, options: Tuning) -> Iterator[Tensor]:
    """Random crops of the sample's images, half of them mirrored, without end."""
    augmentation = Augmentation(RandomResizedCrop(options.scale), flip=True)
    images, size, rows = sample.images, sample.size, torch.tensor(sample.indices)
    batch = min(options.batch, len(rows))
    for seed, few in enumerate(shuffled(len(rows), batch, options.seed), options.seed + 1):
        windows = draw(augmentation, batch, images.size, size, seed)
        yield images.inputs(cut(images.pixels[rows[few]], windows, size))


def last_feature(teacher: fx.GraphModule, student: fx.GraphModule) -> str:
    """The last map of features that both networks compute; where there is none, the output."""
    known, mine = shapes(teacher), shapes(student)
    found = ""
    for node in teacher.graph.nodes:
        if node.op == "placeholder":
            continue
        shape = known.get(node.name, ())
        if len(shape) == 4 and shape[2:] != (1, 1) and mine.get(node.name) == shape and node.users:
            found = node.name
    output = next(n for n in reversed(teacher.graph.nodes) if n.op == "output")
    first: Any = output.args[0]
    return found or first[0].name


def tapped(graph: fx.GraphModule, feature: str) -> fx.GraphModule:
    """A copy whose outputs are the feature and those of the graph."""
    copy = copy_graph(graph)
    node = next(n for n in copy.graph.nodes if n.name == feature)
    output = next(n for n in reversed(copy.graph.nodes) if n.op == "output")
    first: Any = output.args[0]
    output.args = ((node, *first),)
    copy.recompile()
    return copy
