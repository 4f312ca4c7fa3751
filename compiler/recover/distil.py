"""Distillation on the images that the fits used, without labels.

The student's last features and answers are drawn to the original's (Wang et al., MiR, 2022; Wang
and Wu, Practise, 2023): the mean squared error of the features over their variance plus the task's
divergence of the answers (of classes that of Kullback and Leibler), in steps relative to each
filter's size. A student of smaller images sees what its teacher does, resized.

The larger the steps, the more is won back, up to where they destroy the network, and where that is
differs by a factor of a hundred: a detector of 64×64 pixels, planned to be 1.5× as fast as its int8
file, loses 2.9 points of mAP after 1,000 steps of 1e-3 and 1.5 after as many of 2e-2, while
MobileNetV2 is no longer helped by 1e-3. What the images that are trained on say is no guide: there
the loss falls where on others it rises. So every eighth image is kept apart. On those a short
training at each rate says which is best, and the best state of a whole one is what is kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from shrinkc.compiler.images.augment import Augmentation, RandomResizedCrop, scaled
from shrinkc.compiler.images.tensors import in_parts, together
from shrinkc.compiler.recover.layer_problems import Sample, batch_for, shuffled, size_of
from shrinkc.compiler.recover.relative_adam import Relative
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.base import copy_graph
from shrinkc.passes.criteria.shared.channel_costs import layer_macs

WARM_UP, SNAPSHOT = 20, 25  # steps
RATES = (2.5e-4, 1e-3, 5e-3, 2e-2)
TRIED = 1 / 8  # of the steps: a training that tells rates apart
JUDGED, APART = 8, 8  # times in a training, by every eighth image
LOST = 2  # times the loss before: such a rate is too large
ROUNDING = 1e-6  # of a loss, which is over variances: what gains no more has gained nothing
STEPS = (50, 4000)
PASSES = 250  # over all images, at most
WORK = 2.5e11  # multiply-accumulates of the original's answers, at most: half a minute of two cores


@dataclass(frozen=True)
class Tuning:
    """How long.

    steps         of `batch` images; 0 tunes nothing; None: as many of `STEPS` as `PASSES` and
                  `WORK` allow
    seconds       ends earlier: the schedule is bent so that it finishes in time
    learning_rate share of a filter's size that a step moves it by; None: the best of `RATES`
    scale         area of the random crops, as a share of the stored image
    """

    steps: int | None = None
    batch: int = 16
    learning_rate: float | None = None
    scale: tuple[float, float] = (0.7, 1.0)
    seconds: float | None = None
    seed: int = 0

    def steps_for(self, teacher: fx.GraphModule, images: int) -> int:
        if self.steps is not None:
            return self.steps
        least, most = STEPS
        by_work = WORK / (self.batch * max(1.0, sum(layer_macs(teacher).values())))
        return max(least, min(most, round(by_work), PASSES * images // self.batch))


@dataclass(frozen=True)
class Tuned:
    """`losses`: of every step at the rate that was kept; `stopped`: why before the end, or None."""

    graph_module: fx.GraphModule
    losses: tuple[float, ...]
    stopped: str | None


def fitted_and_judged(sample: Sample, options: Tuning) -> tuple[Sample, Sample]:
    """The images that fits may see, and those that tell how a training behind them goes."""
    return (sample, sample) if options.steps == 0 else sample.split(APART)


def tune(
    student: fx.GraphModule,
    teacher: fx.GraphModule,
    sample: Sample,
    options: Tuning,
    progress: Progress,
    *,
    task: Task = CLASSIFICATION,
) -> Tuned:
    """All parameters of the student. At a rate that is given, the last state before a loss that is
    no number is kept; a student that no rate improves stays as it is. Fits of the student should
    have seen the first part of `fitted_and_judged` only."""
    descent = _Descent(student, teacher, sample, options, progress, task)
    if options.learning_rate is not None:
        return descent.at(options.learning_rate).tuned
    for rate in descent.promising():
        trained = descent.at(rate, descent.before)
        if trained.least < descent.before - ROUNDING:
            return trained.tuned
    return Tuned(copy_graph(student), (), "no rate gained anything")


@dataclass(frozen=True)
class _Trained:
    """`least`: the loss of its best state on images that it did not see."""

    tuned: Tuned
    least: float


class _Descent:
    """From one student towards one teacher, at any rate."""

    def __init__(
        self,
        student: fx.GraphModule,
        teacher: fx.GraphModule,
        sample: Sample,
        options: Tuning,
        progress: Progress,
        task: Task,
    ) -> None:
        self.result, self.options = student, options
        self.sample, self.judged = fitted_and_judged(sample, options)
        self.progress, self.task = progress, task
        self.steps = options.steps_for(teacher, len(sample))
        feature = last_feature(teacher, student)
        self.student = tapped(student, feature)
        self._teacher = tapped(teacher, feature).eval()
        self._batch = min(batch_for(one, options.batch) for one in (teacher, student))
        self._size = size_of(student) if are_resized(teacher, student) else None
        self._scale: float | None = None  # of the first images that are looked at
        self.before = self.loss(self.student)

    def loss(self, network: Callable[..., Any]) -> float:
        """Of images that no training sees, as they are."""
        total = 0.0
        with torch.no_grad():
            for x, rows in self.judged.batches():
                total += float(self._loss(network, x)) * len(rows)
        return total / len(self.judged)

    def promising(self) -> list[float]:
        """Rates by which a short training gains something, the best first, and smaller ones behind
        it; the best alone where none does, since a whole training may. From the smallest on, as
        long as larger ones gain more."""
        gained: list[tuple[float, float]] = []
        for rate in sorted(RATES):
            least = self.at(rate, self.before, TRIED).least
            if gained and not least < gained[-1][0]:
                break
            gained.append((least, rate))
        found = [rate for least, rate in reversed(gained) if least < self.before]
        return found or [gained[-1][1]]

    def at(self, rate: float, before: float = math.inf, share: float = 1) -> _Trained:
        """At this rate, for a share of the schedule. With a loss `before` the best state is kept,
        and a rate that spoils the network is left; without one the last state is."""
        mine = Relative(self.student, rate, WARM_UP)
        losses: list[float] = []
        best, least, stopped = mine.weights(), math.inf, None
        started, total = time.monotonic(), max(1, round(share * self.steps))
        every = max(1, round(total / max(1, round(share * JUDGED))))
        with self.progress.task("Tuning", total) as done:
            for x in views(self.sample, self.options):
                past = self._past(len(losses) / total, (time.monotonic() - started) / share)
                if past >= 1:
                    break
                value = self._loss(mine, x)
                now = float(value.detach())
                if not math.isfinite(now):
                    stopped = f"the loss became {now} at step {len(losses) + 1}"
                    break
                if before == math.inf and len(losses) % SNAPSHOT == 0:
                    best = mine.weights()
                mine.step(value, past)
                losses.append(now)
                done()
                if before < math.inf and (len(losses) % every == 0 or len(losses) == total):
                    here = self.loss(mine)
                    best, least = (mine.weights(), here) if here < least else (best, least)
                    if not here < LOST * before:
                        stopped = f"the loss grew from {before:.3g} to {here:.3g}"
                        break
        result = copy_graph(self.result)
        last = stopped is None and before == math.inf
        result.load_state_dict(mine.weights() if last else best, strict=False)
        return _Trained(Tuned(result, tuple(losses), stopped), least)

    def _loss(self, network: Callable[..., Any], x: tuple[Tensor, ...]) -> Tensor:
        """Of a feature and the answers behind it."""
        with torch.no_grad():
            wanted = self._answers(self._teacher, x)
        if self._size is not None:
            x = (scaled(x[0], self._size),)
        got = self._answers(network, x)
        feature = wanted[0]
        if feature.shape != got[0].shape:
            feature = scaled(feature, (got[0].shape[2], got[0].shape[3]))
        if self._scale is None:
            self._scale = float(feature.var()) or 1.0
        divergence = self.task.divergence(got[1:], wanted[1:]).mean()
        return ((got[0] - feature) ** 2).mean() / self._scale + divergence

    def _answers(self, network: Callable[..., Any], x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As many samples at a time as the network takes."""
        if self._batch >= len(x[0]):
            return network(*x)
        return together(network(*few) for few in in_parts(x, self._batch))

    def _past(self, by_steps: float, elapsed: float) -> float:
        """The share of the schedule that is over, by steps or by time, whichever is further."""
        return max(by_steps, elapsed / self.options.seconds if self.options.seconds else 0.0)


def views(sample: Sample, options: Tuning) -> Iterator[tuple[Tensor, ...]]:
    """Random crops of the sample's images, half of them mirrored, or its other inputs, without
    end."""
    augmentation = Augmentation(RandomResizedCrop(options.scale), flip=True)
    rows = torch.tensor(sample.indices)
    batch = min(options.batch, len(rows))
    for seed, few in enumerate(shuffled(len(rows), batch, options.seed), options.seed + 1):
        yield sample.images.taken(rows[few], sample.size, augmentation, seed)


def last_feature(teacher: fx.GraphModule, student: fx.GraphModule) -> str:
    """The last map of features that both networks compute, of a student of smaller images a smaller
    one; where there is none, the output."""
    known, mine = shapes(teacher), shapes(student)
    alike = 2 if are_resized(teacher, student) else 4  # dimensions
    found = ""
    for node in teacher.graph.nodes:
        if node.op == "placeholder":
            continue
        shape, own = known.get(node.name, ()), mine.get(node.name, ())
        maps = len(shape) == len(own) == 4 and shape[2:] != (1, 1)
        if maps and own[:alike] == shape[:alike] and node.users:
            found = node.name
    output = next(n for n in reversed(teacher.graph.nodes) if n.op == "output")
    first: Any = output.args[0]
    return found or first[0].name


def are_resized(teacher: fx.GraphModule, student: fx.GraphModule) -> bool:
    """Whether they read images of different sizes."""
    first, second = (list(one.meta["input_shapes"].values()) for one in (teacher, student))
    return first != second


def tapped(graph: fx.GraphModule, feature: str) -> fx.GraphModule:
    """A copy whose outputs are the feature and those of the graph."""
    copy = copy_graph(graph)
    node = next(n for n in copy.graph.nodes if n.name == feature)
    output = next(n for n in reversed(copy.graph.nodes) if n.op == "output")
    first: Any = output.args[0]
    output.args = ((node, *first),)
    copy.recompile()
    return copy
