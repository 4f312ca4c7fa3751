"""An ONNX file as a network of torch's, and the file itself, which that must equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.load.check_weights import check_finite
from shrinkc.compiler.load.onnx.file import OnnxFile, read_onnx
from shrinkc.compiler.load.onnx.original import OnnxOriginal
from shrinkc.compiler.load.onnx.translate import translate
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.reference.probes import batch_sizes
from shrinkc.compiler.reference.reference import Reference, tensors_of
from shrinkc.compiler.reference.same import require_same
from shrinkc.errors import CaptureError, IllegalGraphError


@dataclass(frozen=True, eq=False)
class OnnxNetwork:
    """A file for inputs of given shapes.

    module    its translation, in eval mode; not compared with anything yet
    original  the file in ONNX Runtime
    """

    module: fx.GraphModule
    original: nn.Module


def onnx_network(file: OnnxFile, shapes: Sequence[tuple[int, ...]]) -> OnnxNetwork:
    """Raises CaptureError where an operator cannot be translated, LoadError for a damaged file."""
    module = translate(file, shapes)
    check_finite(file.path, module)
    return OnnxNetwork(module, OnnxOriginal(file, module))


def load_onnx(path: Path, max_bytes: int) -> nn.Module:
    """The translation of a file for inputs of the shapes that it declares, compared with the file.

    Raises what `read_onnx` and `onnx_network` do, InputError where a size other than the batch is
    open, and CaptureError where the translation does not compute what the file does.
    """
    file = read_onnx(path, max_bytes)
    shapes = file.shapes()
    network = onnx_network(file, shapes)
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn(shape, generator=generator) for shape in shapes)
    free = file.batch_is_open() and network.module.meta["dynamic_batch"]

    def translated(*x: Tensor) -> tuple[Tensor, ...]:
        return tensors_of(network.module(*x))

    sizes = batch_sizes(inputs) if free else (len(inputs[0]),)
    try:
        require_same(translated, Original.of_model(Reference(network.original)), inputs, sizes)
    except IllegalGraphError as error:
        raise CaptureError(
            f"{path}: its translation does not compute what ONNX Runtime does: {error}"
        ) from error
    return network.module
