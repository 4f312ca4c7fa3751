"""`shrinkc.sensitivity`: how accurate a network stays with one group of channels pruned."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from shrinkc.compiler.api.steps.images import batches_of, require_labels, seen_by_criteria
from shrinkc.compiler.api.steps.network import Inputs, LabelUse, Model, subject_of
from shrinkc.compiler.images.labels import kind_of
from shrinkc.compiler.images.source import Given
from shrinkc.compiler.report.plots import require_matplotlib, sensitivity_map
from shrinkc.compiler.support.checks import check_whole
from shrinkc.compiler.support.progress import Progress, shown_by
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.tasks.asked import AskedTask, asked_task
from shrinkc.compiler.tasks.own_metric import Metric
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.width.methods import spec_of
from shrinkc.compiler.width.sensitivity import (
    RATIOS,
    SensitivityCurve,
    agreement_of,
    correct_of,
)
from shrinkc.compiler.width.sensitivity import sensitivity as curves_of
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.criteria.base import Criterion
from shrinkc.passes.criteria.spec import CriterionSpec
from shrinkc.passes.criteria.spec import Given as Criteria


@dataclass(frozen=True, repr=False)
class Sensitivity:
    """One curve for each channel group, as shares of `images` images.

    judged  what the shares are of: the task's metric, "agreement with the original", or for outputs
            that are no classes "R² against the original"
    """

    model: str
    criterion: str
    judged: str
    images: int
    curves: tuple[SensitivityCurve, ...]

    def plot(self, path: str | os.PathLike[str]) -> None:
        """A map of groups and shares, as PNG. Raises InputError without matplotlib."""
        require_matplotlib()
        title = f"{self.model}, {self.criterion}: {self.judged}, {counted(self.images, 'image')}"
        sensitivity_map(title, self.curves, RATIOS, Path(path))

    def __repr__(self) -> str:
        groups = counted(len(self.curves), "channel group")
        return f"Sensitivity({groups} by {self.criterion}, {self.judged} on {self.images} images)"


def sensitivity(
    model: Model,
    inputs: Inputs = None,
    *,
    images: Given,
    criterion: str | CriterionSpec | Criterion = "l1",
    labels: bool = False,
    limit: int = 500,
    task: Task | AskedTask | None = None,
    metric: Metric | None = None,
    name: str | None = None,
    progress: Progress | bool = False,
) -> Sensitivity:
    """Prune every channel group alone, at several shares, and judge the masked network (Li et al.,
    2017, figure 2).

    Args:
        model: a module, a captured graph, or the path of a file that `load` reads.
        inputs: an example (N, C, H, W) or its shape.
        images: to judge on.
        criterion: which channels of a group go first: a name, or an object of one's own.
        labels: class folders are labels: top-1 instead of agreement with the original. Labels that
            come with tensors are always used.
        limit: of the images.
        task: what the outputs mean; None: told by them.
        metric: a function of outputs and labels in place of the task's metric, as of `compile`.
        name: of the network, in titles.
        progress: True shows bars on stderr.

    Raises:
        InputError, ImageError, CaptureError, ModelRunError.
    """
    spec, shown = spec_of(criterion), shown_by(progress)
    check_whole("limit", limit, 1)
    if spec.learns:
        raise InputError(
            f"`criterion` {spec.name} learns its scores, and nothing is trained here",
            "give another criterion",
        )
    asked = asked_task(task, metric)
    subject = subject_of(model, inputs, name)
    use: LabelUse = "read" if labels else "if they fit"
    known, sources = subject.images({"images": (images, use)}, asked)
    source = sources["images"]
    if source is None:
        raise InputError("`images` is a NoneType; give images to judge on")
    if labels:
        require_labels(source)
    graph = subject.layered(shown)
    seen = seen_by_criteria(source, labels, limit, shown)
    if spec.needs == "labels" and kind_of(seen.labels) != "classes":
        raise InputError(f"`criterion` {spec.name} needs labels; give `labels`")
    batches, groups = batches_of(seen, graph), channel_groups(graph)
    with shown.task(f"Scoring channels: {spec.name}"):
        scores = spec.build(Criteria(batches, 0, by_cost=True)).scores(graph, groups)
    y = batches[0][1]
    by_likeness = y is None or not known.counts(graph(*batches[0][0]), y)
    judged_by = agreement_of(batches, graph, task=known) if by_likeness else None
    judge = judged_by or correct_of(batches, task=known)
    with shown.task("Pruning each group alone", len(scores) * len(RATIOS)) as done:
        curves = curves_of(graph, groups, scores, judge, done=done)
    what = known.likeness if by_likeness else known.metric
    return Sensitivity(subject.name, spec.name, what, len(seen), curves)
