"""What is wrong with network, images or teacher shows before the first step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor, nn

from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.support.text import named
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.train.batches import Batch
from shrinkc.compiler.train.evaluate import judged
from shrinkc.compiler.train.settings.config import Training, Validation
from shrinkc.compiler.train.settings.losses import Objective, answer_of, logits
from shrinkc.compiler.train.settings.own_loss import OwnLoss, Restoring
from shrinkc.errors import DataError, ShrinkcError, TrainingError


def check(
    model: nn.Module,
    teacher: nn.Module | None,
    batch: Batch,
    objective: Objective,
    autocast: Callable[[], AbstractContextManager[object]],
    *,
    task: Task = CLASSIFICATION,
    by_task: bool = False,
    loss: OwnLoss | None = None,
) -> int | None:
    """Run network, teacher and loss once, without training; returns the number of classes, None
    where the task has none. `by_task`, `loss`: as of `Training`.

    Raises TrainingError: a network that does not run on such inputs or tells other classes apart
    than its teacher.
    """
    inputs = batch.inputs[:2]
    if by_task:
        some = batch if batch.labels is None else replace(batch, labels=batch.labels[:2])
        _check_own(model, teacher, replace(some, inputs=inputs), loss, task)
        return None
    labels = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)  # any will do
    with torch.no_grad(), autocast(), judged(model), judged(teacher):
        outputs = _run(model, inputs, "the network")
        taught = None if teacher is None else _run(teacher, inputs, "the teacher")
        if taught is not None and taught.shape != outputs.shape:
            raise TrainingError(
                f"the network tells {outputs.shape[1]} classes apart, its teacher {taught.shape[1]}"
            )
        objective(outputs, labels, taught)
    return task.classes((outputs,))


def _check_own(
    model: nn.Module, teacher: nn.Module | None, batch: Batch, loss: OwnLoss | None, task: Task
) -> None:
    """Of outputs that are no class scores."""
    with judged(model), judged(teacher):
        if loss is not None:
            loss(Restoring(model, loss.restore), batch.inputs, batch.labels, 0)
        with torch.no_grad():
            answer = answer_of(model(batch.inputs))
            if teacher is not None:
                task.divergence(answer, answer_of(teacher(batch.inputs)))


def _run(model: nn.Module, inputs: Tensor, what: str) -> Tensor:
    try:
        return logits(model(inputs))
    except ShrinkcError:
        raise
    except Exception as error:  # the network's own code may raise anything
        shape = "×".join(map(str, inputs.shape[1:]))
        raise TrainingError(f"{what} fails on images of {shape}: {named(error)}") from error


def check_labels(images: Images, classes: int) -> None:
    """Raises DataError where the network has no output for a label."""
    assert images.labels is not None
    for label in (int(images.labels.min()), int(images.labels.max())):
        if not 0 <= label < classes:
            raise DataError(
                f"{images.source}: class {label}, but the network tells {classes} apart "
                f"(0 to {classes - 1}); number the classes as the network does"
            )


def check_images(
    training: Training, images: Images, validation: Validation | None, classes: int | None
) -> None:
    """Raises DataError where labels are missing or do not fit."""
    if training.labels is not None and images.labels is None:
        raise DataError(
            f"{images.source}: no class folders, so no labels, but the loss needs them; put each "
            "class into a folder of its own, or train against a teacher alone"
        )
    if training.by_task:
        return
    if images.labels is not None and classes is not None:
        check_labels(images, classes)
    if validation is None:
        return
    if validation.images.labels is not None:
        if classes is not None:
            check_labels(validation.images, classes)
    elif training.distillation is None:
        raise DataError(
            f"{validation.images.source}: neither labels nor a teacher to judge by; put each "
            "class into a folder of its own"
        )
