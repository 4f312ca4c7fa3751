"""Images that are in memory already, as the network reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.images.files import Batch
from shrinkc.compiler.images.labels import is_boxes, joined, kind_of, labels_of
from shrinkc.compiler.support.text import named
from shrinkc.compiler.tasks.task import LabelKind
from shrinkc.errors import InputError

MEMORY_BYTES = 2 << 30  # of inputs that are collected from an iterable


@dataclass(frozen=True, eq=False)
class TensorImages:
    """Inputs of a network, and what is in them.

    inputs  (n, …) as the network reads them: float32 (n, channels, height, width) for images
    labels  (n, …), or None: `images.labels` says of which kinds
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

    @property
    def kind(self) -> LabelKind | None:
        """Of the labels."""
        return kind_of(self.labels)

    def batches(
        self,
        preprocessing: object = None,
        batch_size: int = 32,
        on_skip: Callable[[str, str], None] | None = None,
    ) -> Iterator[Batch]:
        """Yield (float32 (n, …), labels (n, …) or None). They need no preprocessing, and
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


def collected(
    given: Any, shape: tuple[int, ...], parameter: str, dtype: torch.dtype = torch.float32
) -> TensorImages:
    """Inputs from a tensor (n, …), a pair of it and labels (n, …), or an iterable of such batches,
    of single images, or of either with labels: a DataLoader, a dataset, a list.

    shape  of one image, (channels, height, width), or other input, as the network reads it
    dtype  that it reads: float32, or of whole numbers

    Raises InputError that names `parameter`: no images, another shape or kind of numbers, labels
    for some of them only, more than MEMORY_BYTES.
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
        x, y = _one(batch, shape, parameter, dtype)
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
    kinds = {kind_of(y) for y in known}
    if len(kinds) > 1 or len({y.shape[1:] for y in known if not is_boxes(y)}) > 1:
        raise InputError(f"`{parameter}` has labels of several kinds or shapes; give one")
    return TensorImages(torch.cat(inputs), joined(known) if known else None, parameter)


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


def _tensor(given: Any) -> Any:
    """Arrays of numpy become tensors."""
    return torch.as_tensor(cast(Any, given)) if isinstance(given, np.ndarray) else given


def _is_batch(given: Any, shape: tuple[int, ...]) -> bool:
    """A tensor of inputs, or a pair of inputs and labels."""
    if isinstance(given, Tensor):
        return tuple(given.shape[1:]) == shape
    return _is_pair(given, shape, alone=True)


def _is_pair(given: Any, shape: tuple[int, ...], *, alone: bool = False) -> bool:
    """Inputs and their labels. `alone`: it is all that was given, and two tensors may be batches of
    inputs: labels are then what could be none, and in a tuple what has another shape."""
    parts = cast(Sequence[Any], given) if isinstance(given, tuple | list) else ()
    if len(parts) != 2:
        return False
    first, second = cast(Any, parts)
    if not isinstance(first, Tensor) or shape not in (tuple(first.shape), tuple(first.shape[1:])):
        return False
    if not alone or not isinstance(second, Tensor):
        return True
    if not second.is_floating_point() or second.ndim < len(shape):
        return True
    inputs = shape in (tuple(second.shape), tuple(second.shape[1:]))
    return isinstance(given, tuple) and not inputs


def _one(
    batch: Any, shape: tuple[int, ...], parameter: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """(inputs, labels) of one item of an iterable."""
    labels: Any = None
    parts = cast(Sequence[Any], batch) if isinstance(batch, tuple | list) else ()
    if len(parts) == 2:
        parts = batch = (_tensor(parts[0]), parts[1])
    if _is_pair(batch, shape):
        batch, labels = cast(Any, parts)
    elif len(parts) == 1:
        batch = parts[0]
    batch = _tensor(batch)
    if not isinstance(batch, Tensor):
        kind = type(cast(object, batch)).__name__
        raise InputError(
            f"`{parameter}` yields a {kind}; give tensors, or pairs of a tensor and its labels"
        )
    single = tuple(batch.shape) == shape
    batch = batch[None] if single else batch
    if tuple(batch.shape[1:]) != shape:
        raise _shape_error(batch, shape, parameter)
    if batch.is_floating_point() != dtype.is_floating_point:
        floats = "floats, scaled and normalised as the network reads them"
        wanted = floats if dtype.is_floating_point else f"{str(dtype).removeprefix('torch.')}"
        raise InputError(
            f"`{parameter}` holds {str(batch.dtype).removeprefix('torch.')}; give {wanted}"
        )
    if batch.is_meta or batch.layout != torch.strided or not len(batch):
        raise InputError(f"`{parameter}` holds a tensor that is empty, sparse or on device meta")
    x = batch.detach().to("cpu", dtype)
    if not bool(x.isfinite().all()):
        raise InputError(f"`{parameter}` holds NaN or infinity; give finite inputs")
    if labels is None:
        return x, None
    return x, labels_of(labels, len(x), parameter, single=single)


def _shape_error(given: Tensor, shape: tuple[int, ...], parameter: str) -> InputError:
    found, wanted = ("×".join(map(str, s)) for s in (tuple(given.shape), shape))
    return InputError(f"`{parameter}` has shape {found}; the network reads n×{wanted}")
