"""Labels that lie beside images in files: boxes, masks, arrays of numbers.

    boxes   COCO's JSON, or YOLO's .txt for each image: class, centre x, y, width, height in shares
    masks   a .png (.bmp, .tif) of class indices for each image, of the image's size
    numbers a .npy for each image, as the network returns them, or a .png that the network is to
            return, of 0 to 1

What is named like an image, up to the suffix, is the image's: by the path below the folder, or by
the end of it that both have. Boxes and masks follow the image where it is resized, cropped or
letterboxed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from shrinkc.compiler.images.labels import BOX, boxes_of
from shrinkc.compiler.images.preprocessing import (
    Preprocessing,
    decode,
    put,
    read_numbers,
    read_target,
)
from shrinkc.compiler.support.reading.regular_file import read_regular
from shrinkc.compiler.support.reading.strict_json import parse_json
from shrinkc.compiler.support.text import counted, one_line, shown
from shrinkc.compiler.tasks.task import LabelKind
from shrinkc.errors import ImageError

MAX_BYTES = 2 << 30  # of a JSON file
MAX_FILE = 1 << 28  # of one mask, array or text
MASKS, ARRAYS, TEXTS = (".png", ".bmp", ".tif", ".tiff"), (".npy",), (".txt",)
IGNORED = 255  # the class of what lies around a letterboxed mask
OUTSIDE = 2.0  # pixels, or OUTSIDE_SHARE, that a box may reach beyond its image
OUTSIDE_SHARE = 0.005
VISIBLE = 1.0  # square pixels of a box that are left of it where it is cropped
Size = tuple[int, int]  # width, height


class Annotations(ABC):
    """Labels by the paths, without suffix, that they are given for; once `matched`, by images'
    names."""

    kind: LabelKind
    path: Path
    class_names: tuple[str, ...] = ()  # once `numbered`, where they are known
    places: Mapping[str, Path]  # once `matched`: which image each label is of

    @abstractmethod
    def matched(self, folder: Path, names: Sequence[str]) -> Annotations:
        """By the names of the images in a folder. Raises ImageError where a label is of two, or two
        are of one."""

    @abstractmethod
    def of(self, name: str, size: Size, preprocessing: Preprocessing | None) -> Tensor:
        """Of one image of `size`, once it is the network's input. Raises ImageError."""

    def joined(self, labels: Sequence[Tensor]) -> Tensor:
        """Of several images: (n, …)."""
        return torch.stack(list(labels))

    @abstractmethod
    def missing(self, names: Iterable[str]) -> list[str]:
        """Images that have no labels."""

    def required(self, names: Sequence[str], parameter: str) -> Annotations:
        """For these images. Raises ImageError where some have none."""
        without = self.missing(names)
        if without:
            raise ImageError(
                f"without a label in `{parameter}`: {len(without):,} of "
                f"{counted(len(names), 'image')}, first '{shown(without[0])}'; add them, or leave "
                "the images out"
            )
        return self

    def numbered(self, classes: int) -> Annotations:
        """With classes by a network's outputs, of which there are so many. Raises ImageError."""
        return self


@dataclass(frozen=True, eq=False)
class Boxes(Annotations):
    """`boxes`: (count, 6) of an image: class, left, top, right, bottom, whether it is a crowd; in
    shares of the image's sides where `shares`, otherwise in pixels.

    names     of COCO's categories, by their ids; {} where classes are numbered already
    complete  an image that is not named has no objects
    """

    boxes: Mapping[str, Tensor]
    path: Path
    shares: bool
    names: Mapping[int, str] = field(default_factory=dict[int, str])
    complete: bool = False
    kind: LabelKind = "boxes"
    class_names: tuple[str, ...] = ()
    places: Mapping[str, Path] = field(default_factory=dict[str, Path])

    def matched(self, folder: Path, names: Sequence[str]) -> Boxes:
        found = _by_images(self.boxes, folder, names, self.path)
        boxes = {name: self.boxes[key] for name, key in found.items()}
        return replace(self, boxes=boxes, places=_placed(found, folder))

    def of(self, name: str, size: Size, preprocessing: Preprocessing | None) -> Tensor:
        assert preprocessing is not None  # boxes are of images
        rows = self.boxes.get(name, torch.zeros(0, BOX))
        width, height = size
        corners = rows[:, 1:5] * (torch.tensor([width, height] * 2) if self.shares else 1)
        beyond = max(OUTSIDE, OUTSIDE_SHARE * max(size))
        far = (corners < -beyond) | (corners > torch.tensor([width, height] * 2) + beyond)
        if bool(far.any()):
            box = ", ".join(f"{float(x):g}" for x in corners[far.any(1)][0])
            raise ImageError(
                f"{self.path}: the box {box} of '{shown(name)}' lies outside the image, "
                f"{width}×{height}; correct it"
            )
        place = preprocessing.placed(width, height)
        scale = torch.tensor([place.target[0] / width, place.target[1] / height] * 2)
        corners = corners * scale + torch.tensor([place.left, place.top] * 2)
        rows_, columns = preprocessing.size
        corners = torch.minimum(corners.clamp(min=0), torch.tensor([columns, rows_] * 2))
        found = torch.cat((rows[:, :1], corners, rows[:, 5:]), 1).float()
        return found[(found[:, 3:5] - found[:, 1:3]).clamp(min=0).prod(1) >= VISIBLE]

    def joined(self, labels: Sequence[Tensor]) -> Tensor:
        return boxes_of(labels)

    def missing(self, names: Iterable[str]) -> list[str]:
        if self.complete and self.boxes:
            return []
        return [name for name in names if name not in self.boxes]

    def numbered(self, classes: int) -> Boxes:
        """COCO's ids by their order where there are as many as classes, else as they are."""
        ids = sorted(self.names)
        if not ids:
            return self
        if len(ids) == classes:
            order = {one: place for place, one in enumerate(ids)}
        elif ids[-1] < classes:
            order = {one: one for one in ids}
        else:
            raise ImageError(
                f"{self.path}: {counted(len(ids), 'category', 'categories')} with ids up to "
                f"{ids[-1]} cannot number the {classes} classes that the network tells apart; "
                "give a category for each, in order, or ids from 0 to one less than classes"
            )
        boxes: dict[str, Tensor] = {}
        for name, rows in self.boxes.items():
            boxes[name] = rows.clone()
            boxes[name][:, 0] = torch.tensor([order[int(one)] for one in rows[:, 0]])
        named = tuple(" ".join(self.names[one].split()) for one in ids)
        known = named if len(named) == classes and all(named) else ()
        return replace(self, boxes=boxes, names={}, class_names=known)


@dataclass(frozen=True, eq=False)
class Files(Annotations):
    """Masks, arrays or maps of numbers as images, each a file."""

    files: Mapping[str, Path]
    path: Path
    kind: LabelKind
    places: Mapping[str, Path] = field(default_factory=dict[str, Path])

    def matched(self, folder: Path, names: Sequence[str]) -> Files:
        found = _by_images(self.files, folder, names, self.path)
        files = {name: self.files[key] for name, key in found.items()}
        return replace(self, files=files, places=_placed(found, folder))

    def of(self, name: str, size: Size, preprocessing: Preprocessing | None) -> Tensor:
        path = self.files.get(name)
        if path is None:
            raise ImageError(f"{self.path}: no label for '{shown(name)}'; add it")
        try:
            data = _bytes(path, MAX_FILE)
            if path.suffix.lower() in ARRAYS:
                return _numbers(data)
            assert preprocessing is not None  # masks and maps are of images
            if self.kind == "numbers":
                return torch.tensor(read_target(data, size, preprocessing))
            return _mask(data, size, preprocessing)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error

    def missing(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self.files]

    def joined(self, labels: Sequence[Tensor]) -> Tensor:
        shapes = {tuple(one.shape) for one in labels}
        if len(shapes) > 1:
            several = " and ".join("×".join(map(str, one)) for one in sorted(shapes)[:2])
            raise ImageError(f"{self.path}: arrays of {several}; give one shape for all")
        return super().joined(labels)


def find_annotations(path: Path, parameter: str) -> Annotations:
    """Labels in COCO's `.json`, or in a folder of `.txt`, masks or arrays. Raises ImageError."""
    if path.is_file():
        if path.suffix.lower() != ".json":
            raise ImageError(
                f"{path}: labels are COCO's .json, or a folder of .txt, .png or .npy; check "
                f"`{parameter}`"
            )
        return _coco(path)
    if not path.is_dir():
        raise ImageError(f"{path}: no such file or folder of labels; check `{parameter}`")
    kinds = ((TEXTS, _yolo), (MASKS, _files("masks")), (ARRAYS, _files("numbers")))
    for suffixes, read in kinds:
        files = [
            (one.relative_to(path).as_posix(), one)
            for one in sorted(path.rglob("*"))
            if one.suffix.lower() in suffixes and not one.name.startswith(".")
        ]
        if files:
            return read(path, _by_path(files, path))
    raise ImageError(
        f"{path}: no labels in it, neither .txt, {', '.join(MASKS)} nor .npy; check `{parameter}`"
    )


def beside(images: Path) -> Path | None:
    """The folder `labels` that stands for the last `images` in a path, or that lies in it beside
    `images`, as YOLO's data sets have it, where there are `.txt` in it."""
    if (images / "images").is_dir() and any((images / "labels").rglob("*.txt")):
        return images / "labels"
    parts = list(images.absolute().parts)
    for place in reversed(range(len(parts))):
        if parts[place] == "images":
            found = Path(*parts[:place], "labels", *parts[place + 1 :])
            return found if found.is_dir() and any(found.rglob("*.txt")) else None
    return None


# --- readers -------------------------------------------------------------------------------------


def _files(kind: LabelKind) -> Callable[[Path, dict[str, Path]], Annotations]:
    return lambda path, files: Files(files, path, kind)


def _yolo(path: Path, files: dict[str, Path]) -> Annotations:
    files = {key: one for key, one in files.items() if one.name != "classes.txt"}
    boxes = {key: _yolo_rows(one) for key, one in files.items()}
    return Boxes(boxes, path, shares=True, complete=True)


def _yolo_rows(path: Path) -> Tensor:
    wanted = "a line is class, centre x, centre y, width, height, in shares of the image"
    try:
        lines = _bytes(path, MAX_FILE).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ImageError(f"{path}: no text; {wanted}") from error
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            values = [float(one) for one in line.split()]
        except ValueError as error:
            raise ImageError(f"{where}: '{shown(line.strip(), 40)}' is none; {wanted}") from error
        if len(values) != 5:
            raise ImageError(f"{where}: {counted(len(values), 'number')}; {wanted}")
        kind, x, y, width, height = values
        if not all(map(math.isfinite, values)) or kind < 0 or kind != int(kind):
            raise ImageError(f"{where}: class {values[0]:g}; {wanted}, classes counted from 0")
        box = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        if min(width, height) <= 0:
            raise ImageError(f"{where}: a box of {width:g}×{height:g} has no area")
        if min(box) < -OUTSIDE_SHARE or max(box) > 1 + OUTSIDE_SHARE:
            raise ImageError(f"{where}: the box lies outside the image; {wanted}")
        rows.append([kind, *box, 0.0])
    return torch.tensor(rows).reshape(-1, BOX)


def _coco(path: Path) -> Annotations:
    try:
        found = parse_json(_bytes(path, MAX_BYTES))
    except ValueError as error:
        raise ImageError(f"{path}: not readable as JSON ({one_line(error)})") from error
    parts = cast("dict[str, Any]", found if isinstance(found, dict) else {})
    for name in ("images", "annotations", "categories"):
        if not isinstance(parts.get(name), list):
            raise ImageError(f"{path}: no list '{name}'; COCO's form of boxes is needed")
    try:
        images = {int(one["id"]): one for one in parts["images"]}
        names = {int(one["id"]): str(one.get("name", "")) for one in parts["categories"]}
        files = {one: str(image["file_name"]) for one, image in images.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ImageError(
            f"{path}: images need 'id' and 'file_name', categories 'id' ({one_line(error)})"
        ) from error
    rows: dict[int, list[list[float]]] = {one: [] for one in images}
    for place, one in enumerate(parts["annotations"]):
        where = f"{path}, annotation {place + 1}"
        try:
            image, kind = int(one["image_id"]), int(one["category_id"])
            left, top, width, height = map(float, one["bbox"])
            crowd = float(one.get("iscrowd", 0))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ImageError(
                f"{where}: it needs image_id, category_id, and bbox of left, top, width, height"
            ) from error
        if image not in rows or kind not in names:
            what = f"image {image}" if image not in rows else f"category {kind}"
            raise ImageError(f"{where}: there is no {what}; correct it")
        if not all(map(math.isfinite, (left, top, width, height))):
            raise ImageError(f"{where}: the box is not finite; correct it")
        if min(width, height) > 0:  # COCO's own has some without an area
            rows[image].append([kind, left, top, left + width, top + height, crowd])
    boxes = [(files[one], torch.tensor(some).reshape(-1, BOX)) for one, some in rows.items()]
    return Boxes(_by_path(boxes, path), path, shares=False, names=names)


def _mask(data: bytes, size: Size, preprocessing: Preprocessing) -> Tensor:
    """int64 (height, width) as the network's input. Raises ImageError with the reason alone."""
    image = decode(data)
    if image.mode not in ("L", "P", "1") and not image.mode.startswith("I"):
        raise ImageError(f"a mask of {image.mode}; one channel of class indices is needed")
    if image.size != size:
        found, wanted = ("×".join(map(str, one)) for one in (image.size, size))
        raise ImageError(f"a mask of {found} for an image of {wanted}; they must be equal")
    array = np.array(image)  # of a palette the indices
    array = array.astype(np.uint8 if image.mode in ("L", "P", "1") else np.int32)
    place = preprocessing.placed(*size)
    fitted = put(
        Image.fromarray(array), place, preprocessing.size, Image.Resampling.NEAREST, IGNORED
    )
    return torch.tensor(np.asarray(fitted).astype(np.int64))


def _numbers(data: bytes) -> Tensor:
    return torch.tensor(read_numbers(data).astype(np.float32))


# --- names ---------------------------------------------------------------------------------------


def _key(name: str) -> str:
    """A path without its suffix."""
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.name else name


T = TypeVar("T")


def _by_path(labels: Iterable[tuple[str, T]], path: Path) -> dict[str, T]:
    """By their paths without suffix. Raises ImageError where two have the same."""
    found: dict[str, T] = {}
    for name, label in labels:
        if _key(name) in found:
            raise ImageError(f"{path}: two labels for '{shown(_key(name))}'; leave one of them")
        found[_key(name)] = label
    return found


def _by_images(
    known: Mapping[str, object], folder: Path, names: Sequence[str], path: Path
) -> dict[str, str]:
    """Which label each image has: that of the same path below the folder; otherwise the longest
    that the image's whole path ends with; otherwise the one that ends with the image's. Raises
    ImageError where that leaves a choice."""
    same = {_key(name) for name in names} & known.keys()
    others = known.keys() - same
    longer: dict[str, list[str]] = defaultdict(list)
    for key in others:
        for end in _ends(key)[1:]:
            longer[end].append(key)
    stem = folder if folder.is_dir() else folder.with_name(folder.name.partition(".")[0])  # a tar
    taken: dict[str, str] = {}
    found: dict[str, str] = {}
    for name in names:
        key = _key(name)
        whole = _ends((stem.absolute() / key).as_posix())
        of = [key] if key in same else [end for end in whole if end in others][:1]
        of = of or sorted(longer.get(key, ()))
        first = taken.setdefault(of[0], name) if of else name
        if len(of) > 1 or first != name:
            several, one = (of[:2], name) if len(of) > 1 else ((first, name), of[0])
            raise _several(path, several, one)
        if of:
            found[name] = of[0]
    return found


def _several(path: Path, several: Iterable[object], one: str) -> ImageError:
    both = " and ".join(f"'{shown(str(each))}'" for each in several)
    return ImageError(
        f"{path}: {both} both fit '{shown(one)}'; lay labels out in folders as the images are, "
        "under names of their own"
    )


def _placed(found: Mapping[str, str], folder: Path) -> dict[str, Path]:
    return {key: folder.resolve() / name for name, key in found.items()}


def require_apart(given: Iterable[Annotations]) -> None:
    """Raise ImageError where a label is of images in two folders."""
    places: dict[tuple[Path, str], Path] = {}
    for one in given:
        for key, place in one.places.items():
            first = places.setdefault((one.path.resolve(), key), place)
            if first != place:
                raise _several(one.path, (first, place), key)


def _ends(key: str) -> list[str]:
    """The path, then without its first folder, …, then the name alone."""
    parts = PurePosixPath(key).parts
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _bytes(path: Path, limit: int) -> bytes:
    try:
        return read_regular(path, limit)
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read ({(error.strerror or 'error').lower()})"
        ) from error
