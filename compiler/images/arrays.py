"""Inputs that are no images, from `.npy` files that hold them as the network reads them: sequences,
vectors, volumes."""

from __future__ import annotations

import math

import torch

from shrinkc.compiler.images.files import ImageSet
from shrinkc.compiler.images.preprocessing import read_array
from shrinkc.compiler.images.tensors import MEMORY_BYTES, TensorImages
from shrinkc.compiler.support.text import shown
from shrinkc.errors import ImageError


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
            array = read_array(data(), whole=not dtype.is_floating_point)
        except ImageError as error:
            raise ImageError(f"{name}: {error}; remove or replace it") from error
        if array.shape != shape or (array.dtype.kind == "f") != dtype.is_floating_point:
            found = "×".join(map(str, array.shape)) or "a single number"
            kind = str(dtype).removeprefix("torch.")
            raise ImageError(
                f"{name} holds {found} of {array.dtype}; the network reads {wanted} of {kind}"
            )
        inputs.append(torch.as_tensor(array.copy()).to(dtype))
    labels = [file.label for file in files.entries]
    known = [label for label in labels if label is not None]
    return TensorImages(torch.stack(inputs), torch.tensor(known) if known else None, parameter)
