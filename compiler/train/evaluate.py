"""Judging a network on images."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import isfinite

import torch
import torch.nn.functional as F
from torch import nn

from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.train.compute import ALONE, Ranks
from shrinkc.compiler.train.settings.losses import logits


@dataclass(frozen=True)
class Evaluation:
    """Shares are 0–1. None: no labels, or no teacher.

    top1       mean of the task's score: of classes, how often the highest output is the label's
    loss       mean cross-entropy
    agreement  share of images on which the answer agrees with the teacher's
    """

    images: int
    top1: float | None
    loss: float | None
    agreement: float | None

    def to_json(self) -> dict[str, float | None]:
        """Without numbers that JSON lacks: a loss that is not finite is null."""
        return {name: v if v is None or isfinite(v) else None for name, v in asdict(self).items()}


def evaluate(
    model: nn.Module,
    images: Images,
    *,
    teacher: nn.Module | None = None,
    batch: int = 256,
    ranks: Ranks = ALONE,
    task: Task = CLASSIFICATION,
) -> Evaluation:
    """The task's score, loss and agreement with `teacher`, in eval mode, on the model's own device.

    Images larger than the network's input must have been stored in its size: nothing is cropped.
    Ranks share the images; every rank gets the same answer. Raises TrainingError for a network
    with several outputs.
    """
    first = next(model.parameters(), torch.empty(0))
    sums = torch.zeros(3, dtype=torch.float64, device=first.device)  # correct, loss, agreeing
    rows = torch.arange(len(images))[ranks.rank :: ranks.count]
    with torch.no_grad(), judged(model), judged(teacher):
        for start in range(0, len(rows), batch):
            chunk = rows[start : start + batch]
            pixels = images.stored(chunk).to(first.device)
            inputs = images.inputs(pixels, first.dtype)
            outputs = logits(model(inputs))
            if images.labels is not None:
                labels = images.labels[chunk].to(first.device)
                sums[0] += task.correct((outputs,), labels).sum()
                sums[1] += F.cross_entropy(outputs.double(), labels, reduction="sum")
            if teacher is not None:
                taught = logits(teacher(inputs))
                sums[2] += task.agree((outputs,), (taught,)).sum()
    correct, loss, agreeing = (float(s) / len(images) for s in ranks.total(sums))
    labelled = images.labels is not None
    return Evaluation(
        images=len(images),
        top1=correct if labelled else None,
        loss=loss if labelled else None,
        agreement=None if teacher is None else agreeing,
    )


@contextmanager
def judged(model: nn.Module | None) -> Generator[None]:
    """Eval mode, and back to the mode of each module."""
    modes = {} if model is None else {module: module.training for module in model.modules()}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
