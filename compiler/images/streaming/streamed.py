"""Images that are decoded whenever they are read: sets that fit neither into memory nor on the
disk. What is in memory at a time is what was asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.images.files import ImageFile, ImageSet, file_bytes
from shrinkc.compiler.images.preprocessing import Array, Preprocessing, as_type, read_pixels
from shrinkc.compiler.images.tars import Place, bytes_at, tar_places
from shrinkc.compiler.support.text import shown
from shrinkc.errors import DataError, ImageError

MOST_THREADS = 16  # that decode
Read = Callable[[ImageFile], bytes]


@dataclass(frozen=True, eq=False)
class StreamedImages(Images):
    """Images whose `pixels` are on the device meta: of them are shape and type alone; `stored`
    decodes. A set that changes under way, or an image that cannot be decoded, is a DataError that
    names the image."""

    files: Files = field(kw_only=True)

    def stored(self, rows: Tensor) -> Tensor:
        return self.files.decoded(rows)

    def part(self, rows: Tensor) -> StreamedImages:
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, pixels=self.pixels[rows], labels=labels, files=self.files.part(rows))

    def in_memory(self) -> Images:
        pixels = self.stored(torch.arange(len(self)))
        return Images(pixels, self.labels, self.mean, self.std, self.source, self.skipped)


@dataclass(frozen=True, eq=False)
class Files:
    """`entries` in order, as `preprocessing` says, all of the NumPy type `dtype`."""

    path: Path
    entries: Sequence[ImageFile]
    preprocessing: Preprocessing
    dtype: Any
    read: Read

    def part(self, rows: Tensor) -> Files:
        return replace(self, entries=[self.entries[int(i)] for i in rows])

    def decoded(self, rows: Tensor) -> Tensor:
        """(n, height, width, channels). Raises DataError."""
        height, width = self.preprocessing.size
        shape = len(rows), height, width, self.preprocessing.channels
        found = np.empty(shape, self.dtype)

        def fill(place: int, row: int) -> None:
            found[place] = self._pixels(self.entries[row])

        numbers = [int(row) for row in rows]
        if len(numbers) == 1:
            fill(0, numbers[0])
        else:  # Pillow decodes outside the interpreter's lock
            for _ in self._pool.map(fill, range(len(numbers)), numbers):
                pass
        return cast(Any, torch).from_numpy(found)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1))

    def _pixels(self, image: ImageFile) -> Array:
        try:
            pixels = read_pixels(self.read(image), image.name, self.preprocessing)
            found = as_type(pixels, self.dtype)
        except ImageError as error:
            found = error
        if isinstance(found, ImageError):
            raise DataError(
                f"{self.path}: '{shown(image.name)}': {found}; replace it and run again"
            ) from found
        return found


def streamed(images: ImageSet, preprocessing: Preprocessing, first: Array) -> StreamedImages:
    """`first`: the first image, which tells the type of all. Raises DataError for what cannot be
    read in any order: compressed tars; and for labels that need every image's size."""
    if images.annotations is not None:
        raise DataError(
            f"{images.path}: {_needed(images, first)}, and their annotations need each image's "
            "size; give a limit"
        )
    mean, std = preprocessing.normalisation
    read, path = _reader(images, first), images.path
    shape = (len(images), *preprocessing.size, preprocessing.channels)
    dtype = torch.uint8 if first.dtype == np.uint8 else torch.float32
    return StreamedImages(
        pixels=torch.empty(shape, dtype=dtype, device="meta"),
        labels=images.all_labels(preprocessing),
        mean=mean,
        std=std,
        source=str(path),
        files=Files(path, images.entries, preprocessing, first.dtype, read),
    )


def _reader(images: ImageSet, first: Array) -> Read:
    path = images.path
    if path.is_dir():
        return lambda image: file_bytes(path / image.name)
    places: dict[int, Place] | None = tar_places(path)
    if places is None:
        raise DataError(
            f"{path}: {_needed(images, first)}, and a compressed tar cannot be read in any order; "
            "decompress it"
        )
    return lambda image: bytes_at(path, places[image.position])


def _needed(images: ImageSet, first: Array) -> str:
    needed = len(images) * first.nbytes / 2**30
    return f"{len(images):,} images need {needed:.1f} GiB once they are decoded"
