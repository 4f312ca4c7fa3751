"""What a changed network loses, on images that it was not fitted to: of the task's metric, where
answers are scored, and of every output.

With labels, what is lost is what the original scores by the task and the changed network does not.
Without them the task says what is to be expected of their answers alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import tee

import torch
from torch import Tensor, fx

from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.formats.registry import HOST_FORMAT
from shrinkc.compiler.plan.plan_file import OutputPromise, Promise
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.tally import ErrorEstimate, Estimate, Tally
from shrinkc.compiler.tasks.task import Answer, Task
from shrinkc.compiler.verify.files import Artefact
from shrinkc.passes.criteria.shared.data import Batch

Labelled = Iterable[Batch]
Answering = Callable[[tuple[Tensor, ...]], Answer]  # inputs (n, …) → the outputs


def promise_of(
    original: Answering,
    changed: Answering,
    batches: Labelled,
    *,
    task: Task = CLASSIFICATION,
    originals: Labelled | None = None,
) -> Promise:
    """What `changed` loses of what `original` has. `originals`: the same images as that reads them,
    where it reads larger ones."""
    tally = Tally(task)
    mine, theirs = tee(batches)
    for (x, labels), (y, _) in zip(mine, originals or theirs, strict=True):
        tally.add(changed(x), original(y), labels, len(x[0]))
    found = tally.judgement()
    drop = found.drop
    return Promise(
        images=found.images,
        outputs=tuple(_output(one) for one in found.errors),
        drop=drop and drop.value,
        interval=drop and drop.ends,
        agreement=found.agreement,
        labelled=found.labelled,
    )


def _output(found: ErrorEstimate) -> OutputPromise:
    worst = found.worst
    return OutputPromise(
        error=found.value, interval=found.ends, worst=worst.value, worst_interval=worst.ends
    )


def estimates(promise: Promise) -> tuple[ErrorEstimate, ...]:
    """Of every output, as they were judged."""
    none = None, None
    return tuple(
        ErrorEstimate(
            *(one.error, *(one.interval or none)),
            worst=Estimate(one.worst, *(one.worst_interval or none)),
        )
        for one in promise.outputs
    )


def answers(graph: fx.GraphModule) -> Answering:
    """Of the network in PyTorch."""

    @torch.no_grad()
    def run(x: tuple[Tensor, ...]) -> Answer:
        return graph(*x)

    return run


def answers_of_file(model: bytes, graph: fx.GraphModule, threads: int) -> Answering:
    """Of its file in HOST_FORMAT."""
    artefact = Artefact(HOST_FORMAT, model, lower(graph), HOST_FORMAT.open(model, threads))

    def run(x: tuple[Tensor, ...]) -> Answer:
        return tuple(map(torch.as_tensor, artefact.run(x)))

    return run
