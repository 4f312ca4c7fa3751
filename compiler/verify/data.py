"""Which inputs verify, which calibrate, which are judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx

from shrinkc.compiler.images.files import ImageSet
from shrinkc.compiler.images.preprocessing import Normalisation
from shrinkc.compiler.images.tensors import TensorImages
from shrinkc.compiler.options import Options
from shrinkc.compiler.pipeline.run import sample_inputs
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.reference.probes import Probe, batch_sizes, probes
from shrinkc.compiler.support.text import counted, shown
from shrinkc.errors import InputError
from shrinkc.passes.criteria.shared.data import Batch

MAX_CALIBRATION = 300
RANDOM_BATCHES = 3
BATCH_BYTES = 32 << 20  # of input per batch


@dataclass(frozen=True)
class Data:
    """Inputs for one compilation: images where given, seeded random numbers otherwise.

    apart    whether a batch may be run in parts: the network treats samples one by one
    example  inputs of the network's; None: normal numbers
    raw      what the network does to raw images first, where it reads those
    """

    graph_module: fx.GraphModule
    options: Options
    evaluation: ImageSet | TensorImages | None
    calibration: ImageSet | TensorImages | None
    apart: bool = True
    example: tuple[Tensor, ...] | None = None
    raw: Normalisation | None = None
    skipped: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def evaluation_batches(self) -> int:
        if self.evaluation is None:
            return RANDOM_BATCHES
        return -(-len(self.evaluation) // self._batch_size())

    @property
    def judged_on(self) -> str:
        """What `batches` holds, in a sentence."""
        return "random numbers" if self.evaluation is None else "the images"

    def batches(self) -> Iterator[Batch]:
        """(inputs, labels) to compare artefacts on."""
        if self.evaluation is None:
            for seed in range(RANDOM_BATCHES):
                yield self._as_read(sample_inputs(self.graph_module, torch.float32, seed)), None
            return
        size = self._batch_size()
        for images, labels in self._read(self.evaluation, size):
            if self.apart or len(images[0]) == size:
                yield images, labels

    def probes(self) -> tuple[Probe, ...]:
        """What reaches the limits of the network, at every batch size that its files take."""
        example = self.example or sample_inputs(self.graph_module, torch.float32)
        free = self.graph_module.meta.get("dynamic_batch", False)
        found = probes(example, batch_sizes(example) if free else (len(example[0]),))
        return tuple(replace(probe, inputs=self._as_read(probe.inputs)) for probe in found)

    def _as_read(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What is made up for a network is made up behind its normalisation."""
        return inputs if self.raw is None else tuple(map(self.raw.undone, inputs))

    def notes(self) -> tuple[str, ...]:
        """Images that could not be used, named."""
        notes: list[str] = []
        if self.skipped:
            name, reason = next(iter(self.skipped.items()))
            left = counted(len(self.skipped), "unreadable image")
            notes.append(f"{left} left out, first {name}: {reason}")
        if isinstance(self.evaluation, ImageSet) and self.evaluation.others:
            others = self.evaluation.others
            left = counted(len(others), "file")
            notes.append(f"{left} of other kinds left out, first {shown(others[0])}")
        return tuple(notes)

    def calibration_batches(self) -> list[tuple[Tensor, ...]]:
        """Inputs at the captured batch size, at most MAX_CALIBRATION images of them."""
        if self.calibration is None:
            raise InputError("int8 needs images to calibrate on; give `images`")
        batch = _captured_batch(self.graph_module)
        read = self._read(self.calibration, batch)
        batches = [inputs for inputs, _ in read if len(inputs[0]) == batch]
        if not batches:
            raise InputError(
                f"int8 needs at least {batch} images to calibrate on, the batch of `inputs`"
            )
        return batches

    def _read(self, images: ImageSet | TensorImages, size: int) -> Iterator[Batch]:
        if isinstance(images, TensorImages):
            return images.batches(batch_size=size)
        preprocessing = self.options.preprocessing
        if preprocessing is None:
            raise InputError("images need a preprocessing")
        return images.batches(preprocessing, size, self.skipped.__setitem__)

    def _batch_size(self) -> int:
        batch = _captured_batch(self.graph_module)
        if not (self.apart and self.graph_module.meta.get("dynamic_batch", False)):
            return batch
        shapes = self.graph_module.meta["input_shapes"].values()
        per_image = 4 * sum(torch.Size(shape[1:]).numel() for shape in shapes)
        return max(1, min(16, BATCH_BYTES // per_image) // batch) * batch


def split(
    graph_module: fx.GraphModule,
    options: Options,
    original: Original | None = None,
    raw: Normalisation | None = None,
) -> Data:
    """Evaluation images are never calibration images. `original` tells whether samples may be run
    apart; without it they are taken to. `raw`: what the network does to images first, which are
    given to it as they are."""
    if raw is not None:
        options = replace(options, preprocessing=raw.raw)
    images, calibration = options.images, options.calibration
    if options.precision == "int8" and calibration is None and options.stored is None:
        if images is None or len(images) < 2:
            raise InputError("int8 needs images to calibrate on; give `images`")
        calibration = images.part(slice(1, None, 2))
        images = images.part(slice(0, None, 2))
    if calibration is not None:
        step = max(1, -(-len(calibration) // MAX_CALIBRATION))  # spread over all of them
        calibration = calibration.part(slice(0, None, step))
    apart = original is None or _apart(graph_module, original)
    example = None if original is None else original.example
    return Data(graph_module, options, images, calibration, apart, example, raw)


def _apart(graph_module: fx.GraphModule, original: Original) -> bool:
    """A batch of one that is fixed is never run in parts."""
    free = graph_module.meta.get("dynamic_batch", False)
    if not free and _captured_batch(graph_module) == 1:
        return True
    return original.treats_samples_alone(sample_inputs(graph_module, torch.float32))


def _captured_batch(graph_module: fx.GraphModule) -> int:
    return next(iter(graph_module.meta["input_shapes"].values()))[0]
