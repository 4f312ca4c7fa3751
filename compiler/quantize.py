"""Post-training int8 of both files, by the quantisers that their runtimes come with.

Static, per-channel weights, activation ranges from calibration pictures: ai-edge-quantizer for
TFLite, onnxruntime's QDQ quantiser for ONNX. Inputs and outputs stay float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import Tensor

from .errors import InputError
from .export import ops
from .export.tflite import boundary_order
from .quiet import silent


def quantize_tflite(
    model: bytes, program: ops.Program, batches: Sequence[tuple[Tensor, ...]]
) -> bytes:
    """The int8 version of a .tflite file written from `program`.

    `batches` are calibration inputs in PyTorch's layout, each at the captured batch size.
    Raises InputError when ai-edge-quantizer is not installed.
    """
    try:
        from ai_edge_quantizer import quantizer
    except ImportError as error:
        raise InputError(
            "int8 TFLite needs ai-edge-quantizer: pip install 'shrinkc[int8]'"
        ) from error
    samples: list[dict[str, Any]] = [
        {
            value.name: np.ascontiguousarray(x.numpy().transpose(boundary_order(value)))
            for value, x in zip(program.inputs, inputs, strict=True)
        }
        for inputs in batches
    ]
    with silent():
        work: Any = quantizer.Quantizer(bytearray(model))
        work.load_quantization_recipe(_recipe())
        ranges = work.calibrate({"serving_default": samples}, num_threads=1)
        result = work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _recipe() -> Any:
    """int8 weights and activations everywhere, float32 at the boundary."""
    from ai_edge_quantizer import recipe, recipe_manager

    names: Any = recipe.TFLOperationName
    manager: Any = recipe_manager.RecipeManager()
    manager.add_static_config(
        regex=".*",
        operation_name=names.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
    )
    for boundary in (names.INPUT, names.OUTPUT):
        manager.add_quantization_config(
            regex=".*",
            operation_name=boundary,
            algorithm_key=recipe.AlgorithmName.NO_QUANTIZE,
        )
    return manager.get_quantization_recipe()


def quantize_onnx(model: bytes, batches: Sequence[tuple[Tensor, ...]]) -> bytes:
    """The int8 (QDQ) version of an ONNX file; `batches` are calibration inputs."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    proto = onnx.load_model_from_string(model)
    names = [i.name for i in proto.graph.input]
    with tempfile.TemporaryDirectory() as folder, silent():
        result = Path(folder, "int8.onnx")
        quantize_static(
            onnx.shape_inference.infer_shapes(proto),
            str(result),
            _reader(names, batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return result.read_bytes()


def _reader(names: list[str], batches: Iterable[tuple[Tensor, ...]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left: Iterator[tuple[Tensor, ...]] = iter(batches)

        def get_next(self) -> dict[str, Any] | None:  # pyright: ignore
            inputs = next(self._left, None)
            if inputs is None:
                return None
            return {n: x.numpy() for n, x in zip(names, inputs, strict=True)}

    return Reader()
