"""Images as criteria see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx

from shrinkc.compiler.images.augment import Size
from shrinkc.compiler.images.decoded import Samples
from shrinkc.compiler.images.source import ImageSource
from shrinkc.compiler.recover.layer_problems import batch_for
from shrinkc.compiler.support.progress import Progress
from shrinkc.errors import InputError
from shrinkc.passes.criteria.shared.data import Batch

BATCH = 32  # images that criteria see at a time


def require_labels(source: ImageSource | None) -> None:
    """For `labels`. Raises InputError where the images have none."""
    if source is not None and not source.labelled:
        raise InputError(
            "`labels`: the `images` have none",
            "give class folders, or tensors with labels, or leave out `labels`",
        )


def seen_by_criteria(source: ImageSource, labels: bool, limit: int, progress: Progress) -> Samples:
    """At most `limit` of them as the network reads them; with labels where `labels` says that class
    folders are, and where they were given as tensors."""
    few = source.at_most(limit)
    if not labels and not few.in_memory:
        few = few.without_labels()
    return few.decoded(progress, margin=False)


def batches_of(images: Samples, graph: fx.GraphModule) -> list[Batch]:
    """All of them, in order, as the network takes them. Raises InputError as `batch_for`."""
    return list(InBatches(images, batch_for(graph, BATCH)))


@dataclass(frozen=True, eq=False)
class InBatches:
    """All of them, in order, each made ready when it is looked at, cut to the middle of `size`."""

    images: Samples
    batch: int = BATCH
    size: Size | None = None

    def __iter__(self) -> Iterator[Batch]:
        images = self.images
        for start in range(0, len(images), self.batch):
            rows = torch.arange(start, min(start + self.batch, len(images)))
            labels = None if images.labels is None else images.labels[rows]
            yield images.taken(rows, self.size), labels
