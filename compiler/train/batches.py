"""Which images make a batch, as a function of seed and step: nothing to save for a resume."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from shrinkc.compiler.images.augment import cut, draw
from shrinkc.compiler.images.decoded import Data
from shrinkc.compiler.train.compute import ALONE, Ranks
from shrinkc.errors import TrainingError

_AHEAD = 2  # batches prepared while a GPU computes


@dataclass(frozen=True)
class Batch:
    """inputs (n, channels, height, width); labels int64 (n,) or None: this rank's share."""

    inputs: Tensor
    labels: Tensor | None


def mix(*numbers: int) -> int:
    """A seed from several numbers: 63 bits, unrelated for neighbours."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


class Batches:
    """Batches of `data` in an order that follows from `seed` and the epoch.

    `size` is the global batch; every rank takes each `ranks`-th image of it. What is left at an
    epoch's end and fills no batch is left out; a set smaller than a batch is one batch.

    Raises DataError where stored images do not cover the network's input, TrainingError where
    the ranks cannot share a batch.
    """

    def __init__(
        self,
        data: Data,
        size: int,
        seed: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.size = min(size, len(data.images))
        if self.size % ranks.count:
            raise TrainingError(
                f"a batch of {self.size} cannot be shared by {ranks.count} ranks; "
                "give a multiple of that"
            )
        self.steps_per_epoch = len(data.images) // self.size
        self._data, self._seed, self._ranks = data, seed, ranks
        self._device = device
        self._epoch, self._order = -1, torch.empty(0)
        self.labelled = data.images.labels is not None
        self[0]  # what is wrong with the sizes shows here

    def __getitem__(self, step: int) -> Batch:
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, order(len(self._data.images), self._seed, epoch)
        rank, ranks = self._ranks.rank, self._ranks.count
        images, size = self._data.images, self._data.input_size
        rows = self._order[index * self.size : (index + 1) * self.size][rank::ranks]
        seed = mix(self._seed, epoch, index)
        windows = draw(self._data.augmentation, self.size, images.size, size, seed)
        pixels = images.stored(rows).to(self._device)
        inputs = images.inputs(cut(pixels, windows.part(rank, ranks), size))
        labels = None if images.labels is None else images.labels[rows].to(self._device)
        return Batch(inputs, labels)


def order(count: int, seed: int, epoch: int) -> Tensor:
    """The images of one epoch, shuffled."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(mix(seed, epoch)))


@contextmanager
def ahead(batches: Batches, steps: range) -> Generator[Iterator[Batch]]:
    """The batches of `steps`, prepared by a thread; the thread ends with the context."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def put(item: Batch | BaseException) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def prepare() -> None:
        try:
            for step in steps:
                if stop.is_set():
                    return
                put(batches[step])
        except BaseException as error:  # raised where the batch is asked for
            put(error)

    def taken() -> Iterator[Batch]:
        for _ in steps:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=prepare, daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stop.set()
        thread.join()
