"""Images that are in memory already, as the network reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from shrinkc.compiler.images.augment import Size, scaled
from shrinkc.compiler.images.decoded import Arrays, Images, Samples
from shrinkc.compiler.images.labels import is_boxes, joined, kind_of, labels_of
from shrinkc.compiler.support.text import named
from shrinkc.compiler.tasks.task import LabelKind
from shrinkc.errors import InputError
from shrinkc.passes.criteria.shared.data import Batch

MEMORY_BYTES = 2 << 30  # of inputs that are collected from an iterable


@dataclass(frozen=True)
class Reads:
    """What a network reads of a sample at one of its inputs.

    shape  without the batch: (channels, height, width) of an image
    dtype  float32, or of whole numbers
    name   of the input
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    name: str = "input"


@dataclass(frozen=True, eq=False)
class TensorImages:
    """Inputs of a network, and what is in them.

    inputs  (n, …) of each of the network's inputs, as it reads them: float32 (n, channels, height,
            width) for images
    labels  (n, …), or None: `images.labels` says of which kinds
    source  the parameter that they were given as, for messages
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor | None = None
    source: str = "images"

    def __len__(self) -> int:
        return self.inputs[0].shape[0]

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
        """Yield ((n, …) of each input, labels (n, …) or None). They need no preprocessing, and
        none is left out."""
        for start in range(0, len(self), batch_size):
            some = self.part(slice(start, start + batch_size))
            yield some.inputs, some.labels

    def part(self, rows: slice | Tensor) -> TensorImages:
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, inputs=tuple(x[rows] for x in self.inputs), labels=labels)

    def spread(self, limit: int) -> TensorImages:
        """`limit` of them, evenly spaced."""
        count = min(limit, len(self))
        return self.part(torch.arange(count) * len(self) // count)

    def at_size(self, size: Size) -> TensorImages:
        """One input's images, resized."""
        (x,) = self.inputs
        return replace(self, inputs=(scaled(x, size),))

    def without_labels(self) -> TensorImages:
        return replace(self, labels=None)

    def decoded(self) -> Samples:
        """As fits and training read them: images, where they are that."""
        x, *others = self.inputs
        if others or x.ndim != 4 or not x.is_floating_point():
            return Arrays(self.inputs, self.labels, self.source)
        return Images(x.permute(0, 2, 3, 1).contiguous(), self.labels, source=self.source)


def in_parts(inputs: tuple[Tensor, ...], size: int) -> Iterator[tuple[Tensor, ...]]:
    """A batch, so many samples at a time."""
    parts = (cast("tuple[Tensor, ...]", cast(Any, x).split(size)) for x in inputs)
    return zip(*parts, strict=True)


def together(parts: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The batch that such parts are of."""
    return tuple(map(torch.cat, zip(*parts, strict=True)))


def collected(given: Any, reads: Sequence[Reads], parameter: str) -> TensorImages:
    """Inputs from a tensor (n, …), a pair of it and labels (n, …), or an iterable of such batches,
    of single images, or of either with labels: a DataLoader, a dataset, a list. For a network with
    several inputs a tuple of tensors stands wherever a tensor does; labels may come last in it.

    Raises InputError that names `parameter`: no images, another shape or kind of numbers, labels
    for some of them only, more than MEMORY_BYTES.
    """
    several, given = len(reads) > 1, _tensors(given, parameter)
    if _are_batches(given) if several else _is_batch(given, reads[0].shape):
        batches: Any = [given]
    elif isinstance(given, Tensor):
        raise _shape_error(given, reads, parameter)
    else:
        try:
            batches = iter(given)
        except TypeError:
            raise InputError(
                f"`{parameter}` is a {type(given).__name__}; give a folder, a tar, a tensor, or an "
                "iterable of tensors"
            ) from None
    inputs: list[tuple[Tensor, ...]] = []
    labels: list[Tensor | None] = []
    held = 0
    for item in _items(batches, parameter):
        batch = _tensors(item, parameter)
        if several:
            x, y = _several(batch, reads, parameter)
        else:
            x, y = _one(batch, reads[0], parameter)
        held += sum(one.nbytes for one in x)
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
    return TensorImages(together(inputs), joined(known) if known else None, parameter)


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


def _tensors(given: Any, parameter: str) -> Any:
    """Arrays of numpy, and those in tuples and lists, become tensors. Raises InputError for those
    that hold no numbers."""
    if isinstance(given, tuple | list):
        items = cast("Sequence[Any]", given)
        arrays = any(isinstance(one, np.ndarray | tuple | list) for one in items)
        if not arrays:
            return cast(Any, given)
        made = [_tensors(one, parameter) for one in items]
        return tuple(made) if isinstance(given, tuple) else made
    if not isinstance(given, np.ndarray):
        return given
    array = cast("np.ndarray[Any, Any]", given)
    if array.dtype.kind not in "uifb":
        raise InputError(f"`{parameter}` holds an array of {array.dtype}; give numbers")
    return torch.as_tensor(array.astype(array.dtype.newbyteorder("="), order="C"))


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


def _one(batch: Any, reads: Reads, parameter: str) -> tuple[tuple[Tensor], Tensor | None]:
    """(inputs, labels) of one item of an iterable."""
    labels: Any = None
    parts = cast(Sequence[Any], batch) if isinstance(batch, tuple | list) else ()
    if _is_pair(batch, reads.shape):
        batch, labels = cast(Any, parts)
    elif len(parts) == 1:
        batch = parts[0]
    x, single = _input(batch, reads, [reads], parameter)
    if labels is None:
        return (x,), None
    return (x,), labels_of(labels, len(x), parameter, single=single)


def _are_batches(given: Any) -> bool:
    """One batch of several inputs, alone or with its labels: items of an iterable are tuples."""
    parts = cast("Sequence[Any]", given) if isinstance(given, tuple | list) else ()
    if len(parts) == 2 and isinstance(parts[0], tuple | list):  # or two batches
        return not isinstance(parts[1], tuple | list) or _boxes_are(parts[1])
    return bool(parts) and isinstance(parts[0], Tensor)


def _boxes_are(given: Any) -> bool:
    return all(isinstance(one, Mapping) for one in cast("Sequence[Any]", given))


def _several(
    item: Any, reads: Sequence[Reads], parameter: str
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """(inputs, labels) of one item for a network with several inputs."""
    parts = list(cast(Sequence[Any], item)) if isinstance(item, tuple | list) else []
    labels: list[Any] = []
    if len(parts) == 2 and isinstance(parts[0], tuple | list):
        parts, labels = list(cast(Sequence[Any], parts[0])), parts[1:]
    elif len(parts) == len(reads) + 1:
        parts, labels = parts[:-1], parts[-1:]
    if len(parts) != len(reads):
        raise InputError(
            f"`{parameter}`: the network has {len(reads)} inputs; give tuples of {len(reads)} "
            f"tensors, {said(reads, named=True)}, or pairs of such a tuple and its labels"
        )
    found = [_input(x, one, reads, parameter) for x, one in zip(parts, reads, strict=True)]
    inputs = tuple(x for x, _ in found)
    counts = [len(x) for x in inputs]
    if len(set(counts)) > 1:
        told = ", ".join(map(str, counts))
        raise InputError(f"`{parameter}` holds {told} of the network's inputs; give equally many")
    if not labels:
        return inputs, None
    return inputs, labels_of(labels[0], counts[0], parameter, single=found[0][1])


def _input(given: Any, reads: Reads, among: Sequence[Reads], parameter: str) -> tuple[Tensor, bool]:
    """(n, …) of one input, `among` all, and whether it was a single one without its batch."""
    batch, shape, dtype = given, reads.shape, reads.dtype
    if not shape and isinstance(batch, int | float):
        batch = torch.tensor(batch)
    if not isinstance(batch, Tensor):
        kind = type(cast(object, batch)).__name__
        raise InputError(
            f"`{parameter}` yields a {kind}; give tensors, or pairs of a tensor and its labels"
        )
    single = tuple(batch.shape) == shape
    batch = batch[None] if single else batch
    if tuple(batch.shape[1:]) != shape:
        raise _shape_error(batch, among, parameter)
    if batch.is_floating_point() != dtype.is_floating_point:
        floats = "floats, scaled and normalised as the network reads them"
        wanted = floats if dtype.is_floating_point else f"{str(dtype).removeprefix('torch.')}"
        raise InputError(
            f"`{parameter}` holds {str(batch.dtype).removeprefix('torch.')}; give {wanted}"
        )
    if batch.is_meta or batch.layout != torch.strided or not len(batch):
        raise InputError(f"`{parameter}` holds a tensor that is empty, sparse or on device meta")
    x = batch.detach().cpu()
    x = x.to(dtype) if dtype.is_floating_point else whole(x, dtype, f"`{parameter}`")
    if not bool(x.isfinite().all()):
        raise InputError(f"`{parameter}` holds NaN or infinity; give finite inputs")
    return x, single


def whole(given: Tensor, dtype: torch.dtype, told: str) -> Tensor:
    """Whole numbers in another type. Raises InputError for those that it has not."""
    numbers = cast("np.ndarray[Any, Any]", given.numpy())
    kind = str(dtype).removeprefix("torch.")
    found = numbers.astype(kind)
    if (found != numbers).any():
        number = numbers[found != numbers].flat[0]
        raise InputError(f"{told} holds {number}; the network reads {kind}, which has none such")
    return torch.as_tensor(found)


def _shape_error(given: Tensor, reads: Sequence[Reads], parameter: str) -> InputError:
    found = "×".join(map(str, given.shape))
    return InputError(f"`{parameter}` has shape {found}; the network reads {said(reads)}")


def said(reads: Sequence[Reads], *, named: bool = False) -> str:
    """In words: n×3×224×224, behind the input's name if `named`."""
    shapes = ["×".join(map(str, ("n", *one.shape))) for one in reads]
    if named:
        shapes = [f"{one.name} {shape}" for one, shape in zip(reads, shapes, strict=True)]
    return " and ".join(shapes)
