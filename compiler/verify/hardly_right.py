"""A network that is hardly ever right on a user's images is mostly not to blame: they are prepared
otherwise than in its training, or its classes come in another order.

It runs on a few of them again, prepared in the usual ways, and what fits best is told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch import Tensor, fx

from shrinkc.compiler.images.files import ImageSet
from shrinkc.compiler.images.preprocessing import (
    GREY_MEAN,
    GREY_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
)
from shrinkc.compiler.images.tensors import TensorImages
from shrinkc.compiler.tasks.task import Answer, Task, total

FEW_LABELS, HARDLY_EVER = 20, 0.1  # images; share of them that is right
MOST = 64  # images that are tried
CLEARLY = 0.2  # of them must be right besides, before another way is named
BYTE = 1 / 255
Numbers = tuple[float, ...]
USUAL: dict[int, tuple[tuple[Numbers, Numbers], ...]] = {  # by channels: means, deviations
    1: ((GREY_MEAN, GREY_STD), ((0.1307,), (0.3081,))),  # ImageNet's averages, MNIST's
    3: ((IMAGENET_MEAN, IMAGENET_STD), (IMAGENET_MEAN, (BYTE,) * 3)),  # and Caffe's
}


@dataclass(frozen=True)
class Way:
    """How images become inputs: pixels of 0 to 1 less `mean` over `std`, the channels in reverse
    before that (BGR), the shorter side resized; None: as it is."""

    mean: Numbers | None = None
    std: Numbers | None = None
    reverse: bool = False
    resize: int | None = None

    def __str__(self) -> str:
        said = [] if self.resize is None else [f"`resize` {self.resize}"]
        if self.mean is not None and self.std is not None:
            said += [f"`{n}` {_listed(v)}" for n, v in (("mean", self.mean), ("std", self.std))]
        if self.reverse:
            said.append("the channels in reverse (BGR)")
        *most, last = said or ["nothing else"]
        return f"{', '.join(most)} and {last}" if most else last


def usual_ways(channels: int) -> tuple[Way, ...]:
    """Normalisations that networks are trained with, each in RGB and BGR."""
    common = ((0.5, 0.5), (0.0, 1.0), (0.0, BYTE))
    pairs = [((mean,) * channels, (std,) * channels) for mean, std in common]
    pairs += USUAL.get(channels, ())
    orders = (False, True) if channels == 3 else (False,)
    ways = tuple(Way(mean, std, reverse) for mean, std in pairs for reverse in orders)
    return (Way(reverse=True), *ways) if channels == 3 else ways


def is_hardly_right(top1: float | None, labelled: int) -> bool:
    """Of a network's score on so many labelled images."""
    return top1 is not None and labelled >= FEW_LABELS and top1 <= HARDLY_EVER


def why_hardly_right(
    graph: fx.GraphModule,
    images: ImageSet | TensorImages,
    preprocessing: Preprocessing | None,
    task: Task,
) -> tuple[str, ...]:
    """What a user should know, one sentence; () where the network is right more often after all,
    and where labels are no classes. At most MOST of the labelled `images` are looked at.

    preprocessing  None: `images` are as the network reads them
    """
    shape, *others = graph.meta["input_shapes"].values()
    batch = shape[0]
    if others:
        said = "the network itself is hardly ever right on the inputs as they are"
        return (f"{said}: check its weights, and that the labels are of these inputs",)
    if len(images) < batch:  # no batch is whole
        return ()
    trial = _Trial(graph, images.spread(max(MOST, batch)), preprocessing, task)
    answers, labels = trial.answers(Way())
    now, chosen, classes = trial.share(Way()), task.labels(answers), task.classes(answers)
    if not is_hardly_right(now, len(labels)) or chosen is None or classes is None:
        return ()
    way = trial.best_way()
    order, in_order = best_order([int(a) for a in chosen], [int(y) for y in labels], classes)
    what = "images" if len(shape) == 4 else "inputs"
    said = f"the network itself is right on {now:.1%} of the {what} as they are prepared"
    if max(order, trial.share(way)) < now + CLEARLY:
        if len(shape) != 4:  # no images
            return (f"{said}: check its weights, and that the labels are of these inputs",)
        said += ", and no usual way to normalise, resize or number them makes it right: check "
        return (f"{said}its weights, `mean`, `std`, `resize` and `classes`",)
    if order > trial.share(way):
        said += f"; {in_order} it would be {order:.1%}: give `classes`, the index of each folder"
        return (said,)
    words = str(way) if preprocessing is not None else str(way).replace("`", "")
    return (f"{said}; with {words} it would be {trial.share(way):.1%}",)


@dataclass(frozen=True, eq=False)
class _Trial:
    graph: fx.GraphModule
    images: ImageSet | TensorImages
    preprocessing: Preprocessing | None
    task: Task
    shares: dict[Way, float] = field(default_factory=dict[Way, float])

    def best_way(self) -> Way:
        """Of all normalisations, then of sizes with it and as it is."""
        channels = next(iter(self.graph.meta["input_shapes"].values()))[1]
        scaled = self.preprocessing is not None and self.preprocessing.scale != 1
        ways = usual_ways(channels) if self.holds_pixels and not scaled else ()
        best = max((Way(), *ways), key=self.share)
        if self.preprocessing is not None and self.preprocessing.fit == "crop":
            side = max(self.preprocessing.size)
            sizes = {side, round(side * 256 / 224)} - {self.preprocessing.resize}
            best = max((best, *(replace(best, resize=size) for size in sizes)), key=self.share)
        return best

    def share(self, way: Way) -> float:
        """That is right."""
        if way not in self.shares:
            answers, labels = self.answers(way)
            self.shares[way] = total(self.task.correct(answers, labels), len(labels)) / len(labels)
        return self.shares[way]

    @torch.no_grad()
    def answers(self, way: Way) -> tuple[Answer, Tensor]:
        """Of whole batches as the network was captured with, and the labels of those images."""
        inputs, labels = self._inputs(way)
        batch = next(iter(self.graph.meta["input_shapes"].values()))[0]
        whole = len(inputs) // batch * batch
        starts = range(0, whole, batch)
        parts: list[Answer] = [self.graph(inputs[start : start + batch]) for start in starts]
        return tuple(torch.cat(one) for one in zip(*parts, strict=True)), labels[:whole]

    def _inputs(self, way: Way) -> tuple[Tensor, Tensor]:
        x, labels = self._read(way.resize)
        given, mean, std = self.preprocessing, way.mean, way.std
        if way.reverse:
            x = x.flip(1)
        if given is not None and mean is None:
            x = x * given.scale
        if given is None:
            if mean is None or std is None:
                return x, labels
            x = x / 255 if float(x.max()) > 1 else x
        mean, std = mean or (given and given.mean) or (0.0,), std or (given and given.std) or (1.0,)
        return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None], labels

    @cached_property
    def holds_pixels(self) -> bool:
        """Whether values are pixels, of 0 to 1 or to 255: always those that are read here."""
        x = self._read(None)[0]
        return self.preprocessing is not None or (float(x.min()) >= 0 and float(x.max()) <= 255)

    def _read(self, resize: int | None) -> tuple[Tensor, Tensor]:
        """Pixels of 0 to 1 (n, channels, height, width), tensors as they are, and labels (n,)."""
        given = self.preprocessing
        if isinstance(self.images, TensorImages) or given is None:
            found = list(cast(TensorImages, self.images).batches())
        else:
            plain = replace(
                given, resize=resize or given.resize, mean=(0.0,), std=(1.0,), scale=1.0
            )
            found = list(self.images.batches(plain))
        labels = [y for _, y in found if y is not None]
        return torch.cat([x for (x,), _ in found]), torch.cat(labels)


# --- the order of classes ------------------------------------------------------------------------


def best_order(answers: list[int], labels: list[int], classes: int) -> tuple[float, str]:
    """The share that is right with labels numbered otherwise, and how, in words."""
    (shift, often), *_ = Counter(a - y for a, y in zip(answers, labels, strict=True)).most_common(1)
    shifted = often / len(labels), f"with {shift:+d} to every class"
    permuted = _permuted(answers, labels, classes), "with the classes in another order"
    return max(shifted, permuted) if shift else permuted


def _permuted(answers: list[int], labels: list[int], classes: int) -> float:
    """The share that one permutation makes right: found on one half of each class's images, judged
    on the other, since any single image fits some permutation."""
    halves: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    seen = defaultdict[int, int](int)
    for answer, label in zip(answers, labels, strict=True):
        halves[seen[label] % 2].append((label, answer))
        seen[label] += 1
    from scipy.optimize import linear_sum_assignment  # slower to import than most networks to run

    right = 0
    for fitted, judged in (halves, halves[::-1]):
        counts = np.zeros((classes, classes))
        for label, answer in fitted:
            if answer >= 0:
                counts[label, answer] += 1
        rows, columns = linear_sum_assignment(counts, maximize=True)
        known = {int(r): int(c) for r, c in zip(rows, columns, strict=True) if counts[r, c]}
        right += sum(known.get(label) == answer for label, answer in judged)
    return right / len(labels)


def _listed(values: Numbers) -> str:
    return ",".join(f"{value:.4g}" for value in values)
