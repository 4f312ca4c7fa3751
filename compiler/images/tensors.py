"""Images that are in memory already, as the network reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.images.files import Batch
from shrinkc.errors import InputError

MEMORY_BYTES = 2 << 30  # of inputs that are collected from an iterable


@dataclass(frozen=True, eq=False)
class TensorImages:
    """Inputs of a network, and what is in them.

    inputs  float32 (n, channels, height, width)
    labels  int64 (n,), or None
    source  the parameter that they were given as, for messages
    """

    inputs: Tensor
    labels: Tensor | None = None
    source: str = "images"

    def __len__(self) -> int:
        return self.inputs.shape[0]

    @property
    def labelled(self) -> bool:
        return self.labels is not None

    def batches(
        self,
        preprocessing: object = None,
        batch_size: int = 32,
        on_skip: Callable[[str, str], None] | None = None,
    ) -> Iterator[Batch]:
        """Yield (float32 (n, channels, height, width), int64 labels (n,) or None). They need no
        preprocessing, and none is left out."""
        for start in range(0, len(self), batch_size):
            rows = slice(start, start + batch_size)
            yield self.inputs[rows], None if self.labels is None else self.labels[rows]

    def part(self, rows: slice) -> TensorImages:
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, inputs=self.inputs[rows], labels=labels)

    def spread(self, limit: int) -> TensorImages:
        """`limit` of them, evenly spaced."""
        count = min(limit, len(self))
        rows = torch.arange(count) * len(self) // count
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, inputs=self.inputs[rows], labels=labels)

    def without_labels(self) -> TensorImages:
        return replace(self, labels=None)

    def decoded(self) -> Images:
        """As fits and training read them."""
        pixels = self.inputs.permute(0, 2, 3, 1).contiguous()
        return Images(pixels, self.labels, source=self.source)


def collected(given: Any, shape: tuple[int, ...], parameter: str) -> TensorImages:
    """Inputs from a tensor (n, …), a pair of it and labels (n,), or an iterable of such batches, of
    single images, or of either with labels: a DataLoader, a dataset, a list.

    shape  of one image, (channels, height, width), as the network reads it

    Raises InputError that names `parameter`: no images, another shape, no floats, labels for some
    of them only, more than MEMORY_BYTES.
    """
    if _is_batch(given, shape):
        batches: Any = [given]
    elif isinstance(given, Tensor):
        raise _shape_error(given, shape, parameter)
    else:
        try:
            batches = iter(given)
        except TypeError:
            raise InputError(
                f"`{parameter}` is a {type(given).__name__}; give a folder, a tar, a tensor, or an "
                "iterable of tensors"
            ) from None
    inputs: list[Tensor] = []
    labels: list[Tensor | None] = []
    held = 0
    for batch in batches:
        x, y = _one(batch, shape, parameter)
        held += x.numel() * 4
        if held > MEMORY_BYTES:
            raise InputError(
                f"`{parameter}` holds more than {MEMORY_BYTES >> 30} GiB of inputs; give fewer, or "
                "a folder of images, which are read one after the other"
            )
        inputs.append(x)
        labels.append(y)
    if not inputs:
        raise InputError(
            f"`{parameter}` gave no images; a generator can be read only once: give a list, a "
            "tensor or a DataLoader"
        )
    known = [y for y in labels if y is not None]
    if known and len(known) < len(labels):
        raise InputError(f"`{parameter}` has labels for some batches only; give them for all")
    return TensorImages(torch.cat(inputs), torch.cat(known) if known else None, parameter)


def _is_batch(given: Any, shape: tuple[int, ...]) -> bool:
    """A tensor of inputs, or a pair of inputs and labels."""
    if isinstance(given, Tensor):
        return tuple(given.shape[1:]) == shape
    parts = cast(Sequence[Any], given) if isinstance(given, tuple | list) else ()
    return len(parts) == 2 and _are_labels(parts[1]) and isinstance(parts[0], Tensor)


def _are_labels(given: Any) -> bool:
    if isinstance(given, int):
        return True
    return isinstance(given, Tensor) and given.ndim <= 1 and not given.is_floating_point()


def _one(batch: Any, shape: tuple[int, ...], parameter: str) -> tuple[Tensor, Tensor | None]:
    """(inputs, labels) of one item of an iterable."""
    labels: Any = None
    parts = cast(Sequence[Any], batch) if isinstance(batch, tuple | list) else ()
    if len(parts) == 2 and _are_labels(parts[1]):
        batch, labels = parts
    elif len(parts) == 1:
        batch = parts[0]
    if not isinstance(batch, Tensor):
        kind = type(cast(object, batch)).__name__
        raise InputError(
            f"`{parameter}` yields a {kind}; give tensors, or pairs of a tensor and its integer "
            "labels"
        )
    if tuple(batch.shape) == shape:
        batch = batch[None]
    if tuple(batch.shape[1:]) != shape:
        raise _shape_error(batch, shape, parameter)
    if not batch.is_floating_point():
        raise InputError(
            f"`{parameter}` holds {str(batch.dtype).removeprefix('torch.')}; give floats, scaled "
            "and normalised as the network reads them"
        )
    x = batch.detach().to("cpu", torch.float32)
    if not bool(x.isfinite().all()):
        raise InputError(f"`{parameter}` holds NaN or infinity; give finite inputs")
    if labels is None:
        return x, None
    y = torch.as_tensor(labels).detach().to("cpu", torch.int64).reshape(-1)
    if len(y) != len(x):
        raise InputError(
            f"`{parameter}` has {len(y)} labels for {len(x)} images; give one for each"
        )
    return x, y


def _shape_error(given: Tensor, shape: tuple[int, ...], parameter: str) -> InputError:
    found, wanted = ("×".join(map(str, s)) for s in (tuple(given.shape), shape))
    return InputError(f"`{parameter}` has shape {found}; the network reads n×{wanted}")
