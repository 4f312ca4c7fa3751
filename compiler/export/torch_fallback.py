"""ONNX through `torch.onnx`, for what our own writer cannot express."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from shrinkc.compiler.support.quiet import quiet
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import ExportError

MIN_OPSET = 18  # torch.onnx writes nothing older
FALLBACK_NOTE = "model.onnx was written by torch.onnx, at the batch size of --input"


def torch_onnx(model: nn.Module, inputs: tuple[Tensor, ...], opset: int) -> bytes:
    """The model as ONNX at the given shapes. Raises ExportError with torch's reason."""
    namespace: Any = torch.onnx  # its export has no complete types
    try:
        with quiet():
            program = namespace.export(
                model, inputs, dynamo=True, opset_version=max(opset, MIN_OPSET), verbose=False
            )
    except Exception as error:
        raise ExportError(f"torch.onnx cannot export the model: {one_line(error)}") from error
    return program.model_proto.SerializeToString()
