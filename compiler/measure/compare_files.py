"""Two model files of any origin beside each other: size, operators, outputs, times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import onnx
import torch

from shrinkc.compiler.formats.boundary import Boundary
from shrinkc.compiler.formats.onnx import ONNX
from shrinkc.compiler.formats.registry import read_model
from shrinkc.compiler.formats.runner import Array, Runner, random_inputs
from shrinkc.compiler.formats.tflite_operators import read_operators
from shrinkc.compiler.images.source import Given, image_source
from shrinkc.compiler.measure.bench import bench
from shrinkc.compiler.support.difference import relative_error
from shrinkc.compiler.support.text import one_line
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.errors import InputError, LoadError

IMAGES = 32  # that are looked at
_CHANNELS_LAST, _CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_PIXELS = (1, 3)  # channels of images


@dataclass(frozen=True)
class FileSide:
    """One of the two. `operators`: kind → count."""

    path: Path
    bytes: int
    runtime: str
    operators: Mapping[str, int]


@dataclass(frozen=True, repr=False)
class ComparedFiles:
    """sides       the files
    difference  of their outputs, as a share of the first's range; None where they have others
    agreement   share of the images that both sort into the same class; None without images or
                classes
    images      that the outputs are of; 0: one random input
    first_ms, second_ms, speedup  medians here, in turns, and of the ratios; None: not timed
    """

    sides: tuple[FileSide, FileSide]
    difference: float | None
    agreement: float | None = None
    images: int = 0
    first_ms: float | None = None
    second_ms: float | None = None
    speedup: float | None = None

    def __repr__(self) -> str:
        first, second = (side.path.name for side in self.sides)
        timed = f": {self.speedup:.2f}×" if self.speedup else ""
        return f"ComparedFiles({second} over {first}{timed})"


def compare_files(
    first: Path, second: Path, images: Given | None, threads: int, runs: int
) -> ComparedFiles:
    """Read, run and time both. One may lie channels first and the other channels last, and inputs
    and outputs may be int8: floats are quantised by the file's own scale.

    Images may be of another size in one than in the other, which see the same images then. Raises
    LoadError for a file that is damaged or cannot be run, InputError for inputs of other shapes.
    """
    sides, files = zip(*(_opened(path, threads) for path in (first, second)), strict=True)
    runners = [file.runner for file in files]
    orders = [_order(a, b) for a, b in zip(*(r.input_shapes for r in runners), strict=False)]
    if None not in orders and len(orders) == len(runners[1].input_shapes):
        samples = [random_inputs(runners[0])] if images is None else _of_images(runners[0], images)
        turned = [
            [x.transpose(o) for x, o in zip(sample, orders, strict=True) if o is not None]
            for sample in samples
        ]
    elif images is not None and of_other_sizes(*runners):
        samples, turned = (_of_images(one, images, runners[0]) for one in runners)
    else:
        hint = "give `images`" if of_other_sizes(*runners) else None
        raise InputError(f"{first} and {second} read inputs of other shapes", hint)
    differences, agreeing = list[float | None](), list[bool]()
    for sample, theirs in zip(samples, turned, strict=True):
        ours, others = files[0].run(sample), files[1].run(theirs)
        differences.append(_difference(ours, others))
        answers = [tuple(map(torch.as_tensor, answer)) for answer in (ours, others)]
        if CLASSIFICATION.judges(answers[0]) and ours[0].shape == others[0].shape:
            agreeing.append(bool(CLASSIFICATION.agree(*answers).all()))
    known = [d for d in differences if d is not None]
    found = ComparedFiles(
        (sides[0], sides[1]),
        difference=max(known) if len(known) == len(differences) else None,
        agreement=sum(agreeing) / len(agreeing) if images is not None and agreeing else None,
        images=0 if images is None else len(samples),
    )
    return found if not runs else _timed(found, files, runs)


class _File:
    """A runner that is fed and read in floats."""

    def __init__(self, path: Path, runner: Runner, boundary: Boundary) -> None:
        self.path, self.runner, self.boundary = path, runner, boundary

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        try:
            outputs = self.runner.run(self.boundary.stored(inputs))
            numbers = bool(outputs) and all(map(_is_numbers, outputs))
            outputs = self.boundary.floats(outputs) if numbers else []
        except LoadError as error:
            raise LoadError(f"{self.path}: {error}") from error
        except Exception as error:  # runtimes raise what they like
            raise LoadError(f"{self.path}: does not run on float32 ({one_line(error)})") from error
        if not outputs:
            raise LoadError(f"{self.path}: returns no arrays of numbers")
        return outputs


def _is_numbers(output: Any) -> bool:
    """And neither texts nor a list of arrays."""
    return isinstance(output, np.ndarray) and cast(Array, output).dtype.kind in "biuf"


def _opened(path: Path, threads: int) -> tuple[FileSide, _File]:
    found, data = read_model(path)
    try:
        operators = _onnx_operators(data) if found is ONNX else read_operators(data).counts
        found.check(data)
        runner = found.open_apart(data, threads)
    except LoadError as error:
        raise LoadError(f"{path}: {error}") from error
    try:
        boundary = found.boundary(data)
    except Exception as error:  # such as an index of no tensor
        raise LoadError(
            f"{path}: its inputs and outputs are damaged ({one_line(error)})"
        ) from error
    side = FileSide(path, len(data), runner.runtime, operators)
    return side, _File(path, runner, boundary)


def _onnx_operators(data: bytes) -> dict[str, int]:
    try:
        graph = onnx.load_model_from_string(data).graph
    except Exception as error:  # of protobuf
        raise LoadError(f"a damaged .onnx ({one_line(error)}); copy or export it again") from error
    return dict(Counter(node.op_type for node in graph.node))


def _order(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...] | None:
    """How the first's dimensions come to lie as the second's; None: they are others."""
    if first == second:
        return tuple(range(len(first)))
    if len(first) == len(second) == 4:
        for order in (_CHANNELS_LAST, _CHANNELS_FIRST):
            if tuple(first[d] for d in order) == second:
                return order
    return None


def _of_images(runner: Runner, images: Given, beside: Runner | None = None) -> list[list[Array]]:
    """One sample at a time, as the file lies. `beside`: that `images` are given for, where they are
    of another size there."""
    own, given = _first_channels(runner), _first_channels(beside or runner)
    source = image_source(images, [given], "images", labelled=False)
    source = source if own == given else source.at_size((own[2], own[3]))
    batch = source.examples(IMAGES)
    if batch is None or own[0] != 1:
        raise InputError("`images` cannot be compared: none can be read, or the batch is not 1")
    order = _CHANNELS_LAST if own != runner.input_shapes[0] else tuple(range(len(own)))
    return [[x[None].to(torch.float32).numpy().transpose(order)] for x in batch[0][0]]


def _first_channels(runner: Runner) -> tuple[int, ...]:
    """The shape of the input, of images with their channels first."""
    shapes = runner.input_shapes
    if len(shapes) != 1:
        raise InputError("`images` compare files with one input; leave them out")
    (shape,) = shapes
    last = len(shape) == 4 and shape[3] in _PIXELS and shape[1] not in _PIXELS
    return tuple(shape[d] for d in _CHANNELS_FIRST) if last else shape


def of_other_sizes(first: Runner, second: Runner) -> bool:
    """Whether both read one image each, and only its height and width differ."""
    if not (_reads_image(first) and _reads_image(second)):
        return False
    return _first_channels(first)[:2] == _first_channels(second)[:2]


def _reads_image(runner: Runner) -> bool:
    shapes = runner.input_shapes
    return len(shapes) == 1 and len(shapes[0]) == 4 and _first_channels(runner)[1] in _PIXELS


def _difference(ours: Sequence[Array], theirs: Sequence[Array]) -> float | None:
    orders = [_order(a.shape, b.shape) for a, b in zip(ours, theirs, strict=False)]
    if len(ours) != len(theirs) or None in orders:
        return None
    pairs = zip(ours, theirs, orders, strict=True)
    return max((relative_error(b, a.transpose(o)) for a, b, o in pairs if o is not None), default=0)


def _timed(found: ComparedFiles, files: Sequence[_File], runs: int) -> ComparedFiles:
    runners = [file.runner for file in files]
    inputs = [file.boundary.stored(random_inputs(file.runner)) for file in files]
    a, b = bench(runners, runs=runs, inputs=inputs)
    ratios = [x / y for x, y in zip(a.times_ms, b.times_ms, strict=True)]
    return ComparedFiles(
        *(found.sides, found.difference, found.agreement, found.images),
        *(a.median_ms, b.median_ms, median(ratios)),
    )
