"""Images for verification, calibration and accuracy: a folder, class folders, or a tar of them.

Images are read one after the other, so any number of them takes the memory of one batch. A tar
is read as a stream and never unpacked to disk; the names in it only serve as labels.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from shrinkc.compiler.images.annotations import Annotations
from shrinkc.compiler.images.preprocessing import Preprocessing, read_image, size_of_file
from shrinkc.compiler.images.tars import MAX_BYTES, member_bytes, open_tar, tar_files
from shrinkc.compiler.support.reading.regular_file import read_regular
from shrinkc.compiler.support.reading.strict_json import parse_json
from shrinkc.compiler.support.text import counted, shown
from shrinkc.compiler.tasks.task import LabelKind
from shrinkc.errors import ImageError, InputError
from shrinkc.passes.criteria.shared.data import Batch

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".npy")
OTHERS = (".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ppm", ".pgm", ".tga", ".exr", ".dng")
WNID = re.compile(r"n\d{8}")  # a class of ImageNet
MAX_IMAGES = 2_000_000
MAX_UNREADABLE = 0.05
MAX_CLASSES = 64 << 20  # bytes


@dataclass(frozen=True, slots=True)
class ImageFile:
    """`name` is the path below the folder or inside the tar, `position` its place in the tar."""

    name: str
    label: int | None = None
    position: int = 0


@dataclass(frozen=True)
class ImageSet:
    """Images in a fixed order: by name in folders, as stored in a tar.

    folders  all class folders, sorted, where labels are their places among them; () where the user
             numbered them, and where there are none
    annotations  labels that lie beside the images
    others   images of other kinds, which are left out
    names    of the classes, in the order of the network's outputs, where all are known
    """

    path: Path
    entries: tuple[ImageFile, ...]
    folders: tuple[str, ...] = ()
    annotations: Annotations | None = None
    others: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def labelled(self) -> bool:
        return self.annotations is not None or self.entries[0].label is not None

    @property
    def kind(self) -> LabelKind | None:
        """Of the labels."""
        if self.annotations is not None:
            return self.annotations.kind
        return "classes" if self.labelled else None

    def all_labels(self, preprocessing: Preprocessing | None) -> Tensor | None:
        """Of all entries, (n, …); without a preprocessing of arrays, as they are. Raises
        ImageError."""
        if self.annotations is None:
            known = [one.label for one in self.entries if one.label is not None]
            return torch.tensor(known) if known else None
        found: list[Tensor] = []
        for image, data in self.files():
            size = 1, 1
            if preprocessing is not None:
                size = size_of_file(data(), image.name, preprocessing.channels)
            found.append(self.annotations.of(image.name, size, preprocessing))
        return self.annotations.joined(found)

    def part(self, rows: slice) -> ImageSet:
        return replace(self, entries=self.entries[rows])

    def spread(self, limit: int) -> ImageSet:
        """`limit` of them: classes in turn, within a class evenly spaced names."""
        return replace(self, entries=tuple(_spread(list(self.entries), limit)))

    def without_labels(self) -> ImageSet:
        entries = tuple(replace(e, label=None) for e in self.entries)
        return replace(self, entries=entries, folders=(), annotations=None)

    def numbering(self, classes: int, parameter: str = "images") -> ImageSet:
        """Labelled by the outputs of a network that tells `classes` apart: class folders number
        them by their places where there is one for each, by their names where those are numbers.
        `names` are those of just these classes.

        Raises InputError, which names `parameter`, where labels are no outputs of the network's.
        """
        labels = [image.label for image in self.entries if image.label is not None]
        if self.names and not labels and len(self.names) != classes:
            raise InputError(
                f"`classes` names {counted(len(self.names), 'class', 'classes')}; the network "
                f"tells {classes} apart, so give one for each, in the outputs' order"
            )
        names = self.names if len(self.names) == classes else ()
        if self.annotations is not None:
            annotations = self.annotations.numbered(classes)
            return replace(self, annotations=annotations, names=names or annotations.class_names)
        if labels and not self.folders and max(labels) >= classes:
            raise InputError(
                f"`classes` gives an index of {max(labels)} to a folder of `{parameter}`; the "
                f"network tells {classes} classes apart, 0 to {classes - 1}"
            )
        if labels and len(self.folders) == classes:
            return replace(self, names=self.folders)
        if not labels or not self.folders:
            return replace(self, names=names)
        named = [int(name) if _is_number(name) else classes for name in self.folders]
        if all(WNID.fullmatch(name) for name in self.folders):
            raise InputError(
                f"{self.path}: {counted(len(self.folders), 'class folder')} of ImageNet do not say "
                f"which of the network's {classes} outputs is theirs",
                "give `classes`, a text file with the names of all folders, one a line, in the "
                "outputs' order",
            )
        if max(named) >= classes or len(set(named)) < len(named):
            raise InputError(
                f"{self.path}: {counted(len(self.folders), 'class folder')} cannot number the "
                f"{classes} classes that the network tells apart",
                "give `classes`, the index of each folder, put all images into one folder, or give "
                "`task` regression if the outputs are no classes",
            )
        entries = (
            replace(e, label=None if e.label is None else named[e.label]) for e in self.entries
        )
        return replace(self, entries=tuple(entries), folders=())

    def batches(
        self,
        preprocessing: Preprocessing,
        batch_size: int = 32,
        on_skip: Callable[[str, str], None] | None = None,
        strict: bool = True,
    ) -> Iterator[Batch]:
        """Yield ((float32 (n, channels, height, width),), labels (n, …) or None).

        An unreadable image is left out after `on_skip(name, reason)`. Where `strict`, raises
        ImageError, with the first such name, when more than 5% are.
        """
        skipped: list[tuple[str, str]] = []
        tensors: list[Tensor] = []
        labels: list[Tensor] = []
        for image, data in self.files():
            try:
                content = data()
                tensors.append(read_image(content, image.name, preprocessing))
            except ImageError as error:
                skipped.append((image.name, str(error)))
                if strict:
                    self._check_skipped(skipped)
                if on_skip:
                    on_skip(*skipped[-1])
                continue
            if self.annotations is not None:
                size = size_of_file(content, image.name, preprocessing.channels)
                labels.append(self.annotations.of(image.name, size, preprocessing))
            elif image.label is not None:
                labels.append(torch.tensor(image.label))
            if len(tensors) == batch_size:
                yield (torch.stack(tensors),), self._joined(labels)
                tensors, labels = [], []
        if tensors:
            yield (torch.stack(tensors),), self._joined(labels)

    def _joined(self, labels: list[Tensor]) -> Tensor | None:
        if self.annotations is not None:
            return self.annotations.joined(labels)
        return torch.stack(labels) if labels else None

    def _check_skipped(self, skipped: list[tuple[str, str]]) -> None:
        if len(skipped) <= MAX_UNREADABLE * len(self):
            return
        name, reason = skipped[0]
        raise ImageError(
            f"{self.path}: more than 5% of {len(self)} images cannot be used, "
            f"first '{shown(name)}': {reason}; remove or replace them"
        )

    def files(self) -> Iterator[tuple[ImageFile, Callable[[], bytes]]]:
        """Each image with what reads its file: to be called, if at all, before the next one.

        That raises ImageError with the reason alone.
        """
        if self.path.is_dir():
            for image in self.entries:
                yield image, lambda name=image.name: file_bytes(self.path / name)
            return
        wanted = {image.position: image for image in self.entries}
        last = max(wanted)
        with open_tar(self.path) as tar:
            for position, member in tar_files(tar, self.path):
                if position in wanted:
                    yield wanted[position], lambda member=member: member_bytes(tar, member)
                if position == last:
                    return


def find_images(
    path: Path,
    *,
    classes: Mapping[str, int] | None = None,
    labelled: bool = True,
    parameter: str = "images",
) -> ImageSet:
    """List the images (SUFFIXES) of a folder or a tar (.tar, .gz, .bz2, .xz).

    Folders that all images share are ignored; below them, class folders give the labels: their
    index in sorted order, or what `classes` says. One folder alone is no class unless `classes`
    names it. Not `labelled`, folders mean nothing. Indices from 0 to one less than `classes` holds
    give all classes their names.

    Raises ImageError: nothing there, no images, images beside class folders, a folder that
    `classes` does not name, `classes` that neither numbers folders nor names all classes.
    `parameter` is what messages call the path.
    """
    if os.path.isdir(path):  # noqa: PTH112 - Path's raises for names that are too long
        names = [(name, 0) for name in _walk(path)]
    elif os.path.isfile(path):  # noqa: PTH113
        with open_tar(path) as tar:
            names = [(member.name, position) for position, member in tar_files(tar, path)]
    else:
        raise ImageError(f"{path}: no such folder or tar of images; check `{parameter}`")
    others = tuple(name for name, _ in names if _is_image(name, OTHERS))
    names = [(name, position) for name, position in names if _is_image(name)]
    if not names and others:
        raise ImageError(
            f"{path}: '{shown(others[0])}' and no {', '.join(SUFFIXES)} in it; convert the images"
        )
    if not names:
        raise ImageError(f"{path}: no {', '.join(SUFFIXES)} in it; check `{parameter}`")
    if len(names) > MAX_IMAGES:
        raise ImageError(f"{path}: more than {MAX_IMAGES:,} images; use a smaller set")
    paths = [name for name, _ in names]
    folders: list[str | None] = [None] * len(paths)
    if labelled:
        folders = _class_folders(path, paths, classes)
    named = _in_order(classes or {})
    known = tuple(sorted({folder for folder in folders if folder is not None}))
    if classes is not None and labelled and not known and not named:
        raise ImageError(
            f"{path}: no class folders in it that `classes` could number; leave it out"
        )
    index = {name: i for i, name in enumerate(known)} if classes is None else classes
    labels = _labels(path, folders, index)
    images = [
        ImageFile(name, label, position)
        for (name, position), label in zip(names, labels, strict=True)
    ]
    numbered = known if classes is None else ()
    return ImageSet(path, tuple(images), numbered, others=others, names=named)


def _in_order(classes: Mapping[str, int]) -> tuple[str, ...]:
    """Their names by index, where there is one for each."""
    ordered = sorted(classes, key=classes.__getitem__)
    complete = [classes[name] for name in ordered] == list(range(len(classes)))
    return tuple(" ".join(name.split()) for name in ordered) if complete else ()  # one a line


def read_classes(path: Path) -> dict[str, int]:
    """Class folder → class index: a JSON object, or a text of folders, one a line, in the order of
    the network's outputs. Raises ImageError."""
    try:
        text = read_regular(path, MAX_CLASSES).decode("utf-8")
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read ({(error.strerror or 'error').lower()}); check `classes`"
        ) from error
    except UnicodeDecodeError as error:
        raise ImageError(f"{path}: no text; `classes` needs one, or JSON") from error
    if path.suffix.lower() == ".txt":
        return _listed_classes(path, text)
    try:
        found = parse_json(text)
    except ValueError as error:
        raise ImageError(
            f"{path}: not JSON; `classes` needs an object, folder → index, or a .txt with one "
            "folder a line"
        ) from error
    classes = cast(dict[str, Any], found if isinstance(found, dict) else {})
    if not classes or not all(type(v) is int and v >= 0 for v in classes.values()):
        raise ImageError(f'{path}: `classes` needs an object like {{"cat": 0, "dog": 1}}')
    return classes


def _listed_classes(path: Path, text: str) -> dict[str, int]:
    names = [line.strip() for line in text.rstrip().splitlines()]
    found: dict[str, int] = {}
    for index, name in enumerate(names):
        if not name or name in found:
            what = "is empty" if not name else f"names '{shown(name)}' again"
            raise ImageError(f"{path}, line {index + 1}: it {what}; give one folder a line")
        found[name] = index
    if not found:
        raise ImageError(f"{path}: `classes` is empty; give one folder a line")
    return found


def _walk(folder: Path) -> list[str]:
    found: list[str] = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(root).relative_to(folder).as_posix()
        found += files if below == "." else [f"{below}/{name}" for name in files]
    return sorted(found)


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in ("", ".", ".."))


def _is_image(name: str, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    parts = _parts(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    return bool(parts) and not hidden and parts[-1].lower().endswith(suffixes)


def _class_folders(
    path: Path, names: list[str], classes: Mapping[str, int] | None
) -> list[str | None]:
    """The class folder of each image, None where there are none."""
    shared = {parent: _parts(parent) for parent in {name.rpartition("/")[0] for name in names}}
    parents = [shared[name.rpartition("/")[0]] for name in names]
    depth = 0  # below the folders that all share
    for first, last in zip(min(parents), max(parents), strict=False):
        if first != last or (classes and first in classes):
            break
        depth += 1
    folders = [parts[depth] if len(parts) > depth else None for parts in parents]
    if None in folders and any(folders):
        alone = names[folders.index(None)]
        raise ImageError(
            f"{path}: '{shown(alone)}' lies beside class folders; move it into one of them"
        )
    return folders


def _labels(path: Path, folders: list[str | None], index: Mapping[str, int]) -> list[int | None]:
    for folder in sorted({folder for folder in folders if folder is not None}):
        if folder not in index:
            raise ImageError(f"{path}: `classes` has no index for folder '{shown(folder)}'; add it")
    return [None if folder is None else index[folder] for folder in folders]


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _spread(images: list[ImageFile], limit: int) -> list[ImageFile]:
    """`limit` of the images: classes in turn, within a class evenly spaced names."""
    if limit < 1:
        raise ImageError(f"a limit of {limit} images; give 1 or more")
    groups: dict[int | None, list[ImageFile]] = defaultdict(list)
    for image in sorted(images, key=lambda p: p.name):
        groups[image.label].append(image)
    shares = dict.fromkeys(groups, 0)
    ordered = sorted(groups, key=lambda label: -1 if label is None else label)
    left = min(limit, len(images))
    while left:
        more = [label for label in ordered if shares[label] < len(groups[label])]
        for i in range(count := min(left, len(more))):
            shares[more[i * len(more) // count]] += 1
        left -= count
    chosen = {
        id(group[i * len(group) // shares[label]])
        for label, group in groups.items()
        for i in range(shares[label])
    }
    return [image for image in images if id(image) in chosen]


def file_bytes(path: Path) -> bytes:
    """Raises ImageError with the reason alone."""
    try:
        return read_regular(path, MAX_BYTES)
    except OSError as error:
        raise ImageError(f"cannot be read ({(error.strerror or 'error').lower()})") from error
