"""A model that cannot be captured: a file by `torch.onnx` alone, verified like any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shrinkc.compiler.api.steps.compilation import Compilation
from shrinkc.compiler.devices import describe_host
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.torch_fallback import FALLBACK_NOTE, torch_onnx
from shrinkc.compiler.formats.registry import FALLBACK
from shrinkc.compiler.formats.runner import Runner
from shrinkc.compiler.options import Options
from shrinkc.compiler.reference.reference import leaves
from shrinkc.compiler.report.report import NOT_CAPTURED, ArtefactReport, Network, Report
from shrinkc.compiler.report.sections import Sections
from shrinkc.compiler.support.difference import relative_error
from shrinkc.compiler.verify.files import FP32_TOLERANCE, Artefact
from shrinkc.errors import CaptureError, ExportError, VerificationError


def compile_uncaptured(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    options: Options,
    name: str,
    cause: CaptureError,
    sections: Sections,
) -> Compilation:
    """FALLBACK's file and both reports; the failure in them is why there is no more.

    Raises `cause` when torch.onnx cannot export the model either or its file is not asked for,
    and VerificationError when the file does not compute the same.
    """
    if FALLBACK not in options.formats:
        raise cause
    try:
        data = torch_onnx(model, inputs, options.opset)
        runner = FALLBACK.open(data)
    except (ExportError, RuntimeError):
        raise cause from None
    error = _largest_error(model, inputs, runner)
    if error > FP32_TOLERANCE:
        raise VerificationError(
            f"{FALLBACK.file} from torch.onnx differs from the model by {error:.1e} of the output "
            f"range, limit {FP32_TOLERANCE:.0e}; nothing was written"
        )
    size = Network(0, None, len(data))
    file = ArtefactReport(
        FALLBACK.name,
        FALLBACK.file,
        len(data),
        "fp32",
        runner.runtime,
        error,
        bytes_before=len(data),
    )
    report = Report(
        model=name,
        target=options.target,
        precision="fp32",
        input_shapes={f"input_{i}": tuple(x.shape) for i, x in enumerate(inputs)},
        captured_by=NOT_CAPTURED,
        before=size,
        after=size,
        predicted_before=None,
        predicted_after=None,
        artefacts=(file,),
        steps=(),
        max_relative_error=error,
        target_format=FALLBACK.name,
        host=describe_host(),
        opset=options.opset,
        notes=(FALLBACK_NOTE,),
        failures=(str(cause),),
        task=options.task,
    ).extended(sections)
    shapes = report.input_shapes.items()
    program = ops.Program(tuple(ops.Value(n, s, None) for n, s in shapes), (), ())
    artefact = Artefact(FALLBACK, data, program, runner)
    return Compilation(report, {FALLBACK.file: data} | report.pages(), None, (artefact,))


def _largest_error(model: nn.Module, inputs: Sequence[Tensor], runner: Runner) -> float:
    with torch.no_grad():
        outputs: Any = model(*inputs)
    want = [x.numpy() for x in leaves(outputs) if isinstance(x, Tensor)]
    got = runner.run([x.numpy() for x in inputs])
    if len(got) != len(want):
        return float("inf")
    return max(relative_error(g, w) for g, w in zip(got, want, strict=True))
