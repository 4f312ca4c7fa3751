"""Images are decoded once: into memory up to a bound, or into a file that is mapped.

A cache file holds bytes as a network's input needs them before augmentation, so that an epoch costs
no decoding. Its name follows from the images' names, sizes and dates and from the preprocessing;
a set that changed gets another file. Processes that need the same file wait for the first one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.images.files import ImageFile, ImageSet
from shrinkc.compiler.images.preprocessing import Array, Preprocessing, as_type, read_pixels
from shrinkc.compiler.images.streaming.streamed import streamed
from shrinkc.compiler.support.disk.lock import LOCK, locked
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.compiler.support.reading.regular_file import read_regular, require_regular
from shrinkc.compiler.support.reading.strict_json import parse_json
from shrinkc.compiler.support.text import shown
from shrinkc.errors import DataError, ImageError

MEMORY_BYTES = 2 << 30  # of images held without a cache folder
MAX_UNREADABLE = 0.01
FEW, FLOAT_BYTES = 8, 4  # images that tell how much all of them take; of a number at most
MAX_CHECKED = 2 << 30  # bytes of decoded images; reading ImageNet's takes minutes
_MAX_ABOUT = 1 << 30  # bytes of a description
_CHUNK_FILES, _CHUNK_BYTES = 256, 64 << 20  # read at a time, before decoding

Decoded = tuple[ImageFile, Array | ImageError]


@dataclass(frozen=True)
class Reading:
    """How images are read.

    cache           folder for decoded images, reused by later runs; None: in memory
    memory_bytes    the most that is held in memory without `cache`
    disk_bytes      the most that one set takes there; None: half of what is free
    max_unreadable  share of unreadable images that are left out; more are an error
    workers         threads that decode; 0: none beside the caller's
    """

    cache: Path | None = None
    memory_bytes: int = MEMORY_BYTES
    disk_bytes: int | None = None
    max_unreadable: float = MAX_UNREADABLE
    workers: int = 0


def with_margin(preprocessing: Preprocessing) -> Preprocessing:
    """Stored for random resized crops: what `resize` leaves of a square image, but for three pixels
    at most. Their middle is what the network reads, to the pixel: half of the margin is even, so
    that it does not matter to which side the middle of an odd number is rounded."""
    if preprocessing.fit != "crop":
        return preprocessing
    height, width = (
        side + max(0, preprocessing.resize - side) // 4 * 4 for side in preprocessing.size
    )
    return replace(preprocessing, size=(height, width))


def load_images(
    images: ImageSet,
    preprocessing: Preprocessing,
    reading: Reading | None = None,
    progress: Progress | None = None,
) -> Images:
    """Decode `images`, resized and cropped as `preprocessing` says: all of them once, or, where
    they do not fit, those that are read, whenever they are.

    Raises DataError: a class without (readable) images, too many unreadable ones, a set that does
    not fit and cannot be read in any order. The error names the first image and why.
    """
    reading, progress = reading or Reading(), progress or Silent()
    _check_classes(images)
    first = _first_of_too_many(images, preprocessing, reading)
    if first is not None:
        return streamed(images, preprocessing, first)
    if reading.cache is None:
        kept, skipped, pixels = _in_memory(images, preprocessing, reading, progress)
    else:
        kept, skipped, pixels = _in_file(images, preprocessing, reading, reading.cache, progress)
    chosen = [images.entries[i] for i in kept]
    _check_emptied(images, chosen)
    mean, std = preprocessing.normalisation
    return Images(
        pixels=pixels,
        labels=replace(images, entries=tuple(chosen)).all_labels(preprocessing),
        mean=mean,
        std=std,
        source=str(images.path),
        skipped=tuple((images.entries[i].name, reason) for i, reason in skipped.items()),
    )


# --- decoding ------------------------------------------------------------------------------------


def _in_memory(
    images: ImageSet, preprocessing: Preprocessing, reading: Reading, progress: Progress
) -> tuple[list[int], dict[int, str], Tensor]:
    pixels: Any = None
    kept: list[int] = []
    skipped: dict[int, str] = {}
    for index, array in _readable(images, preprocessing, reading, progress, skipped):
        if pixels is None:
            pixels = np.empty((len(images), *array.shape), array.dtype)
        pixels[len(kept)] = array
        kept.append(index)
    return kept, skipped, _tensor(pixels[: len(kept)])


def _readable(
    images: ImageSet,
    preprocessing: Preprocessing,
    reading: Reading,
    progress: Progress,
    skipped: dict[int, str],
) -> Iterator[tuple[int, Array]]:
    """The images that can be used, all of one type; the others are noted in `skipped`."""
    dtype: Any = None
    with progress.task(f"Reading {images.path.name}", len(images)) as done:
        for index, (_, result) in enumerate(_decoded(images, preprocessing, reading.workers)):
            done()
            if not isinstance(result, ImageError):
                dtype = dtype or result.dtype
                result = as_type(result, dtype)
            if isinstance(result, ImageError):
                skipped[index] = str(result)
                _check_skipped(images, skipped, reading.max_unreadable)
            else:
                yield index, result
    if dtype is None:
        raise DataError(f"{images.path}: no image can be used, {_first(images, skipped)}")


def _decoded(images: ImageSet, preprocessing: Preprocessing, workers: int) -> Iterator[Decoded]:
    def decode(file: tuple[ImageFile, bytes | ImageError]) -> Decoded:
        image, data = file
        if isinstance(data, ImageError):
            return image, data
        try:
            return image, read_pixels(data, image.name, preprocessing)
        except ImageError as error:
            return image, error

    if workers < 1:
        yield from map(decode, _files(images))
        return
    with ThreadPoolExecutor(workers) as pool:  # Pillow decodes outside the interpreter's lock
        for chunk in _chunks(_files(images)):
            yield from pool.map(decode, chunk)


def _files(images: ImageSet) -> Iterator[tuple[ImageFile, bytes | ImageError]]:
    for image, read in images.files():
        try:
            yield image, read()
        except ImageError as error:
            yield image, error


def _chunks(
    files: Iterator[tuple[ImageFile, bytes | ImageError]],
) -> Iterator[list[tuple[ImageFile, bytes | ImageError]]]:
    chunk: list[tuple[ImageFile, bytes | ImageError]] = []
    size = 0
    for file in files:
        chunk.append(file)
        size += len(file[1]) if isinstance(file[1], bytes) else 0
        if len(chunk) == _CHUNK_FILES or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


# --- files ---------------------------------------------------------------------------------------


def _in_file(
    images: ImageSet,
    preprocessing: Preprocessing,
    reading: Reading,
    folder: Path,
    progress: Progress,
) -> tuple[list[int], dict[int, str], Tensor]:
    stem = folder / _key(images, preprocessing)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(stem.with_suffix(LOCK), folder, math.inf):
            found = _open(stem, images, preprocessing)
            if found is None:
                _write(stem, images, preprocessing, reading, progress)
                found = _open(stem, images, preprocessing)
    except OSError as error:
        raise DataError(
            f"{folder}: decoded images cannot be kept there ({error.strerror or error}); "
            "free some space or choose another folder"
        ) from error
    assert found is not None  # just written
    skipped, pixels = found
    _check_skipped(images, skipped, reading.max_unreadable)
    return [i for i in range(len(images)) if i not in skipped], skipped, pixels


def _write(
    stem: Path,
    images: ImageSet,
    preprocessing: Preprocessing,
    reading: Reading,
    progress: Progress,
) -> None:
    """The bytes first, what they are last: a description is only there for a complete file."""
    partial = stem.with_suffix(".partial")
    skipped: dict[int, str] = {}
    try:
        with partial.open("wb") as file:
            arrays = _readable(images, preprocessing, reading, progress, skipped)
            about = _written(file, arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(stem.with_suffix(".pixels"))
        partial.write_text(json.dumps({**about, "skipped": list(skipped.items())}))
        partial.replace(stem.with_suffix(".json"))
    finally:
        partial.unlink(missing_ok=True)


def _written(file: IO[bytes], arrays: Iterator[tuple[int, Array]]) -> dict[str, Any]:
    """What they are, all together."""
    count, checksum, shape, dtype = 0, 0, list[int](), "uint8"
    for _, array in arrays:
        count, shape, dtype = count + 1, list(array.shape), array.dtype.name
        data = np.ascontiguousarray(array).data
        checksum = zlib.crc32(data, checksum)
        file.write(data)
    return {"shape": [count, *shape], "type": dtype, "checksum": checksum}


def _open(
    stem: Path, images: ImageSet, preprocessing: Preprocessing
) -> tuple[dict[int, str], Tensor] | None:
    """None where there is none, or one that is damaged."""
    try:
        about = parse_json(read_regular(stem.with_suffix(".json"), _MAX_ABOUT))
        skipped = {int(i): shown(str(reason), 400) for i, reason in about["skipped"]}
        shape = (len(images) - len(skipped), *preprocessing.size, preprocessing.channels)
        sound = about["shape"] == list(shape) and about["type"] in ("uint8", "float32")
        if not sound or shape[0] < 1 or not set(skipped) <= set(range(len(images))):
            return None
        path = stem.with_suffix(".pixels")
        require_regular(path)
        # copy on write: torch wants memory it may write to, the file must stay as it is
        pixels = np.memmap(path, np.dtype(about["type"]), mode="c", shape=shape)
        known = pixels.nbytes > MAX_CHECKED or _checksum(pixels) == about["checksum"]
        if pixels.nbytes != path.stat().st_size or not known:
            return None
        return skipped, _tensor(pixels)
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None


def _checksum(pixels: Any) -> int:
    found = 0
    for one in pixels:
        found = zlib.crc32(one, found)
    return found


def _tensor(array: Any) -> Tensor:
    return cast(Any, torch).from_numpy(array)


def _key(images: ImageSet, preprocessing: Preprocessing) -> str:
    what = hashlib.sha256()
    told = preprocessing.resize, preprocessing.size, preprocessing.channels
    what.update(repr((*told, preprocessing.fit, preprocessing.bgr)).encode())
    tar = images.path if images.path.is_file() else None
    if tar is not None:
        what.update(repr((str(tar.resolve()), tar.stat().st_size, tar.stat().st_mtime_ns)).encode())
    for image in images.entries:
        what.update(repr((image.name, image.position)).encode())
        if tar is None:
            try:
                file = (images.path / image.name).stat()
            except OSError:
                continue  # reading it will say why
            what.update(repr((file.st_size, file.st_mtime_ns)).encode())
    return f"{images.path.name.split('.')[0]}-{what.hexdigest()[:16]}"


# --- checks --------------------------------------------------------------------------------------


def _check_classes(images: ImageSet) -> None:
    """A class folder without images would shift the numbers of the classes behind it."""
    if not images.path.is_dir() or len(images.folders) < 2:
        return
    parts = Path(images.entries[0].name).parts  # below folders that all images share
    above = images.path.joinpath(
        *parts[: next(i for i, x in enumerate(parts) if x in images.folders)]
    )
    folders = {f.name for f in above.iterdir() if f.is_dir() and not f.name.startswith(".")}
    for name in sorted(folders - {*images.folders, "__MACOSX"}):
        raise DataError(
            f"{above}: class folder '{shown(name)}' holds no images; fill it or remove it"
        )


def _check_emptied(images: ImageSet, chosen: list[ImageFile]) -> None:
    left = Counter(image.label for image in chosen)
    for image in images.entries:
        if not left[image.label]:
            raise DataError(
                f"{images.path}: no image of class {image.label} can be read, among them "
                f"'{shown(image.name)}'; replace them"
            )


def _check_skipped(images: ImageSet, skipped: dict[int, str], share: float) -> None:
    if len(skipped) > share * len(images):
        raise DataError(
            f"{images.path}: more than {share:.1%} of {len(images):,} images cannot be used, "
            f"{_first(images, skipped)}; remove or replace them"
        )


def _first(images: ImageSet, skipped: dict[int, str]) -> str:
    index, reason = next(iter(skipped.items()))
    return f"first '{shown(images.entries[index].name)}': {reason}"


# --- whether they fit ----------------------------------------------------------------------------


def _first_of_too_many(
    images: ImageSet, preprocessing: Preprocessing, reading: Reading
) -> Array | None:
    """The first image, where all of them would take too much; None where they fit, and where
    reading them will say what is wrong."""
    height, width = preprocessing.size
    pixels = len(images) * height * width * preprocessing.channels
    most = _most_bytes(images, preprocessing, reading)
    if most is None or pixels * FLOAT_BYTES <= most:
        return None
    few = replace(images, entries=images.entries[:FEW])
    found = (result for _, result in _decoded(few, preprocessing, 0))
    first = next((one for one in found if not isinstance(one, ImageError)), None)
    return None if first is None or pixels * first.itemsize <= most else first


def _most_bytes(images: ImageSet, preprocessing: Preprocessing, reading: Reading) -> int | None:
    """None where they are decoded already."""
    if reading.cache is None:
        return reading.memory_bytes
    if reading.disk_bytes is not None:
        most = reading.disk_bytes
    else:
        try:
            there = next(one for one in (reading.cache, *reading.cache.parents) if one.exists())
            most = shutil.disk_usage(there).free // 2
        except OSError:
            return None  # writing there will say why
    kept = (reading.cache / _key(images, preprocessing)).with_suffix(".json")
    return None if kept.exists() else most
