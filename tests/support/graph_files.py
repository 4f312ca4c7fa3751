"""Both files of a canonical graph, beside the graph itself."""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, fx

from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.onnx import write_onnx
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.formats.onnx import ONNX
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.support.difference import relative_error
from shrinkc.compiler.verify.files import artefact

LIMIT = 2e-5


def check(graph: fx.GraphModule, inputs: tuple[Tensor, ...], opset: int = 17) -> None:
    """Both files against the graph; ONNX also at three times the batch where that is dynamic."""
    program = lower(graph)
    model = write_onnx(program, opset)
    onnx.checker.check_model(model, full_check=True)
    files = [artefact(ONNX, model.SerializeToString(), program)]
    files.append(artefact(TFLITE, write_tflite(program), program))
    batches = [inputs]
    if program.dynamic_batch and graph.meta.get("dynamic_batch", True):
        batches.append(tuple(map(three_times, inputs)))
    for batch in batches:
        with torch.no_grad():
            want = [o.numpy() for o in graph(*batch)]
        for file in files:
            for got, expected in zip(file.run(batch), want, strict=True):
                error = relative_error(got, expected)
                assert error < LIMIT, (file.name, error)


def three_times(x: Tensor) -> Tensor:
    """The batch, and others; whole numbers stay those of the example."""
    return torch.cat((x, x.flip(0), x * 0.3 if x.is_floating_point() else x.flip(-1)))
