"""Inputs that are no images, from `.npy` files that hold them as the network reads them: sequences,
vectors, volumes."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import torch

from shrinkc.compiler.images.files import ImageSet
from shrinkc.compiler.images.labels import labels_of
from shrinkc.compiler.images.preprocessing import Array, numbers_header, read_numbers
from shrinkc.compiler.images.tensors import MEMORY_BYTES, Reads, TensorImages, whole
from shrinkc.compiler.support.reading.regular_file import open_regular
from shrinkc.compiler.support.text import counted, one_line, shown
from shrinkc.errors import ImageError, InputError

T = TypeVar("T")
TARGET = "target"  # labels in an .npz
HEADER_BYTES = 1 << 16


def read_arrays(files: ImageSet, reads: Reads, parameter: str) -> TensorImages:
    """All of them in memory, with the labels of their class folders.

    Raises ImageError for a file that is no `.npy`, cannot be read, or holds no such numbers of this
    shape; and for more than MEMORY_BYTES.
    """
    shape, dtype = reads.shape, reads.dtype
    if 4 * len(files) * math.prod(shape) > MEMORY_BYTES:
        raise ImageError(
            f"{files.path}: more than {MEMORY_BYTES >> 30} GiB of inputs; give fewer as "
            f"`{parameter}`"
        )
    wanted = "×".join(map(str, shape))
    inputs: list[torch.Tensor] = []
    for file, data in files.files():
        name = f"{files.path}: '{shown(file.name)}'"
        if not file.name.lower().endswith(".npy"):
            raise ImageError(f"{name}: the network reads {wanted}, no images; give .npy arrays")
        try:
            array = read_numbers(data())
        except ImageError as error:
            raise ImageError(f"{name}: {error}; remove or replace it") from error
        if array.shape != shape or (array.dtype.kind == "f") != dtype.is_floating_point:
            found = "×".join(map(str, array.shape)) or "a single number"
            kind = str(dtype).removeprefix("torch.")
            raise ImageError(
                f"{name} holds {found} of {array.dtype}; the network reads {wanted} of {kind}"
            )
        inputs.append(_as_read(array, dtype, name))
    if files.annotations is not None and files.annotations.kind != "numbers":
        raise ImageError(
            f"{files.path}: the network reads {wanted}, no images, which have no boxes"
        )
    return TensorImages((torch.stack(inputs),), files.all_labels(None), parameter)


def read_stacked(path: Path, reads: Sequence[Reads], parameter: str) -> TensorImages:
    """All inputs of one `.npy` (n, …), or of an `.npz`, with their labels as `target`. The `.npz`
    holds the network's only input under any name, several under their own.

    Raises ImageError as `read_arrays` does, and InputError for labels that are none.
    """
    with _opened(path) as found:
        labels = found.pop(TARGET, None)
        if len(reads) == 1:
            if len(found) != 1:
                names = ", ".join(map(shown, found)) or "none"
                raise ImageError(
                    f"{path}: {counted(len(found), 'array')} ({names}) beside '{TARGET}'; give "
                    "one, the network's input"
                )
            inputs = [_stacked(path, name, array, reads[0]) for name, array in found.items()]
        else:
            wanted, names = (sorted(some) for some in ({one.name for one in reads}, found))
            if wanted != names:
                held = ", ".join(map(shown, names)) or "none"
                raise ImageError(
                    f"{path}: arrays {held} beside '{TARGET}'; the network reads "
                    f"{', '.join(wanted)}: give them by these names"
                )
            inputs = [_stacked(path, one.name, found[one.name], one) for one in reads]
        counts = [len(x) for x in inputs]
        if len(set(counts)) > 1:
            told = ", ".join(map(str, counts))
            raise ImageError(f"{path}: {told} of the network's inputs; give equally many")
        if labels is None:
            return TensorImages(tuple(inputs), None, parameter)
        told = f"{path}, {TARGET}"
        count = _told(told, numbers_header, labels(HEADER_BYTES)).shape[:1]
        if list(count) != counts[:1]:
            held = count[0] if count else "no"
            raise ImageError(f"{told}: {held} labels for {counts[0]} inputs; give one for each")
        numbers = labels_of(_told(told, read_numbers, labels()).copy(), counts[0], parameter)
        return TensorImages(tuple(inputs), numbers, parameter)


def _stacked(path: Path, name: str, array: Callable[..., bytes], reads: Reads) -> torch.Tensor:
    """(n, …) of one input."""
    said = f"{path}{f', {shown(name)}' if name else ''}"
    header = _told(said, numbers_header, array(HEADER_BYTES))  # before all is unpacked
    fits = (header.dtype.kind == "f") == reads.dtype.is_floating_point
    if header.shape[1:] != reads.shape or not fits or 0 in header.shape[:1]:
        kind = str(reads.dtype).removeprefix("torch.")
        held, wanted = ("×".join(map(str, one)) for one in (header.shape, ("n", *reads.shape)))
        raise ImageError(
            f"{said}: {one_line(held, 60)} of {header.dtype}; the network reads {wanted} of {kind}"
        )
    return _as_read(_told(said, read_numbers, array()), reads.dtype, said)


def _as_read(array: Array, dtype: torch.dtype, told: str) -> torch.Tensor:
    """In the network's own numbers. Raises ImageError for those that these cannot be."""
    found = torch.tensor(array)
    try:
        return found if dtype.is_floating_point else whole(found, dtype, told)
    except InputError as error:
        raise ImageError(str(error)) from error


@contextmanager
def _opened(path: Path) -> Generator[dict[str, Callable[..., bytes]]]:
    """By the name of each array, what reads so many bytes from its start, all by default. Whatever
    that raises is an ImageError."""
    try:
        with open_regular(path, MEMORY_BYTES) as file:
            if path.suffix.lower() == ".npy":
                yield {"": partial(_from_start, file)}
                return
            with zipfile.ZipFile(file) as archive:
                members = [one for one in archive.infolist() if one.filename.endswith(".npy")]
                if sum(one.file_size for one in members) > MEMORY_BYTES:
                    raise ImageError(
                        f"{path}: more than {MEMORY_BYTES >> 30} GiB; give fewer inputs"
                    )
                yield {
                    one.filename.removesuffix(".npy"): partial(_unpacked, archive, one)
                    for one in members
                }
    except (ImageError, InputError):
        raise
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except Exception as error:  # damaged archives raise whatever comes
        raise ImageError(f"{path}: not a readable .npz ({one_line(error)})") from error


def _from_start(file: BinaryIO, most: int = -1) -> bytes:
    file.seek(0)
    return file.read(most)


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int = -1) -> bytes:
    with archive.open(member) as file:
        return file.read(most)


def _told(name: str, read: Callable[[bytes], T], data: bytes) -> T:
    """What `read` makes of it; errors name the array."""
    try:
        return read(data)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
