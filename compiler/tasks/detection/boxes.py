"""Boxes and class scores out of a detector's outputs, and what is left of them where they overlap.

Boxes here are left, top, right, bottom in pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from shrinkc.compiler.tasks.task import Answer
from shrinkc.errors import InputError

Layout = Literal["yolov8", "rows", "yolov5", "pair"]
Form = Literal["xywh", "xyxy"]
Scale = Literal["pixels", "unit"]
UNIT = 2.0  # the largest number of boxes in shares of the image: they may reach beyond it
MOST_PAIRS = 30_000  # of box and class, the surest, that suppression looks at
MOST_KEPT = 300  # boxes of an image
BLOCK = 256  # boxes that are compared with one another at once


@dataclass(frozen=True)
class Convention:
    """How a network returns boxes and scores, which are probabilities; A boxes, C classes.

    layout      "yolov8" (N, 4 + C, A); "rows" (N, A, 4 + C); "yolov5" (N, A, 5 + C), the fifth
                number being the probability of any object, which class scores are multiplied by;
                "pair", two outputs, boxes (N, A, 4) and scores (N, A, C)
    form        "xywh": centre, width, height; "xyxy": left, top, right, bottom
    scale       "pixels" of the network's input, or "unit": shares of its width and height
    background  the class that stands for no object, counted from 0; None: there is none
    """

    layout: Layout
    form: Form
    scale: Scale
    background: int | None = None

    def __str__(self) -> str:
        none = "" if self.background is None else f", class {self.background} being none"
        return f"{self.layout}, {self.form}, {self.scale}{none}"


def parts(answer: Answer, layout: Layout) -> tuple[Tensor, Tensor]:
    """Boxes (n, A, 4) as the network gives them, and scores (n, A, C). Raises InputError where the
    outputs have not this layout."""
    if layout == "pair":
        first = [one for one in answer if one.ndim == 3 and one.shape[2] == 4]
        rest = [one for one in answer if one.ndim == 3 and one is not (first or [None])[0]]
        if not first or not rest or first[0].shape[1] != rest[0].shape[1]:
            raise _refused(answer, "two outputs, boxes N×A×4 and scores N×A×classes")
        return first[0], rest[0]
    if answer[0].ndim != 3 or not answer[0].is_floating_point():
        raise _refused(answer, "one output of three dimensions")
    rows = answer[0].transpose(1, 2) if layout == "yolov8" else answer[0]
    least = 6 if layout == "yolov5" else 5
    if rows.shape[2] < least:
        raise _refused(answer, f"{least} or more numbers for each box")
    if layout == "yolov5":
        return rows[..., :4], rows[..., 5:] * rows[..., 4:5]
    return rows[..., :4], rows[..., 4:]


def layout_of(answer: Answer) -> Layout:
    """By the shapes of the outputs. YOLOv5's cannot be told from others. Raises InputError."""
    three = [one for one in answer if one.ndim == 3 and one.is_floating_point()]
    boxes = [one for one in three if one.shape[2] == 4]
    if boxes and any(one is not boxes[0] and one.shape[1] == boxes[0].shape[1] for one in three):
        return "pair"
    if not three or three[0] is not answer[0]:
        raise _refused(answer, "boxes and scores, N×(4 + classes)×A, N×A×(4 + classes), or two")
    return "yolov8" if answer[0].shape[1] < answer[0].shape[2] else "rows"


def _refused(answer: Answer, wanted: str) -> InputError:
    found = ", ".join("×".join(map(str, one.shape)) for one in answer)
    return InputError(
        f"`task` detection: the outputs are {found}; {wanted} are needed",
        "see docs/tasks.md for the layouts; the network's own decoding must be a part of it",
    )


def decoded(answer: Answer, how: Convention, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Boxes (n, A, 4) in pixels and scores (n, A, C) without the background. size: (height, width)
    of the network's input. Differentiable."""
    boxes, scores = parts(answer, how.layout)
    if how.background is not None:
        kept = [i for i in range(scores.shape[2]) if i != how.background % scores.shape[2]]
        scores = scores[..., kept]
    if how.form == "xywh":
        middle, half = boxes[..., :2], boxes[..., 2:] / 2
        boxes = torch.cat((middle - half, middle + half), 2)
    if how.scale == "unit":
        height, width = size
        boxes = boxes * boxes.new_tensor((width, height, width, height))
    return boxes, scores


@dataclass(frozen=True)
class Suppression:
    """What is done behind a network: of boxes of one class that overlap by more than `overlap` the
    surest stays, and none that is no surer than `least`. size: (height, width) of the input."""

    how: Convention
    size: tuple[int, int]
    least: float
    overlap: float

    def decoded(self, answer: Answer) -> tuple[Tensor, Tensor]:
        return decoded(answer, self.how, self.size)

    def detections(self, answer: Answer) -> list[Tensor]:
        """Of each image, as `suppressed` has them."""
        boxes, scores = (x.detach().cpu().float() for x in self.decoded(answer))
        return [
            suppressed(*pair, self.least, self.overlap) for pair in zip(boxes, scores, strict=True)
        ]


def as_dicts(labels: Iterable[Tensor]) -> list[dict[str, Tensor]]:
    """Labelled boxes (count, 6) of each image, filled up with class −1, as
    {"boxes": (count, 4), "labels": int64 (count,), "iscrowd": bool (count,)}."""
    found: list[dict[str, Tensor]] = []
    for rows in labels:
        own = rows.as_subclass(Tensor)
        own = own[own[:, 0] >= 0]
        found.append(
            {"boxes": own[:, 1:5], "labels": own[:, 0].long(), "iscrowd": own[:, 5].bool()}
        )
    return found


def suppressed(boxes: Tensor, scores: Tensor, least: float, overlap: float) -> Tensor:
    """Of one image, boxes (A, 4) and scores (A, C): the surest of each class that overlap none
    surer by more than `overlap`: (count, 6) of left, top, right, bottom, score, class, the surest
    first. Every class of a box whose score is above `least` counts."""
    sound = boxes.isfinite().all(1) & scores.isfinite().all(1)
    place, kind = ((scores > least) & sound[:, None]).nonzero(as_tuple=True)
    sure, order = scores[place, kind].sort(descending=True, stable=True)
    order, sure = order[:MOST_PAIRS], sure[:MOST_PAIRS]
    found: Tensor = boxes[place[order]]
    kinds: Tensor = kind[order]
    kept = [torch.zeros(0, dtype=torch.int64, device=boxes.device)]
    for one in range(scores.shape[1]):
        own: Tensor = torch.eq(kinds, one).nonzero()[:, 0]
        kept.append(own[_apart(found[own], overlap)])
    rows = torch.cat(kept).sort()[0][:MOST_KEPT]
    return torch.cat((found[rows], sure[rows, None], kinds[rows, None].to(found)), 1)


def _apart(boxes: Tensor, overlap: float) -> list[int]:
    """Of boxes of one class, the surest first, those that overlap none that is kept before them; by
    blocks, so that few operations compare many boxes and memory is bounded."""
    kept: list[int] = []
    for start in range(0, len(boxes), BLOCK):
        block = boxes[start : start + BLOCK]
        free = np.ones(len(block), dtype=bool)
        if kept:
            free = ~(overlaps(block[:, None], boxes[kept][None]) > overlap).any(1).cpu().numpy()
        inner = (overlaps(block[:, None], block[None]) > overlap).cpu().numpy()
        for i in range(len(block)):
            if free[i]:
                kept.append(start + i)
                free[i + 1 :] &= ~inner[i, i + 1 :]
        if len(kept) >= MOST_KEPT:
            break
    return kept


def overlaps(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes (…, 4)."""
    both, union, _ = areas(box, others)
    return both / union.clamp(min=1e-12)


def areas(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the intersection, of the union, and of the smallest box around both."""
    inner = torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(
        one[..., :2], other[..., :2]
    )
    outer = torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(
        one[..., :2], other[..., :2]
    )
    both = inner.clamp(min=0).prod(-1)
    sums = sum((x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1) for x in (one, other))
    return both, sums - both, outer.clamp(min=0).prod(-1)
