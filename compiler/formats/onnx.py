"""ONNX: simplified by onnxsim, quantised and run by ONNX Runtime."""

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

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.onnx import DEFAULT_OPSET, simplified, write_onnx
from shrinkc.compiler.export.onnx.suppression import with_suppression
from shrinkc.compiler.formats.base import (
    FILE_PRECISIONS,
    Batches,
    Format,
    Written,
    quantiser,
    tensors_of,
)
from shrinkc.compiler.formats.boundary import Boundary
from shrinkc.compiler.formats.metadata.description import Description
from shrinkc.compiler.formats.metadata.onnx import described
from shrinkc.compiler.formats.onnx_boundary import onnx_boundary, with_quantised_boundary
from shrinkc.compiler.formats.output_steps import onnx_output_steps
from shrinkc.compiler.formats.runner import Array, random_inputs
from shrinkc.compiler.quantise.ranges import Range
from shrinkc.compiler.quantise.rounding import LEVELS, LEVELS_OF_7_BITS, Grid
from shrinkc.compiler.quantise.simulate import Quantisation
from shrinkc.compiler.support.apart.runner import ApartRunner
from shrinkc.compiler.support.choices import Io
from shrinkc.compiler.support.difference import relative_error
from shrinkc.compiler.support.onnx_session import onnx_session
from shrinkc.compiler.support.quiet import silent
from shrinkc.compiler.support.text import one_line
from shrinkc.compiler.tasks.detection.boxes import Suppression
from shrinkc.errors import LoadError

SIMPLIFIED_TOLERANCE = 1e-5  # of the output's range


class OnnxFormat(Format):
    """ONNX, for ONNX Runtime and TensorRT. Tensors lie as in PyTorch."""

    name = "onnx"
    precisions = FILE_PRECISIONS
    runtimes = ("onnxruntime", "tensorrt")

    def encode(self, program: ops.Program, opset: int = DEFAULT_OPSET) -> bytes:
        return write_onnx(program, opset).SerializeToString()

    def write(self, program: ops.Program, opset: int = DEFAULT_OPSET) -> Written:
        """onnxsim's version when it computes the same, else ours."""
        return _simplified(self.encode(program, opset), self.file)

    def weight_levels(self, here: bool) -> int:
        return LEVELS_OF_7_BITS if here and int8_saturates() else LEVELS

    def quantise(self, data: bytes, quantisation: Quantisation, batches: Batches) -> Written:
        seven_bits = quantisation.levels == LEVELS_OF_7_BITS
        kept = tensors_of(quantisation.program, quantisation.keep_fp32)
        with quantiser("onnxruntime"):
            made = quantize_onnx(data, batches, quantisation.ranges, seven_bits, kept)
        if seven_bits:
            what = "has 7-bit weights: 8 would overflow in this machine's kernels"
        elif int8_saturates():
            what = "was judged in exact arithmetic: int8 overflows on this machine"
        else:
            return Written(made)
        return Written(made, (f"{self.file} {what}",))

    def described(self, data: bytes, description: Description) -> bytes:
        return described(data, description)

    def with_suppression(self, data: bytes, suppression: Suppression) -> bytes | None:
        return with_suppression(data, suppression)

    def with_io(self, data: bytes, io: Io, grids: Mapping[str, Grid]) -> bytes:
        return with_quantised_boundary(data, io, grids)

    def boundary(self, data: bytes) -> Boundary:
        return onnx_boundary(data)

    def open(self, data: bytes, threads: int = 1) -> OnnxRunner:
        return OnnxRunner(data, threads)

    def open_apart(self, data: bytes, threads: int = 1) -> ApartRunner:
        return ApartRunner("onnxruntime", data, threads)

    def open_to_judge(self, data: bytes, here: bool) -> OnnxRunner:
        return OnnxRunner(data, optimise=here or not int8_saturates())

    def takes_any_batch(self, program: ops.Program) -> bool:
        return program.dynamic_batch

    def inner_values(
        self, data: bytes, program: ops.Program, inputs: Sequence[Array], names: Sequence[str]
    ) -> dict[str, Array]:
        model = onnx.load_model_from_string(data)
        made = {o for node in model.graph.node for o in node.output}
        shown = [n for n in names if n in made]
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in shown)
        values = OnnxRunner(model.SerializeToString()).run(inputs)
        return dict(zip(shown, values, strict=True))

    def output_steps(self, data: bytes) -> tuple[float | None, ...] | None:
        return onnx_output_steps(data)


ONNX = OnnxFormat()


def _simplified(model: bytes, file: str) -> Written:
    try:
        smaller = simplified(model)
        runners = [OnnxRunner(m) for m in (model, smaller)]
        inputs = random_inputs(runners[0])
        ours, theirs = (runner.run(inputs) for runner in runners)
    except Exception as error:  # onnxsim's C++ may raise anything
        return Written(model, (f"onnxsim failed ({one_line(error)}); {file} is as written",))
    worst = max(relative_error(a, b) for a, b in zip(theirs, ours, strict=True))
    if worst > SIMPLIFIED_TOLERANCE:
        note = f"onnxsim changed the result by {worst:.1e}; {file} is as written"
        return Written(model, (note,))
    return Written(smaller)


def quantize_onnx(
    model: bytes,
    batches: Sequence[tuple[Tensor, ...]],
    ranges: Mapping[str, Range],
    seven_bits: bool,
    keep_fp32: Sequence[str] = (),
) -> bytes:
    """The int8 version of an ONNX file by onnxruntime's QDQ quantiser, static, weights by channel.

    `batches` are a few calibration inputs, for the tensors that `ranges` does not name;
    `keep_fp32` are names of tensors, those of `tensors_of`. `seven_bits`
    leaves weights one bit short, for processors on which `int8_saturates`.
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

        self._made_of = (model, threads, optimise)
        self._session: Any = onnx_session(model, threads, optimise=optimise)
        self.runtime = f"onnxruntime {ort.__version__}"
        try:
            given = [(i.name, i.type, tuple(i.shape)) for i in self._session.get_inputs()]
        except UnicodeDecodeError as error:
            raise LoadError(f"its inputs have names that are no text ({error.reason})") from error
        self._names = [name for name, _, _ in given]
        self._types = [kind.removeprefix("tensor(").removesuffix(")") for _, kind, _ in given]
        self._shapes = [shape for _, _, shape in given]

    def __reduce__(self) -> tuple[type, tuple[bytes, int, bool]]:
        """Copied and pickled as what it was loaded from."""
        return type(self), self._made_of

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(d if isinstance(d, int) else 1 for d in s) for s in self._shapes)

    @property
    def input_types(self) -> tuple[np.dtype[Any], ...]:
        """Of tensor(float), tensor(int64), … Raises LoadError for what NumPy has no type for."""
        try:
            return tuple(np.dtype({"float": "float32"}.get(kind, kind)) for kind in self._types)
        except TypeError as error:
            kinds = ", ".join(self._types)
            raise LoadError(f"its inputs are {kinds}, no arrays of numbers") from error

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Raises LoadError where the file does not run."""
        try:
            return self._session.run(None, dict(zip(self._names, inputs, strict=True)))
        except Exception as error:  # ONNX Runtime's own
            raise LoadError(f"ONNX Runtime cannot run the file: {one_line(error)}") from error
