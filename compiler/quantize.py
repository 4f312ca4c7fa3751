"""Post-training int8 of both files, by the quantisers that their runtimes come with.

Static, per-channel weights, activation ranges from `calibrate`: ai-edge-quantizer for
TFLite, onnxruntime's QDQ quantiser for ONNX. Inputs and outputs stay float32, and so do the
operators named in `keep_fp32`. `quantisation.prepare` makes the network that is written here.
"""

from __future__ import annotations

import platform
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import Tensor

from .calibrate import Range
from .errors import InputError
from .export import ops
from .export.tflite import boundary_order
from .quiet import silent


def quantize_tflite(
    model: bytes,
    program: ops.Program,
    batches: Sequence[tuple[Tensor, ...]],
    ranges: Mapping[str, Range],
    keep_fp32: Collection[str] = (),
) -> bytes:
    """The int8 version of a .tflite file written from `program`.

    `batches` are a few calibration inputs in PyTorch's layout, each at the captured batch size,
    for the tensors that `ranges` does not name; `keep_fp32` are names of operators.
    Raises InputError when ai-edge-quantizer is not installed.
    """
    try:
        from ai_edge_quantizer import calibrator, quantizer
        from ai_edge_quantizer.utils import qsv_utils
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
        buffer, manager = bytearray(model), _recipes(tensors_of(program, keep_fp32))
        # its own calibrate() averages the ranges of pictures; here they are only a start
        watch: Any = calibrator.Calibrator(buffer, qsv_update_func=qsv_utils.min_max_update)
        watch.calibrate({"serving_default": samples}, manager)
        found = _with_ranges(watch.get_model_qsvs(), ranges)
        if not found:
            return model  # everything stays float
        work: Any = quantizer.Quantizer(buffer)
        work.load_quantization_recipe(manager.get_quantization_recipe())
        result = work.quantize(found, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def tensors_of(program: ops.Program, operators: Collection[str]) -> list[str]:
    """What both files call tensors and nodes of these operators: one of these names, alone or
    in front of a slash."""
    names = ((op.name, op.output.name) for op in program.ops if op.name in operators)
    return list(dict.fromkeys(name for pair in names for name in pair))


def _recipes(keep_fp32: Sequence[str]) -> Any:
    """int8 weights and activations everywhere, float32 at the boundary and in what writes the
    tensors of `keep_fp32`."""
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
    for name in keep_fp32:
        # a scope is the operator's output tensors, each with ";" behind it
        manager.add_quantization_config(
            regex=f"^{re.escape(name)}(/[^;]*)?;",
            operation_name=names.ALL_SUPPORTED,
            algorithm_key=recipe.AlgorithmName.NO_QUANTIZE,
        )
    return manager


def _with_ranges(found: dict[str, Any], ranges: Mapping[str, Range]) -> dict[str, Any]:
    """The quantiser's own statistics with our ranges where we have one."""
    result = dict(found)
    for name in found.keys() & ranges.keys():
        if found[name]:
            kept = dict(found[name])
            for key, value in zip(("min", "max"), ranges[name], strict=True):
                kept[key] = np.full_like(kept[key], value)
            result[name] = kept
    return result


def quantize_onnx(
    model: bytes,
    batches: Sequence[tuple[Tensor, ...]],
    ranges: Mapping[str, Range],
    seven_bits: bool,
    keep_fp32: Sequence[str] = (),
) -> bytes:
    """The int8 (QDQ) version of an ONNX file; parameters as for `quantize_tflite`, `keep_fp32`
    those of `tensors_of`.

    `seven_bits` leaves weights one bit short, for processors on which `int8_saturates`.
    """
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
            reduce_range=seven_bits,
            nodes_to_exclude=[
                node.name
                for node in proto.graph.node
                if any(output.partition("/")[0] in keep_fp32 for output in node.output)
            ],
            extra_options={"TensorQuantOverrides": _overrides(proto, ranges)},
        )
        return result.read_bytes()


@cache
def int8_saturates() -> bool:
    """This machine's int8 kernels in ONNX Runtime lose the top of large sums.

    x86 without VNNI adds pairs of products in 16 bits, which two 8-bit factors overflow.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True
    return not any(kind in flags for kind in ("avx512_vnni", "avx_vnni", "amx_int8"))


def _overrides(proto: onnx.ModelProto, ranges: Mapping[str, Range]) -> dict[str, Any]:
    made = {name for node in proto.graph.node for name in node.output}
    made |= {i.name for i in proto.graph.input}
    return {
        name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
        for name, (low, high) in ranges.items()
        if name in made
    }


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
