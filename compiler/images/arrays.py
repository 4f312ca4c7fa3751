"""Inputs that are no images, from `.npy` files that hold them as the network reads them: sequences,
vectors, volumes."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import torch

from shrinkc.compiler.images.files import ImageSet
from shrinkc.compiler.images.labels import labels_of
from shrinkc.compiler.images.preprocessing import Array, read_numbers
from shrinkc.compiler.images.tensors import MEMORY_BYTES, TensorImages
from shrinkc.compiler.support.reading.regular_file import read_regular
from shrinkc.compiler.support.text import counted, one_line, shown
from shrinkc.errors import ImageError

TARGET = "target"  # labels in an .npz


def read_arrays(
    files: ImageSet, shape: tuple[int, ...], parameter: str, dtype: torch.dtype = torch.float32
) -> TensorImages:
    """All of them in memory, with the labels of their class folders.

    shape  of one input, without its batch
    dtype  that the network reads

    Raises ImageError for a file that is no `.npy`, cannot be read, or holds no such numbers of this
    shape; and for more than MEMORY_BYTES.
    """
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
        inputs.append(torch.as_tensor(array.copy()).to(dtype))
    if files.annotations is not None and files.annotations.kind != "numbers":
        raise ImageError(
            f"{files.path}: the network reads {wanted}, no images, which have no boxes"
        )
    return TensorImages(torch.stack(inputs), files.all_labels(None), parameter)


def read_stacked(
    path: Path, shape: tuple[int, ...], parameter: str, dtype: torch.dtype = torch.float32
) -> TensorImages:
    """All inputs of one `.npy` (n, …), or of an `.npz` that holds them under any name, with their
    labels as `target`.

    shape  of one input, without its batch

    Raises ImageError as `read_arrays` does, and InputError for labels that are none.
    """
    found = {"": _file(path)} if path.suffix.lower() == ".npy" else _members(path)
    labels = found.pop(TARGET, None)
    if len(found) != 1:
        names = ", ".join(map(shown, found)) or "none"
        raise ImageError(
            f"{path}: {counted(len(found), 'array')} ({names}) beside `{TARGET}`; give one, the "
            "network's input"
        )
    ((name, array),) = found.items()
    said = f"{path}{f', {shown(name)}' if name else ''}"
    fits = (array.dtype.kind == "f") == dtype.is_floating_point
    if array.shape[1:] != shape or not fits or not len(array):
        kind = str(dtype).removeprefix("torch.")
        held, wanted = ("×".join(map(str, one)) for one in (array.shape, ("n", *shape)))
        raise ImageError(f"{said}: {held} of {array.dtype}; the network reads {wanted} of {kind}")
    inputs = torch.tensor(array).to(dtype)
    if labels is None:
        return TensorImages(inputs, None, parameter)
    return TensorImages(inputs, labels_of(labels.copy(), len(inputs), parameter), parameter)


def _file(path: Path) -> Array:
    try:
        data = read_regular(path, MEMORY_BYTES)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return _array(f"{path}", data)


def _members(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as file:
            members = [one for one in file.infolist() if one.filename.endswith(".npy")]
            if sum(one.file_size for one in members) > MEMORY_BYTES:
                raise ImageError(f"{path}: more than {MEMORY_BYTES >> 30} GiB; give fewer inputs")
            return {
                one.filename.removesuffix(".npy"): _array(
                    f"{path}, {shown(one.filename)}", file.read(one)
                )
                for one in members
            }
    except ImageError:
        raise
    except Exception as error:  # damaged archives raise whatever comes
        raise ImageError(f"{path}: not a readable .npz ({one_line(error)})") from error


def _array(name: str, data: bytes) -> Array:
    try:
        return read_numbers(data)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
