"""ONNX: files quantised, and run by onnxruntime."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import Tensor

from shrinkc.compiler.formats.runner import Array
from shrinkc.compiler.quantise.ranges import Range
from shrinkc.compiler.support.quiet import silent
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import LoadError


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


class OnnxRunner:
    """A model in ONNX Runtime's CPU provider."""

    def __init__(self, model: bytes, threads: int = 1, optimise: bool = True) -> None:
        """Without `optimise`, a QDQ file runs in float between its quantisations."""
        import onnxruntime as ort

        options: Any = ort.SessionOptions()
        if not optimise:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        try:
            self._session: Any = ort.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise LoadError(f"ONNX Runtime cannot load the file: {one_line(error)}") from error
        self._names = [i.name for i in self._session.get_inputs()]
        self.runtime = f"onnxruntime {ort.__version__}"

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        inputs: list[Any] = self._session.get_inputs()
        return tuple(tuple(d if isinstance(d, int) else 1 for d in i.shape) for i in inputs)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        return self._session.run(None, dict(zip(self._names, inputs, strict=True)))
