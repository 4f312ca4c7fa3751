"""Boxes of objects, and their classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast, get_args

import numpy as np
import torch
from torch import Tensor

from shrinkc.compiler.tasks.classification import LEAST
from shrinkc.compiler.tasks.detection.average_precision import (
    Found,
    average_precision,
    require_pycocotools,
)
from shrinkc.compiler.tasks.detection.boxes import (
    UNIT,
    Convention,
    Form,
    Layout,
    Scale,
    Suppression,
    areas,
    layout_of,
    parts,
)
from shrinkc.compiler.tasks.outputs import Output, check_weights, outputs_of, summed
from shrinkc.compiler.tasks.task import Answer, Evidence, LabelKind, PooledTask, Style
from shrinkc.errors import InputError

BOX = 6  # numbers of a labelled box: class, left, top, right, bottom, whether it is a crowd


@dataclass(frozen=True)
class Detection(PooledTask):
    """Boxes and the probabilities of their classes, decoded by the network itself; `Convention`
    says how they are returned. Without labels the original's own detections are the truth.

    The metric is COCO's mean average precision over overlaps of 0.5 to 0.95, at most 100
    detections of an image, after suppression within each class.

    layout, form, scale, background  as of `Convention`; None: told by shapes and numbers. Boxes are
             "xywh", those of a pair "xyxy".
    overlap  intersection over union above which the less sure of two boxes goes
    least    score below which a box does not count
    sure     score from which the original's detections are the truth
    nms      beside each file that can hold it, one whose network ends with the suppression
    outputs  by a network's own answers (`scaled`)
    weights  of every output in the divergence, but that boxes and scores weigh as the first
    size     (height, width) of the network's input
    """

    layout: Layout | None = None
    form: Form | None = None
    scale: Scale | None = None
    background: int | None = None
    overlap: float = 0.65
    least: float = 0.001
    sure: float = 0.25
    nms: bool = False
    outputs: tuple[Output, ...] = ()
    weights: tuple[float, ...] = ()
    size: tuple[int, int] | None = None
    told: bool = field(default=False, repr=False, compare=False)
    why: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        check_weights(self.weights)
        for name, value, known in (
            ("layout", self.layout, get_args(Layout)),
            ("form", self.form, get_args(Form)),
            ("scale", self.scale, get_args(Scale)),
        ):
            if value not in (None, *known):
                raise InputError(f"`task` detect: {name} {value}; choose {', '.join(known)}")
        for name, share in (("overlap", self.overlap), ("least", self.least), ("sure", self.sure)):
            if not 0 <= share <= 1:
                raise InputError(f"`task` detect: {name} {share:g}; give a number from 0 to 1")

    @property
    def name(self) -> str:
        return "detection"

    @property
    def metric(self) -> str:
        return "mAP"

    @property
    def style(self) -> Style:
        return "number"

    @property
    def likeness(self) -> str:
        return "mAP against the original's detections"

    @property
    def reads(self) -> LabelKind:
        return "boxes"

    @property
    def notes(self) -> tuple[str, ...]:
        told = (f"boxes are read as {self.convention}; `task` says otherwise",) if self.told else ()
        return (*super().notes, *told)

    @property
    def convention(self) -> Convention:
        assert self.layout is not None  # known once it is `scaled`
        form = self.form or ("xyxy" if self.layout == "pair" else "xywh")
        return Convention(self.layout, form, self.scale or "pixels", self.background)

    @property
    def suppression(self) -> Suppression:
        """Of the network's answers."""
        return Suppression(self.convention, self.size or (1, 1), self.least, self.overlap)

    def of_inputs(self, shapes: tuple[tuple[int, ...], ...]) -> Detection:
        if self.size is not None or len(shapes[0]) != 4:
            return self
        return replace(self, size=(shapes[0][2], shapes[0][3]))

    def scaled(self, reference: Answer, samples: int) -> Detection:
        """Raises InputError for outputs of another layout, and for scores that are no
        probabilities."""
        require_pycocotools()
        layout = self.layout or layout_of(reference)
        boxes, scores = parts(reference, layout)
        least, most = float(scores.min()), float(scores.max())
        if not (least >= -1e-3 and most <= 1 + 1e-3):
            raise InputError(
                f"`task` detection: read as {layout}, scores are {least:.3g} to {most:.3g}, no "
                "probabilities",
                "give another `layout`, or a network that ends with its own decoding",
            )
        scale = self.scale or ("unit" if float(boxes.abs().max()) <= UNIT else "pixels")
        if scale == "unit" and self.size is None:
            raise InputError("`task` detection: `size` of the input is needed; give height, width")
        told = self.told or self.layout is None or self.scale is None
        outputs = outputs_of(reference, samples, self.weights)
        return replace(self, layout=layout, scale=scale, outputs=outputs, told=told)

    def judges(self, answer: Answer) -> bool:
        return True

    def counts(self, answer: Answer, labels: Tensor) -> bool:
        return labels.ndim == 3 and labels.shape[2] == BOX

    def check_labels(self, answer: Answer, labels: Tensor, parameter: str) -> None:
        """Raises InputError where a box names a class that the network has not."""
        known = self.classes(answer) or 0
        most = int(labels[..., 0].max())
        if most >= known:
            raise InputError(
                f"`{parameter}` has a box of class {most}; the network tells {known} classes "
                f"apart, 0 to {known - 1}",
                "number them from 0; `layout` and `background` of the task say what is no class",
            )

    def classes(self, answer: Answer) -> int | None:
        return self.suppression.decoded(answer)[1].shape[2]

    def truth(self, reference: Answer) -> Tensor:
        """Boxes (n, most, 6), filled up with class −1."""
        found = [one[one[:, 4] >= self.sure] for one in self.suppression.detections(reference)]
        rows = torch.full((len(found), max(1, *map(len, found)), BOX), -1.0)
        for place, one in enumerate(found):
            no_crowd = torch.zeros(len(one), 1)
            rows[place, : len(one)] = torch.cat((one[:, 5:], one[:, :4], no_crowd), 1)
        return rows

    def evidence(self, answer: Answer, labels: Tensor) -> Evidence:
        rows = labels.as_subclass(Tensor).cpu()
        self.check_labels(answer, rows, "labels")
        wanted = [one[one[:, 0] >= 0] for one in rows]
        return [
            Found(*(one.double().numpy().astype(np.float64) for one in pair))
            for pair in zip(self.suppression.detections(answer), wanted, strict=True)
        ]

    def score(self, evidence: Evidence) -> float:
        """Raises InputError where no box is wanted."""
        found = average_precision(cast("list[Found]", list(evidence)))
        if found is None:
            raise InputError(
                "no image has a box to find, so there is no mAP",
                f"give images with objects; without labels the original must be {self.sure:g} sure",
            )
        return found[0]

    def details(self, evidence: Evidence) -> Mapping[str, float]:
        found = average_precision(cast("list[Found]", list(evidence)))
        return {} if found is None else {"mAP50": found[1]}

    def divergence(self, answer: Answer, reference: Answer) -> Tensor:
        """What boxes and scores are from the reference's, over the sum w of all boxes' highest
        probabilities, at least 1: Σ KL of every class's probability in nats, and Σ w · (1 − GIoU)
        of the boxes (Rezatofighi et al., 2019); of further outputs the squared error over their
        variance: (n,)."""
        (boxes, q), (wanted, p) = map(self.suppression.decoded, (answer, reference))
        p, q = (x.double().clamp(LEAST, 1 - LEAST) for x in (p, q))
        apart = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        sure = p.amax(2)
        off = sure * _off(boxes.double(), wanted.double())
        found = (apart.sum((1, 2)) + off.sum(1)) / sure.sum(1).clamp(min=1)
        weight = self.weights[0] if self.weights else 1.0
        own = 2 if self.convention.layout == "pair" else 1
        if len(reference) == own:
            return weight * found
        outputs = self.outputs or outputs_of(reference, len(reference[0]), self.weights)
        rest = summed(answer[own:], reference[own:], outputs[own:], None, self.weights[own:])
        return weight * found + rest

    def _single(self, evidence: Evidence, answer: Answer) -> Tensor:
        """An image without objects is right where nothing is seen in it."""
        found: list[float] = []
        for one in cast("list[Found]", list(evidence)):
            alone = average_precision([one])
            seen = bool((one.detections[:, 4] >= self.sure).any())
            found.append(float(not seen) if alone is None else alone[0])
        return torch.tensor(found, dtype=torch.float64, device=answer[0].device)


def _off(one: Tensor, other: Tensor) -> Tensor:
    """1 − generalised intersection over union: (n, A), 0 to 2; 0 for equal boxes of any size."""
    both, union, around = areas(one, other)
    tiny = 1e-9
    return 1 - (both + tiny) / (union + tiny) + (around - union) / (around + tiny)
