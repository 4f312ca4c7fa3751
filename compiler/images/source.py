"""What a user gives as images, whatever it is, becomes one thing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from shrinkc.compiler.images.arrays import read_arrays
from shrinkc.compiler.images.cache import Reading, load_images, with_margin
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.images.files import Batch, ImageSet, find_images, read_classes
from shrinkc.compiler.images.preprocessing import Preprocessing, preprocessing_for
from shrinkc.compiler.images.tensors import TensorImages, collected
from shrinkc.compiler.support.checks import check_whole, listed, path_of
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.task import LabelKind
from shrinkc.errors import InputError


@dataclass(frozen=True)
class ImageFolder:
    """A folder or tar of images, and how they become inputs.

    path      a folder, class folders, or a tar of them (.jpg, .jpeg, .png, .npy)
    resize    shorter side in pixels before the centre crop; default: 256/224 of the input's, the
              input's own up to 64 pixels
    mean      per channel, subtracted after scaling to 0–1; default: ImageNet's
    std       per channel, divided by; default: ImageNet's
    classes   class folder → class index, or a JSON file that says so; default: sorted order, where
              there is a folder for every class, or the folders' names, where they are numbers
    labelled  class folders are labels
    limit     use that many, spread over the classes
    """

    path: str | os.PathLike[str]
    resize: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    classes: Mapping[str, int] | str | os.PathLike[str] | None = None
    labelled: bool = True
    limit: int | None = None

    def __post_init__(self) -> None:
        path_of("path", self.path)
        for name, value in (("resize", self.resize), ("limit", self.limit)):
            if value is not None:
                check_whole(name, value, 1)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None:
                listed(name, values, Real, "numbers")


Given = (
    str
    | os.PathLike[str]
    | ImageFolder
    | Tensor
    | tuple[Tensor, Tensor]
    | Iterable[Tensor | tuple[Tensor, Tensor] | list[Tensor]]
)


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Images, and what happens to them before the network sees them; `preprocessing` is None for
    what is in memory as the network reads it."""

    images: ImageSet | TensorImages
    preprocessing: Preprocessing | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labelled(self) -> bool:
        return self.images.labelled

    @property
    def kind(self) -> LabelKind | None:
        """Of the labels."""
        if isinstance(self.images, TensorImages):
            return self.images.kind
        return "classes" if self.images.labelled else None

    def as_numbers(self) -> ImageSource:
        """With class indices as numbers: ages, counts."""
        images = self.images
        if isinstance(images, TensorImages) and images.labels is not None:
            images = replace(images, labels=images.labels.float())
        return replace(self, images=images)

    @property
    def labels(self) -> Tensor | None:
        """Those that came with tensors."""
        return self.images.labels if isinstance(self.images, TensorImages) else None

    def numbering(self, classes: int, parameter: str) -> ImageSource:
        """Labelled by a network's outputs, of which there are `classes`. Raises InputError where
        labels are none of them."""
        images, labels = self.images, self.labels
        if isinstance(images, ImageSet):
            return replace(self, images=images.numbering(classes, parameter))
        if labels is not None and self.kind == "classes" and int(labels.max()) >= classes:
            raise InputError(
                f"`{parameter}` has the label {int(labels.max())}; the network tells {classes} "
                f"classes apart, 0 to {classes - 1}"
            )
        return self

    @property
    def in_memory(self) -> bool:
        return isinstance(self.images, TensorImages)

    def at_most(self, limit: int) -> ImageSource:
        """`limit` of them, spread over the classes."""
        return self if len(self) <= limit else replace(self, images=self.images.spread(limit))

    def without_labels(self) -> ImageSource:
        return replace(self, images=self.images.without_labels())

    def examples(self, count: int) -> Batch | None:
        """At most so many as the network reads them, (n, C, H, W), and their labels; None where
        none of them can be read."""
        few = self.at_most(count).images
        if isinstance(few, TensorImages):
            return few.inputs, few.labels
        assert self.preprocessing is not None
        return next(few.batches(self.preprocessing, count, strict=False), None)

    def decoded(
        self, progress: Progress, *, cache: Path | None = None, margin: bool = True
    ) -> Images:
        """In memory, or with `cache` in a file there. `margin` keeps what lies around the centre
        crop, for random crops. Raises DataError as `load_images` does."""
        if isinstance(self.images, TensorImages) or self.preprocessing is None:
            return cast(TensorImages, self.images).decoded()
        stored = with_margin(self.preprocessing) if margin else self.preprocessing
        return load_images(self.images, stored, Reading(cache=cache), progress)


def image_source(
    given: Given,
    input_shapes: Sequence[tuple[int, ...]],
    parameter: str,
    *,
    labelled: bool = True,
    dtype: torch.dtype = torch.float32,
) -> ImageSource:
    """`given` for a network with one input. Images are for (N, C, H, W); for every other shape,
    folders hold `.npy` arrays as the network reads them.

    labelled  whether class folders are labels, unless `given` says that they are not
    dtype     that the network reads

    Raises InputError or ImageError that names `parameter`.
    """
    if len(input_shapes) != 1 or len(input_shapes[0]) < 2:
        raise InputError(f"`{parameter}` works for networks with one input (N, …); leave it out")
    shape = tuple(input_shapes[0])
    if isinstance(given, str | os.PathLike):
        given = ImageFolder(path_of(parameter, given))
    if not isinstance(given, ImageFolder):
        found = collected(given, shape[1:], parameter, dtype)
        return ImageSource(found)
    preprocessing = None
    if len(shape) == 4:
        preprocessing = preprocessing_for(
            shape, resize=given.resize, mean=given.mean, std=given.std
        )
    elif given.resize is not None or given.mean is not None or given.std is not None:
        raise InputError(
            "`resize`, `mean` and `std` are for images; this network reads arrays, as they are"
        )
    labelled = labelled and given.labelled
    classes: Any = given.classes if labelled else None
    if isinstance(classes, str | os.PathLike):
        classes = read_classes(Path(cast("str | os.PathLike[str]", classes)))
    path = path_of(parameter, given.path)
    images = find_images(path, classes=classes, limit=given.limit, parameter=parameter)
    images = images if labelled else images.without_labels()
    if preprocessing is None:
        return ImageSource(read_arrays(images, shape[1:], parameter, dtype))
    return ImageSource(images, preprocessing)
