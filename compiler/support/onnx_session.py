"""ONNX Runtime on this machine's processor."""

from __future__ import annotations

from typing import Any

from shrinkc.compiler.support.text import one_line
from shrinkc.errors import LoadError


def onnx_session(model: bytes, threads: int = 1, *, optimise: bool = True) -> Any:
    """An `InferenceSession` of the CPU provider. Without `optimise` every operator runs as the
    file has it. Raises LoadError in one line."""
    import onnxruntime as ort

    options: Any = ort.SessionOptions()
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # errors are raised
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise LoadError(f"ONNX Runtime cannot load the file: {one_line(error)}") from error
