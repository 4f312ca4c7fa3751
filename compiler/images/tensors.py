"""Images that are in memory already, as the network reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.images.files import Batch
from shrinkc.compiler.support.text import named
from shrinkc.errors import InputError

MEMORY_BYTES = 2 << 30  # of inputs that are collected from an iterable


@dataclass(frozen=True, eq=False)
class TensorImages:
    """Inputs of a network, and what is in them.

    inputs  float32 (n, …): (n, channels, height, width) for images
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
        """Yield (float32 (n, …), int64 labels (n,) or None). They need no preprocessing, and
        none is left out."""
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
        """As fits and training read them. Raises InputError for what is no images."""
        if self.inputs.ndim != 4:
            shape = "×".join(map(str, self.inputs.shape[1:]))
            raise InputError(
                f"`{self.source}`: fits and training read images, N×C×H×W, not N×{shape}; "
                "leave it out"
            )
        pixels = self.inputs.permute(0, 2, 3, 1).contiguous()
        return Images(pixels, self.labels, source=self.source)


def collected(given: Any, shape: tuple[int, ...], parameter: str) -> TensorImages:
    """Inputs from a tensor (n, …), a pair of it and labels (n,), or an iterable of such batches, of
    single images, or of either with labels: a DataLoader, a dataset, a list.

    shape  of one image, (channels, height, width), or other input, as the network reads it

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
    for batch in _items(batches, parameter):
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


def _items(batches: Iterable[Any], parameter: str) -> Iterator[Any]:
    """What the user's own code yields. Raises InputError with its error."""
    items = iter(batches)
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except Exception as error:  # a data set may raise anything
            raise InputError(f"`{parameter}` cannot be read: {named(error)}") from error
        yield item


def _is_batch(given: Any, shape: tuple[int, ...]) -> bool:
    """A tensor of inputs, or a pair of inputs and labels."""
    if isinstance(given, Tensor):
        return tuple(given.shape[1:]) == shape
    return _is_pair(given, shape)


def _is_pair(given: Any, shape: tuple[int, ...]) -> bool:
    """Inputs and what must be their labels, since it is nothing that could be inputs."""
    parts = cast(Sequence[Any], given) if isinstance(given, tuple | list) else ()
    if len(parts) != 2:
        return False
    first, second = cast(Any, parts)
    if not isinstance(first, Tensor) or shape not in (tuple(first.shape), tuple(first.shape[1:])):
        return False
    return not isinstance(second, Tensor) or second.ndim < len(shape)


def _one(batch: Any, shape: tuple[int, ...], parameter: str) -> tuple[Tensor, Tensor | None]:
    """(inputs, labels) of one item of an iterable."""
    labels: Any = None
    parts = cast(Sequence[Any], batch) if isinstance(batch, tuple | list) else ()
    if _is_pair(batch, shape):
        batch, labels = cast(Any, parts)
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
    if batch.is_meta or batch.layout != torch.strided or not len(batch):
        raise InputError(f"`{parameter}` holds a tensor that is empty, sparse or on device meta")
    x = batch.detach().to("cpu", torch.float32)
    if not bool(x.isfinite().all()):
        raise InputError(f"`{parameter}` holds NaN or infinity; give finite inputs")
    if labels is None:
        return x, None
    return x, _labels(labels, len(x), parameter)


def _labels(given: Any, count: int, parameter: str) -> Tensor:
    """int64 (count,)."""
    wanted = "give one class index, from 0, for each image"
    if isinstance(given, int):
        given = torch.tensor([given])
    if not isinstance(given, Tensor):
        raise InputError(f"`{parameter}` has labels in a {type(given).__name__}; {wanted}")
    if given.is_floating_point() or given.is_complex() or given.ndim > 1:
        form = "×".join(map(str, given.shape)) or "a single number"
        kind = str(given.dtype).removeprefix("torch.")
        raise InputError(f"`{parameter}` has labels of {kind}, shape {form}; {wanted}")
    y = given.detach().to("cpu", torch.int64).reshape(-1)
    if len(y) != count:
        raise InputError(f"`{parameter}` has {len(y)} labels for {count} images; give one for each")
    if int(y.min()) < 0:
        raise InputError(f"`{parameter}` has the label {int(y.min())}; {wanted}")
    return y


def _shape_error(given: Tensor, shape: tuple[int, ...], parameter: str) -> InputError:
    found, wanted = ("×".join(map(str, s)) for s in (tuple(given.shape), shape))
    return InputError(f"`{parameter}` has shape {found}; the network reads n×{wanted}")
