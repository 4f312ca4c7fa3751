"""What a user gives as images, whatever it is, becomes one thing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor

from shrinkc.compiler.images.annotations import Annotations, Files, beside, find_annotations
from shrinkc.compiler.images.arrays import read_arrays, read_stacked
from shrinkc.compiler.images.augment import Size
from shrinkc.compiler.images.cache import Reading, load_images, with_margin
from shrinkc.compiler.images.decoded import Samples
from shrinkc.compiler.images.files import ImageSet, find_images, read_classes
from shrinkc.compiler.images.preprocessing import Fit, Preprocessing, preprocessing_for
from shrinkc.compiler.images.tensors import Reads, TensorImages, collected
from shrinkc.compiler.support.checks import check_number, check_whole, listed, path_of
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.task import LabelKind
from shrinkc.errors import ImageError, InputError
from shrinkc.passes.criteria.shared.data import Batch


@dataclass(frozen=True)
class ImageFolder:
    """A folder or tar of images, and how they become inputs.

    path      a folder, class folders, or a tar of them (.jpg, .jpeg, .png, .webp, .bmp, .tif,
              .npy); for a network that reads no images, also one .npy (n, …), or an .npz of the
              inputs by their names, and their labels as `target`
    resize    shorter side in pixels before the centre crop, "letterbox" or "stretch"; default:
              256/224 of the input's, the input's own up to 64 pixels, letterbox for boxes
    mean      per channel, subtracted after scaling to 0–1; default: ImageNet's
    std       per channel, divided by; default: ImageNet's
    bgr       the channels in reverse
    scale     that pixels of 0–1 are multiplied by before `mean`: 255 leaves them as stored; `mean`
              is 0 and `std` 1 then, where they are not given
    classes   class → its index, or a file that says so: JSON, or a .txt of classes in the outputs'
              order: numbers class folders, and names the classes in files; default: the folders'
              sorted order, where there is one for every class, or their names, where those are
              numbers
    annotations  labels beside the images (docs/tasks.md): COCO's .json, or a folder of YOLO's .txt,
              of masks or of .npy; default: a folder `labels` beside `images`, where it has .txt
    labelled  class folders and annotations are labels
    limit     use that many, spread over the classes
    cache_gb  decoded images kept on the disk, 1e9 bytes at most; larger sets are decoded whenever
              they are read; default: half of what is free
    """

    path: str | os.PathLike[str]
    resize: int | Fit | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    classes: Mapping[str, int] | str | os.PathLike[str] | None = None
    labelled: bool = True
    limit: int | None = None
    bgr: bool = False
    scale: float | None = None
    annotations: str | os.PathLike[str] | None = None
    cache_gb: float | None = None

    def __post_init__(self) -> None:
        path_of("path", self.path)
        for name, value in (("resize", self.resize), ("limit", self.limit)):
            if value is not None and not (name == "resize" and value in get_args(Fit)):
                check_whole(name, value, 1)
        if self.scale is not None:
            check_number("scale", self.scale, above=True)
        if self.cache_gb is not None:
            check_number("cache_gb", self.cache_gb)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None:
                listed(name, values, Real, "numbers")


NO_IMAGES = None, None, None, False, None  # of what is for images
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
    what is in memory as the network reads it. `disk_bytes`: of decoded ones, at most."""

    images: ImageSet | TensorImages
    preprocessing: Preprocessing | None = None
    disk_bytes: int | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labelled(self) -> bool:
        return self.images.labelled

    @property
    def kind(self) -> LabelKind | None:
        """Of the labels."""
        found: LabelKind | None = self.images.kind
        return found

    @property
    def annotations(self) -> Annotations | None:
        return self.images.annotations if isinstance(self.images, ImageSet) else None

    @property
    def named(self) -> bool:
        """Whether classes are named by the user."""
        return isinstance(self.images, ImageSet) and bool(self.images.names)

    def as_numbers(self) -> ImageSource:
        """With class indices as numbers: ages, counts; with masks as images to be returned."""
        images = self.images
        if isinstance(images, ImageSet) and isinstance(images.annotations, Files):
            maps = replace(images.annotations, kind="numbers")
            return replace(self, images=replace(images, annotations=maps))
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

    @property
    def cropped(self) -> bool:
        """Whether the network reads the middle of each."""
        return self.preprocessing is not None and self.preprocessing.fit == "crop"

    def at_size(self, size: Size, closer: float = 1.0) -> ImageSource:
        """As a network reads them whose input is of another size: as much is seen of each, of those
        that are `cropped` so many times closer."""
        images, given = self.images, self.preprocessing
        if isinstance(images, TensorImages):
            return replace(self, images=images.at_size(size))
        return replace(self, preprocessing=given and given.at_size(size, closer))

    def examples(self, count: int) -> Batch | None:
        """At most so many as the network reads them, (n, …) of each input, and their labels; None
        where none of them can be read."""
        few = self.at_most(count).images
        if isinstance(few, TensorImages):
            return few.inputs, few.labels
        assert self.preprocessing is not None
        return next(few.batches(self.preprocessing, count, strict=False), None)

    def decoded(
        self, progress: Progress, *, cache: Path | None = None, margin: bool = True
    ) -> Samples:
        """In memory, or with `cache` in a file there. `margin` keeps what lies around the centre
        crop, for random crops. Raises DataError as `load_images` does."""
        if isinstance(self.images, TensorImages) or self.preprocessing is None:
            return cast(TensorImages, self.images).decoded()
        margin = margin and self.images.annotations is None  # which lie on what is read
        stored = with_margin(self.preprocessing) if margin else self.preprocessing
        reading = Reading(cache=cache, disk_bytes=self.disk_bytes)
        return load_images(self.images, stored, reading, progress)


def image_source(
    given: Given,
    input_shapes: Sequence[tuple[int, ...]],
    parameter: str,
    *,
    labelled: bool = True,
    dtypes: Sequence[torch.dtype] | None = None,
    names: Sequence[str] | None = None,
    optional: bool = False,
    unlabelled: bool = False,
) -> ImageSource:
    """`given` for a network. Images are for one input (N, C, H, W); for every other shape, folders
    hold `.npy` arrays as the network reads them, and for several inputs there is an `.npz`.

    labelled  whether class folders and annotations are labels, unless `given` says that they are
              not
    optional  annotations are not read where some image has none
    unlabelled  class folders that `classes` does not name are no labels: others are judged
    dtypes    that the network reads, for each input; None: float32
    names     of the inputs, where there are several

    Raises InputError or ImageError that names `parameter`.
    """
    if all(len(one) < 2 for one in input_shapes):
        raise InputError(f"`{parameter}` works for networks that read (N, …); leave it out")
    if len({one[:1] for one in map(tuple, input_shapes)}) > 1:
        held = ", ".join("×".join(map(str, one)) for one in input_shapes)
        raise InputError(
            f"`{parameter}`: the network reads {held}, not one (N, …) of every input, and where a "
            "sample ends cannot be told",
            "leave it out, or give `inputs` of one N",
        )
    dtypes = dtypes or [torch.float32] * len(input_shapes)
    names = names or [f"input_{i}" for i in range(len(input_shapes))]
    given_for = zip(input_shapes, dtypes, names, strict=True)
    reads = [Reads(tuple(shape[1:]), dtype, name) for shape, dtype, name in given_for]
    if isinstance(given, str | os.PathLike):
        given = ImageFolder(path_of(parameter, given))
    if not isinstance(given, ImageFolder):
        return ImageSource(collected(given, reads, parameter))
    path = path_of(parameter, given.path)
    if not path.is_dir() and path.suffix.lower() in (".npy", ".npz"):
        told = given.resize, given.mean, given.std, given.bgr, given.scale, given.classes
        if (*told, given.annotations) != (*NO_IMAGES, None, None):
            raise InputError(f"`{parameter}` holds arrays, which are read as they are")
        stacked = ImageSource(read_stacked(path, reads, parameter))
        stacked = stacked if labelled and given.labelled else stacked.without_labels()
        return stacked if given.limit is None else stacked.at_most(given.limit)
    if len(reads) > 1:
        raise InputError(
            f"`{parameter}`: the network has {len(reads)} inputs: give an .npz of the arrays "
            f"{', '.join(names)}, (n, …) each"
        )
    how = _Labelling(labelled and given.labelled, optional, unlabelled)
    return _of_folder(given, path, reads[0], parameter, how)


@dataclass(frozen=True)
class _Labelling:
    """As of `image_source`."""

    labelled: bool
    optional: bool
    unlabelled: bool


def _of_folder(
    given: ImageFolder, path: Path, reads: Reads, parameter: str, how: _Labelling
) -> ImageSource:
    """Files of a folder or a tar, images for (channels, height, width), otherwise arrays."""
    labelled, optional = how.labelled, how.optional
    annotations = _annotations(given, path, parameter) if labelled else None
    boxes = annotations is not None and annotations.kind == "boxes"
    preprocessing = None
    if len(reads.shape) == 3:
        preprocessing = preprocessing_for(
            (1, *reads.shape),
            resize="letterbox" if boxes and given.resize is None else given.resize,
            mean=given.mean,
            std=given.std,
            bgr=given.bgr,
            scale=given.scale,
        )
    elif (given.resize, given.mean, given.std, given.bgr, given.scale) != NO_IMAGES:
        raise InputError(
            "`resize`, `mean`, `std`, `bgr` and `scale` are for images; this network reads arrays, "
            "as they are"
        )
    labelled = labelled and annotations is None
    classes: Any = given.classes
    if isinstance(classes, str | os.PathLike):
        classes = read_classes(Path(cast("str | os.PathLike[str]", classes)))
    try:
        images = find_images(path, classes=classes, labelled=labelled, parameter=parameter)
    except ImageError:
        if not (how.unlabelled and labelled and classes is not None):
            raise
        images = find_images(path, classes=classes, labelled=False, parameter=parameter)
    if annotations is not None:
        if classes is not None and not images.names:
            raise InputError(
                "`classes` numbers class folders, and `annotations` are other labels",
                "give a name for every class, in the outputs' order, or leave it out",
            )
        annotations = annotations.matched(path, [one.name for one in images.entries])
    if given.limit is not None:
        images = images.spread(given.limit)
    if annotations is not None:
        names = [one.name for one in images.entries]
        if not (optional and annotations.missing(names)):
            images = replace(images, annotations=annotations.required(names, "annotations"))
    if preprocessing is None:
        return ImageSource(read_arrays(images, reads, parameter))
    disk_bytes = None if given.cache_gb is None else int(given.cache_gb * 1e9)
    return ImageSource(images, preprocessing, disk_bytes)


def letterboxed(given: Given) -> Given:
    """A folder whose images become inputs as those do that come with boxes, unless it says how."""
    folder: Any = given
    if isinstance(given, str | os.PathLike):
        folder = ImageFolder(given)
    if isinstance(folder, ImageFolder) and folder.resize is None:
        return replace(folder, resize="letterbox")
    return cast(Given, folder)


def _annotations(given: ImageFolder, path: Path, parameter: str) -> Annotations | None:
    """As given, or those that lie beside the images. Raises InputError, ImageError."""
    found = None if given.annotations is None else path_of("annotations", given.annotations)
    found = beside(path) if found is None else found
    if found is None:
        return None
    return find_annotations(found, "annotations")
