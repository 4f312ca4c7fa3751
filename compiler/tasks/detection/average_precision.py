"""Mean average precision as COCO counts it (Lin et al., 2014), by pycocotools.

Boxes of an image are matched once; a set of images only adds the matches up, so that leaving some
of them out costs little.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shrinkc.errors import InputError

Rows = NDArray[np.float64]
NEEDED = "detection is judged by pycocotools: pip install 'shrinkc[detect]'"
MOST = 100  # detections of an image
ALL = [0.0, 1e10]  # areas


def require_pycocotools() -> None:
    """Raises InputError where it is not there."""
    if find_spec("pycocotools") is None:
        raise InputError(NEEDED)


@dataclass(frozen=True, eq=False)
class Found:
    """On one image: `detections` (count, 6) left, top, right, bottom, score, class; `wanted`
    (count, 6) class, left, top, right, bottom, whether it is a crowd."""

    detections: Rows
    wanted: Rows

    @cached_property
    def matches(self) -> dict[int, Any]:
        """pycocotools' matches, by class."""
        wanted = [_box(row[1:5], row[0]) | {"iscrowd": int(row[5])} for row in self.wanted]
        found = [_box(row[:4], row[5]) | {"score": float(row[4])} for row in self.detections]
        classes = sorted({int(one["category_id"]) for one in (*wanted, *found)})
        evaluation = _evaluation(classes, 1)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.cocoGt, evaluation.cocoDt = (
                _dataset(one, classes) for one in (wanted, found)
            )
            evaluation.evaluate()
        return dict(zip(classes, evaluation.evalImgs, strict=True))


def average_precision(images: Sequence[Found]) -> tuple[float, float] | None:
    """Over intersections over union of 0.5 to 0.95 in steps of 0.05, and at 0.5 alone; the mean
    over classes that are wanted anywhere. None where none is."""
    classes = sorted({int(row[0]) for one in images for row in one.wanted})
    if not classes:
        return None
    evaluation = _evaluation(classes, len(images))
    evaluation.evalImgs = [one.matches.get(kind) for kind in classes for one in images]
    evaluation._paramsEval = evaluation.params  # pyright: ignore[reportPrivateUsage]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    precision: Any = evaluation.eval["precision"][..., 0, 0]  # (overlaps, recalls, classes)
    known = precision[:, :, (precision > -1).all((0, 1))]
    if not known.size:
        return None
    return float(known.mean()), float(known[0].mean())


def _evaluation(classes: list[int], images: int) -> Any:
    evaluation: Any = import_module("pycocotools.cocoeval").COCOeval(iouType="bbox")
    parameters = evaluation.params
    parameters.catIds, parameters.imgIds = classes, list(range(images))
    parameters.maxDets, parameters.areaRng, parameters.areaRngLbl = [MOST], [ALL], ["all"]
    return evaluation


def _box(corners: Rows, kind: float) -> dict[str, Any]:
    left, top, right, bottom = map(float, corners)
    width, height = max(0.0, right - left), max(0.0, bottom - top)
    return {
        **{"image_id": 0, "category_id": int(kind), "bbox": [left, top, width, height]},
        **{"area": width * height, "iscrowd": 0},
    }


def _dataset(boxes: list[dict[str, Any]], classes: list[int]) -> Any:
    dataset: Any = import_module("pycocotools.coco").COCO()
    dataset.dataset = {
        "images": [{"id": 0}],
        "categories": [{"id": kind} for kind in classes],
        "annotations": [box | {"id": place} for place, box in enumerate(boxes, 1)],
    }
    dataset.createIndex()
    return dataset
