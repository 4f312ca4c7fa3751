"""A model that cannot be captured: a file by `torch.onnx` alone, verified like any other."""

from __future__ import annotations

from shrinkc.compiler.api.steps.compilation import Compilation
from shrinkc.compiler.api.steps.network import Subject
from shrinkc.compiler.devices import describe_host
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.torch_fallback import FALLBACK_NOTE, torch_onnx
from shrinkc.compiler.formats.registry import FALLBACK
from shrinkc.compiler.formats.runner import Runner
from shrinkc.compiler.options import Options
from shrinkc.compiler.reference.differences import Differences
from shrinkc.compiler.reference.probes import probes
from shrinkc.compiler.report.report import NOT_CAPTURED, ArtefactReport, Network, Report
from shrinkc.compiler.report.sections import Sections
from shrinkc.compiler.verify.files import FP32_TOLERANCE, Artefact
from shrinkc.errors import CaptureError, ExportError, VerificationError


def compile_uncaptured(
    subject: Subject, options: Options, cause: CaptureError, sections: Sections
) -> Compilation:
    """FALLBACK's file and both reports; the failure in them is why there is no more.

    Raises `cause` when torch.onnx cannot export the model either or its file is not asked for,
    and VerificationError when the file does not compute the same.
    """
    if FALLBACK not in options.formats:
        raise cause
    try:
        with subject.reference.preserved():
            data = torch_onnx(subject.model, subject.inputs, options.opset)
        runner = FALLBACK.open(data)
    except (ExportError, RuntimeError):
        raise cause from None
    differences = _differences(subject, runner)
    excess = differences.excess(subject.original, FP32_TOLERANCE)
    if excess is not None:
        raise VerificationError(
            f"{cause}; {FALLBACK.file} from torch.onnx differs from the model by {excess}, limit "
            f"{FP32_TOLERANCE:.0e}, so nothing was written"
        )
    error = differences.relative
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
        model=subject.name,
        target=options.target,
        precision="fp32",
        input_shapes={f"input_{i}": tuple(x.shape) for i, x in enumerate(subject.inputs)},
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
        notes=(*subject.notes, FALLBACK_NOTE),
        failures=(str(cause),),
        task=options.task,
    ).extended(sections)
    shapes = report.input_shapes.items()
    program = ops.Program(tuple(ops.Value(n, s, None) for n, s in shapes), (), ())
    artefact = Artefact(FALLBACK, data, program, runner)
    return Compilation(report, {FALLBACK.file: data} | report.pages(), None, (artefact,))


def _differences(subject: Subject, runner: Runner) -> Differences:
    """On all probes at the one batch size of the file."""
    differences, inputs = Differences(), subject.inputs
    for probe in probes(inputs, (len(inputs[0]),)):
        want = subject.original.on_probe(probe)
        if want is not None:
            got = runner.run([x.numpy() for x in probe.inputs])
            if len(got) != len(want):
                raise VerificationError(
                    f"torch.onnx's file returns {len(got)} tensors, the model {len(want)}"
                )
            differences.add(probe.group, probe.inputs, got, want)
    return differences
