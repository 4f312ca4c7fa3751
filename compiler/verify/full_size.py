"""A network that reads larger images than the files that are judged beside it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import islice

import torch
from torch import Tensor

from shrinkc.compiler.images.augment import Size, scaled
from shrinkc.compiler.images.files import ImageSet
from shrinkc.compiler.images.preprocessing import Preprocessing, read_image
from shrinkc.compiler.images.tensors import TensorImages
from shrinkc.compiler.options import Options
from shrinkc.compiler.reference.original import Answering, Original
from shrinkc.compiler.support.difference import Array
from shrinkc.compiler.support.text import shown
from shrinkc.errors import ImageError


class AtFullSize(Original):
    """Shown a batch of small images, it answers for the same images of its own `size`. Batches are
    numbered from 0, all as large as the first but for the last.

    small, large  how the same images are read for the files, and for this network
    """

    def __init__(self, answer: Answering, size: Size, small: Options, large: Options) -> None:
        super().__init__(answer)
        self.size, self._small, self._large = size, small, large
        self._images, self._place, self._batch = self._read(), 0, 0

    def outputs(self, key: Hashable, inputs: tuple[Tensor, ...]) -> list[Array]:
        count = len(inputs[0])
        if self._large.images is None:  # numbers that were drawn
            return super().outputs(key, (scaled(inputs[0], self.size),))
        if key in self._kept or not isinstance(key, int):
            return super().outputs(key, inputs)
        self._batch = count if key == 0 else self._batch
        start = key * self._batch
        if start < self._place:
            self._images, self._place = self._read(), 0
        some = list(islice(self._images, start - self._place, start - self._place + count))
        self._place = start + count
        return super().outputs(key, (torch.stack(some),))

    def _read(self) -> Iterator[Tensor]:
        """Every image that is readable, (channels, height, width)."""
        images, preprocessing = self._large.images, self._large.preprocessing
        if isinstance(images, TensorImages):
            yield from images.inputs[0]
        elif images is not None and preprocessing is not None:
            yield from self._of_files(images, preprocessing)

    def _of_files(self, images: ImageSet, preprocessing: Preprocessing) -> Iterator[Tensor]:
        smaller = self._small.preprocessing or preprocessing
        for image, data in images.files():
            try:
                content = data()
                read_image(content, image.name, smaller)
            except ImageError:
                continue  # left out of the small ones, too
            try:
                yield read_image(content, image.name, preprocessing)
            except ImageError as error:
                name = f"{images.path}: '{shown(image.name)}'"
                raise ImageError(f"{name} can be used in one size alone: {error}") from error
