"""What a changed network loses, on images that it was not fitted to.

With labels, what is lost is what the original scores by the task and the changed network does not.
Without them the task says what is to be expected of their answers alone.

Few images say little: the interval is where the loss on all images of the kind lies in 95 of
100 cases. Half an image more is counted in each of the four cells right or wrong, before and after
(Agresti and Min, 2005), so that no change on few images is no proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, fx

from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.formats.registry import HOST_FORMAT
from shrinkc.compiler.plan.plan_file import Promise
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Answer, Task, total
from shrinkc.compiler.verify.files import Artefact

Labelled = Iterable[tuple[Tensor, Tensor | None]]
Answering = Callable[[Tensor], Answer]  # inputs (n, …) → the outputs
SURE = 1.96  # standard errors to either side: 95 of 100


def promise_of(
    original: Answering, changed: Answering, batches: Labelled, *, task: Task = CLASSIFICATION
) -> Promise:
    """What `changed` loses of what `original` has."""
    images, same = 0, 0.0
    counted, expected = list[Tensor](), list[Tensor]()
    for x, labels in batches:
        old, new = original(x), changed(x)
        images += len(x)
        same += total(task.agree(new, old), len(x))
        expected.append(task.expected_drop(new, old).double())
        if labels is not None:
            right = task.correct(old, labels).double(), task.correct(new, labels).double()
            counted.append(right[0] - right[1])
    labelled = len(counted) == len(expected) > 0
    lost = torch.cat([*(counted if labelled else expected), torch.zeros(0)])
    return Promise(
        images=images,
        drop=float(lost.sum()) / max(images, 1),
        interval=interval(lost),
        agreement=same / max(images, 1),
        labelled=labelled,
    )


def interval(lost: Tensor) -> tuple[float, float]:
    """Of the mean of what single images lose, −1 to 1 each."""
    count = len(lost) + 2
    mean = float(lost.sum()) / count
    spread = (float(lost.square().sum()) + 1) / count - mean**2
    width = SURE * (spread / count) ** 0.5
    return max(-1.0, mean - width), min(1.0, mean + width)


def answers(graph: fx.GraphModule) -> Answering:
    """Of the network in PyTorch."""

    @torch.no_grad()
    def run(x: Tensor) -> Answer:
        return graph(x)

    return run


def answers_of_file(model: bytes, graph: fx.GraphModule, threads: int) -> Answering:
    """Of its file in HOST_FORMAT."""
    artefact = Artefact(HOST_FORMAT, model, lower(graph), HOST_FORMAT.open(model, threads))

    def run(x: Tensor) -> Answer:
        return tuple(map(torch.as_tensor, artefact.run((x,))))

    return run
