"""Decoded images of one size, in memory or mapped from a file, and other inputs, ready for
batches."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from shrinkc.compiler.images.augment import Augmentation, Size, cut, draw
from shrinkc.errors import DataError, InputError


@dataclass(frozen=True, eq=False)
class Images:
    """Images as stored: not normalised, not augmented.

    pixels   (n, height, width, channels), uint8 or float32
    labels   (n, …), or None: `images.labels` says of which kinds
    mean     per channel or one for all, subtracted after uint8 is scaled to 0–1
    std      likewise, divided by
    source   where they come from, for messages
    skipped  (name, reason) of what could not be used
    """

    pixels: Tensor
    labels: Tensor | None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    source: str = "images"
    skipped: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype not in (torch.uint8, torch.float32):
            shape = "×".join(map(str, self.pixels.shape))
            raise DataError(
                f"{self.source}: pixels of {shape} {self.pixels.dtype}; give uint8 or float32 of "
                "(n, height, width, channels)"
            )
        if not len(self):
            raise DataError(f"{self.source}: no images")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.pixels.shape[3]):
                raise DataError(f"{self.source}: {name} has {len(values)} values")
        if self.labels is not None and len(self.labels) != len(self):
            raise DataError(f"{self.source}: {len(self.labels)} labels for {len(self)} images")

    def __len__(self) -> int:
        return self.pixels.shape[0]

    @property
    def size(self) -> Size:
        return self.pixels.shape[1], self.pixels.shape[2]

    def stored(self, rows: Tensor) -> Tensor:
        """A copy of those rows' pixels. rows: int64 (n,)."""
        return self.pixels.index_select(0, rows)

    def part(self, rows: Tensor) -> Images:
        """A copy of those rows, labels with them. rows: int64 (n,)."""
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, pixels=self.pixels[rows], labels=labels)

    def in_memory(self) -> Images:
        """With pixels that are there."""
        return self

    def inputs(self, pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """What the network sees: (n, h, w, channels) as stored → (n, channels, h, w).

        The same arithmetic as `read_image`'s, so the same bits. Channels stay innermost in
        memory (`torch.channels_last`).
        """
        mean = torch.tensor(self.mean, dtype=torch.float32, device=pixels.device)
        std = torch.tensor(self.std, dtype=torch.float32, device=pixels.device)
        scaled = pixels.to(torch.float32)
        if self.pixels.dtype == torch.uint8:
            scaled = scaled.div_(255) if scaled is not pixels else scaled / 255
        return scaled.sub(mean).div_(std).permute(0, 3, 1, 2).to(dtype)

    @cached_property
    def digest(self) -> str:
        """Tells sets apart: their size, all labels and 64 of the images."""
        crc = _checksum((self.stored(_some(len(self))),), self.labels)
        return f"{'×'.join(map(str, self.pixels.shape))}-{crc:08x}"

    def taken(
        self,
        rows: Tensor,
        size: Size | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> tuple[Tensor]:
        """What the network sees of those rows, cut to its `size`: their middle by default."""
        size = size or self.size
        windows = draw(augmentation or Augmentation(), len(rows), self.size, size, seed)
        return (self.inputs(cut(self.stored(rows), windows, size)),)


@dataclass(frozen=True, eq=False)
class Arrays:
    """What is no images, as the network reads it.

    inputs  (n, …) of each of the network's inputs
    labels  (n, …), or None
    source  where they come from, for messages
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor | None = None
    source: str = "images"

    def __len__(self) -> int:
        return self.inputs[0].shape[0]

    def part(self, rows: Tensor) -> Arrays:
        """A copy of those rows, labels with them. rows: int64 (n,)."""
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, inputs=self.taken(rows), labels=labels)

    def taken(
        self,
        rows: Tensor,
        size: Size | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> tuple[Tensor, ...]:
        """The inputs of those rows: nothing of them can be cut or mirrored."""
        return tuple(x[rows] for x in self.inputs)

    @cached_property
    def digest(self) -> str:
        """As of images."""
        shapes = "+".join("×".join(map(str, x.shape)) for x in self.inputs)
        some = self.taken(_some(len(self)))
        return f"{shapes}-{_checksum(some, self.labels):08x}"


Samples = Images | Arrays


def trainable(samples: Samples) -> Images:
    """Raises InputError for what is no images."""
    if isinstance(samples, Arrays):
        raise InputError(
            f"`{samples.source}`: training reads images, one input (n, channels, height, width)",
            "leave out what trains; least squares and distillation fit other inputs",
        )
    return samples


def _some(count: int) -> Tensor:
    """64 rows, evenly spread."""
    return torch.arange(0, count, math.ceil(count / 64))


def _checksum(inputs: Sequence[Tensor], labels: Tensor | None) -> int:
    crc = 0
    for x in inputs:
        crc = zlib.crc32(x.numpy().tobytes(), crc)
    return crc if labels is None else zlib.crc32(labels.numpy().tobytes(), crc)


@dataclass(frozen=True, eq=False)
class Data:
    """Images to train on. `size` is the network's input (height, width); default: as stored."""

    images: Images
    augmentation: Augmentation = field(default_factory=Augmentation)
    size: Size | None = None

    @property
    def input_size(self) -> Size:
        return self.size or self.images.size
