"""Labels that come with tensors: one tensor (n, …) whatever their kind is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from shrinkc.compiler.tasks.task import LabelKind
from shrinkc.errors import InputError

BOX = 6  # numbers of a box: class, left, top, right, bottom in pixels, whether it is a crowd
NO_BOX = -1.0  # the class of what fills up images with fewer boxes than others
WANTED = "give one class index, from 0, for each image"


def kind_of(labels: Tensor | None) -> LabelKind | None:
    """Integers of one dimension are classes, of three or four masks, floats are numbers; boxes are
    float32 (n, most, 6), as `boxes_of` makes them."""
    if labels is None:
        return None
    if not labels.is_floating_point():
        return "classes" if labels.ndim == 1 else "masks"
    return "boxes" if is_boxes(labels) else "numbers"


class Boxes(Tensor):
    """(n, most, 6) boxes of n images, filled up with rows of class −1. A type of its own, since
    the same shape may hold any other numbers."""


def is_boxes(labels: Tensor) -> bool:
    return isinstance(labels, Boxes)


def boxes_of(rows: Sequence[Tensor]) -> Tensor:
    """(n, most, 6) of (count, 6) for each image."""
    most = max((len(one) for one in rows), default=0)
    found = torch.full((len(rows), max(1, most), BOX), NO_BOX)
    for place, one in enumerate(rows):
        found[place, : len(one)] = one
    return found.as_subclass(Boxes)


def joined(labels: Sequence[Tensor]) -> Tensor:
    """Of several batches."""
    if is_boxes(labels[0]):
        return boxes_of([one for batch in labels for one in batch])
    return torch.cat(list(labels))


def labels_of(given: Any, count: int, parameter: str, *, single: bool = False) -> Tensor:
    """What a user gives beside `count` inputs: (count, …). `single`: beside one without a batch.
    Raises InputError that names `parameter`."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        given = torch.tensor([given])
    if isinstance(given, np.ndarray | np.generic):
        given = torch.as_tensor(cast(Any, given))
    if isinstance(given, Mapping):
        given = [given]
    if _are_boxes(given):
        images = cast("Sequence[Mapping[str, Any]]", given)
        return boxes_of([_boxes(one, parameter) for one in images])
    if not isinstance(given, Tensor):
        raise InputError(f"`{parameter}` has labels in a {type(given).__name__}; {WANTED}")
    if single and (given.ndim > 1 or given.is_floating_point() or given.numel() > 1):
        given = given[None]
    form = "×".join(map(str, given.shape)) or "a single number"
    if given.is_complex() or (not given.is_floating_point() and given.ndim == 2):
        kind = str(given.dtype).removeprefix("torch.")
        raise InputError(f"`{parameter}` has labels of {kind}, shape {form}; {WANTED}")
    y = given.detach().to("cpu", torch.float32 if given.is_floating_point() else torch.int64)
    y = y.reshape(1) if y.ndim == 0 else y
    if len(y) != count:
        raise InputError(f"`{parameter}` has {len(y)} labels for {count} images; give one for each")
    if y.is_floating_point() and not bool(y.isfinite().all()):
        raise InputError(f"`{parameter}` has labels that are NaN or infinite; give finite numbers")
    if kind_of(y) == "classes" and int(y.min()) < 0:
        raise InputError(f"`{parameter}` has the label {int(y.min())}; {WANTED}")
    return y


def _are_boxes(given: Any) -> bool:
    several = cast("Sequence[Any]", given) if isinstance(given, list | tuple) else ()
    return bool(several) and all(isinstance(one, Mapping) for one in several)


def _boxes(given: Mapping[str, Any], parameter: str) -> Tensor:
    """{"boxes": (count, 4), "labels": (count,)} of one image → (count, 6)."""
    wanted = 'give {"boxes": (count, 4) left, top, right, bottom in pixels, "labels": (count,)}'
    if not {"boxes", "labels"} <= given.keys():
        raise InputError(f"`{parameter}` has labels of {sorted(map(str, given))}; {wanted}")
    boxes = torch.as_tensor(given["boxes"]).detach().cpu().float().reshape(-1, 4)
    classes = torch.as_tensor(given["labels"]).detach().cpu().float().reshape(-1)
    crowds = torch.as_tensor(given.get("iscrowd", torch.zeros(len(classes)))).cpu().float()
    if len(boxes) != len(classes) or len(crowds) != len(classes):
        raise InputError(
            f"`{parameter}` has {len(boxes)} boxes and {len(classes)} labels for an image; {wanted}"
        )
    check_boxes(boxes, f"`{parameter}`")
    if len(classes) and float(classes.min()) < 0:
        raise InputError(f"`{parameter}` has a box of class {int(classes.min())}; count from 0")
    return torch.cat((classes[:, None], boxes, crowds[:, None]), 1)


def check_boxes(boxes: Tensor, said: str) -> None:
    """Raise InputError for boxes (count, 4) that are none."""
    wrong = (boxes[:, 2:] <= boxes[:, :2]).any(1) | ~boxes.isfinite().all(1)
    if bool(wrong.any()):
        box = ", ".join(f"{float(x):g}" for x in boxes[wrong][0])
        raise InputError(
            f"{said} has the box {box}; give left, top, right, bottom in pixels, right and bottom "
            "beyond left and top"
        )
