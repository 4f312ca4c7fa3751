"""A user's module through capture, the exact passes and both writers, beside itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.onnx import write_onnx
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.formats.onnx import ONNX
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.reference.reference import leaves
from shrinkc.compiler.support.difference import relative_error
from shrinkc.compiler.verify.files import Artefact
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.simplify.simplify import Simplify


class Behind(nn.Module):
    """A function behind a convolution; `by_export`: Python that symbolic trace cannot follow."""

    def __init__(self, function: Callable[[Tensor], object], by_export: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.function, self.by_export = function, by_export

    def forward(self, x: Tensor) -> object:
        if self.by_export and x.shape[2] < 2:
            return x
        return self.function(self.conv(x))


SCALES = (0.05, 1.0, 20.0, 0.0)  # of normal inputs; 0: all zeros
LIMIT = 2e-5


def errors(
    model: nn.Module, shapes: Sequence[tuple[int, ...]], scales: Sequence[float] = SCALES
) -> Iterator[tuple[str, float, float]]:
    """(file, scale, largest relative error), batches 1 and 2 of the captured one."""
    torch.manual_seed(0)
    model = model.eval()
    graph = capture(model, tuple(torch.randn(s) for s in shapes))
    graph, _ = run_exact_passes(graph, (Simplify(), FoldBatchNorm()))
    program = lower(graph.float())
    written = write_onnx(program)
    onnx.checker.check_model(written, full_check=True)
    apart = Original.of_graph(graph).treats_samples_alone(tuple(torch.randn(s) for s in shapes))
    files = [
        Artefact(form, data, program, form.open(data), apart)
        for form, data in ((ONNX, written.SerializeToString()), (TFLITE, write_tflite(program)))
    ]
    for scale in scales:
        for inputs in _inputs(graph, shapes, scale):
            with torch.no_grad():
                made = model(*(x.clone() for x in inputs))
            want = [y.numpy() for y in leaves(made) if isinstance(y, Tensor)]
            for file in (f for f in files if f.takes(len(inputs[0]))):
                yield file.name, scale, max(map(_error, file.run(inputs), want))


def _inputs(
    graph: fx.GraphModule, shapes: Sequence[tuple[int, ...]], scale: float
) -> Iterator[tuple[Tensor, ...]]:
    one = tuple(scale * torch.randn(s) for s in shapes)
    yield one
    if graph.meta["dynamic_batch"]:
        yield tuple(torch.cat((x, scale * torch.randn_like(x))) for x in one)


def _error(got: np.ndarray, want: np.ndarray) -> float:
    if got.dtype != want.dtype:
        return float("inf")
    same = (got == want) | ((got != got) & (want != want))  # infinities and NaN are themselves
    if bool(same.all()):
        return 0.0 if got.shape == want.shape else float("inf")
    return relative_error(np.where(same, 0, got), np.where(same, 0, want))


def check(
    model: nn.Module,
    *shapes: tuple[int, ...],
    limit: float = LIMIT,
    scales: Sequence[float] = SCALES,
) -> None:
    """Both files compute what the module does, at every scale and batch."""
    for name, scale, error in errors(model, shapes, scales):
        assert error <= limit, f"{name} at scale {scale:g}: {error:.1e}"
