"""The steps of a compilation, each a function of what came before."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.onnx import simplified, write_onnx
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.export.torch_fallback import FALLBACK_NOTE, torch_onnx
from shrinkc.compiler.formats.onnx import OnnxRunner
from shrinkc.compiler.formats.runner import random_inputs
from shrinkc.compiler.pipeline.run import sample_inputs
from shrinkc.compiler.support.difference import relative_error
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import UnsupportedOperatorError

SIMPLIFIED_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Exported:
    """One network's files in memory. `program` is None when torch.onnx had to write the ONNX."""

    program: ops.Program | None
    onnx: bytes
    tflite: bytes | None
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def export(graph_module: fx.GraphModule, opset: int) -> Exported:
    """Both files; a format that cannot express the network is a failure, not an exception.

    Raises ExportError when not even torch.onnx can write ONNX.
    """
    try:
        program = lower(graph_module)
    except UnsupportedOperatorError as error:
        inputs = sample_inputs(graph_module, torch.float32)
        return _through_torch(graph_module, inputs, opset, str(error))
    written, note = _simplify_onnx(write_onnx(program, opset).SerializeToString())
    try:
        tflite = write_tflite(program)
    except UnsupportedOperatorError as error:
        return Exported(program, written, None, (str(error),), note)
    return Exported(program, written, tflite, (), note)


def _through_torch(
    model: nn.Module, inputs: tuple[Tensor, ...], opset: int, reason: str
) -> Exported:
    return Exported(None, torch_onnx(model, inputs, opset), None, (reason,), (FALLBACK_NOTE,))


def _simplify_onnx(model: bytes) -> tuple[bytes, tuple[str, ...]]:
    """onnxsim's version when it computes the same, else ours."""
    try:
        smaller = simplified(model)
        runners = [OnnxRunner(m) for m in (model, smaller)]
        inputs = random_inputs(runners[0])
        ours, theirs = (runner.run(inputs) for runner in runners)
    except Exception as error:  # onnxsim's C++ may raise anything
        return model, (f"onnxsim failed ({one_line(error)}); model.onnx is as written",)
    worst = max(relative_error(a, b) for a, b in zip(theirs, ours, strict=True))
    if worst > SIMPLIFIED_TOLERANCE:
        return model, (f"onnxsim changed the result by {worst:.1e}; model.onnx is as written",)
    return smaller, ()
