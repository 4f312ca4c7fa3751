"""Sensitivity curves (Li et al., Pruning Filters for Efficient ConvNets, 2017, figure 2).

Each group is pruned alone, with all else as it is, and the masked network judged: groups whose
curve falls early keep more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Answer, Evidence, Task
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.channels.mask_channels import mask_channels
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import Scores, most_important, rounded
from shrinkc.passes.criteria.shared.data import (
    Batches,
    Loss,
    cross_entropy,
    each_batch,
    evaluating,
    labelled,
)

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
Judge = Callable[[fx.GraphModule], float]


@dataclass(frozen=True)
class SensitivityCurve:
    """`values[i]`: what the judge says with `removed[i]` of the group's channels masked. The first
    is the network as it is."""

    group: str
    removed: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, ratios: Sequence[float]) -> list[float]:
        """Between its points, on straight lines; beyond the last one that value."""
        return [float(v) for v in np.interp(ratios, self.removed, self.values)]


def sensitivity(
    graph_module: fx.GraphModule,
    groups: Groups,
    scores: Scores,
    judge: Judge,
    ratios: Sequence[float] = RATIOS,
    done: Callable[[], object] = lambda: None,
) -> tuple[SensitivityCurve, ...]:
    """One curve for each group that has scores; `done` is called after every judgement.

    Shares are those of the nearest width that the group can have. Raises InputError for a ratio
    outside of (0, 1).
    """
    for ratio in ratios:
        if not 0 < ratio < 1:
            raise InputError(f"a ratio of {ratio:g} to remove: give numbers between 0 and 1")
    whole = judge(graph_module)
    curves: list[SensitivityCurve] = []
    for group in groups.groups:
        if group.name not in scores:
            continue
        points = [(0.0, whole)]
        counts = dict.fromkeys(rounded(group, (1 - r) * group.size) for r in sorted(ratios))
        for count in counts:
            if count < group.size:
                mask = most_important(group, scores[group.name], count)
                slicing = SliceChannels(Selection({group.name: mask}))
                points.append((1 - count / group.size, judge(mask_channels(graph_module, slicing))))
                done()
        removed, values = zip(*points, strict=True)
        curves.append(SensitivityCurve(group.name, removed, values))
    return tuple(curves)


def correct_of(batches: Batches, *, task: Task = CLASSIFICATION) -> Judge:
    """The task's metric on labelled images: of classes, top-1."""

    def evidence(_: int, outputs: Answer, labels: Tensor | None) -> Evidence:
        return task.evidence(outputs, labelled("Judging a network", labels))

    return _scored(batches, evidence, task.score)


def agreement_of(
    batches: Batches, original: fx.GraphModule, *, task: Task = CLASSIFICATION
) -> Judge:
    """How far a network agrees with the original; no labels are read."""
    with torch.no_grad(), evaluating(original):
        known: list[Answer] = [original(*inputs) for inputs, _ in each_batch(original, batches)]

    def agreeing(index: int, outputs: Answer, _: Tensor | None) -> Evidence:
        return task.alike(outputs, known[index])

    return _scored(batches, agreeing, task.likeness_of)


def _scored(
    batches: Batches,
    evidence: Callable[[int, Answer, Tensor | None], Evidence],
    score: Callable[[Evidence], float],
) -> Judge:
    """`evidence`: number of the batch, outputs, labels → what each image adds to the score."""

    def judge(graph_module: fx.GraphModule) -> float:
        found: list[Any] = []
        with torch.no_grad(), evaluating(graph_module):
            for index, (inputs, labels) in enumerate(each_batch(graph_module, batches)):
                found += list(evidence(index, graph_module(*inputs), labels))
        return score(found)

    return judge


def loss_of(batches: Batches, loss: Loss = cross_entropy) -> Judge:
    """The mean loss."""
    return _mean_with_labels(batches, lambda outputs, labels: float(loss(outputs, labels)))


def _mean_with_labels(batches: Batches, measure: Callable[[Answer, Tensor], float]) -> Judge:
    """Raises InputError where there are none."""

    def labels_read(_: int, outputs: Answer, labels: Tensor | None) -> float:
        return measure(outputs, labelled("Judging a network", labels))

    return _mean_of(batches, labels_read)


def _mean_of(batches: Batches, measure: Callable[[int, Answer, Tensor | None], float]) -> Judge:
    """`measure`: number of the batch, outputs, labels → the sum over the batch."""

    def judge(graph_module: fx.GraphModule) -> float:
        whole, count = 0.0, 0
        with torch.no_grad(), evaluating(graph_module):
            for index, (inputs, labels) in enumerate(each_batch(graph_module, batches)):
                whole += measure(index, graph_module(*inputs), labels)
                count += len(inputs[0])
        return whole / count

    return judge
