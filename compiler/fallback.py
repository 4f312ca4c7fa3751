"""ONNX through `torch.onnx`, for what our own writer cannot express."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout

import torch
from torch import Tensor, nn

from .errors import ExportError

MIN_OPSET = 18  # torch.onnx writes nothing older


def torch_onnx(model: nn.Module, inputs: tuple[Tensor, ...], opset: int) -> bytes:
    """The model as ONNX at the given shapes. Raises ExportError with torch's reason."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model, inputs, dynamo=True, opset_version=max(opset, MIN_OPSET), verbose=False
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ExportError(f"torch.onnx cannot export the model either: {reason}") from error
    finally:
        logging.disable(before)
    if program is None:
        raise ExportError("torch.onnx returned nothing")
    return program.model_proto.SerializeToString()
