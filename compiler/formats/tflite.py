"""TFLite: quantised by ai-edge-quantizer, run by the interpreter of ai-edge-litert.

Static int8, weights by channel, activation ranges from `calibrate`. Inputs and outputs stay
float32, and so do the operators named in `keep_fp32`. `quantise.prepare` makes the network that
is written here.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from torch import Tensor

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.onnx import DEFAULT_OPSET
from shrinkc.compiler.export.tflite.write import boundary_order, write_tflite
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
from shrinkc.compiler.formats.metadata.tflite import described
from shrinkc.compiler.formats.moved_ranges import moved_ranges
from shrinkc.compiler.formats.output_steps import tflite_output_steps
from shrinkc.compiler.formats.runner import Array, Runner
from shrinkc.compiler.formats.tflite_boundary import (
    tflite_boundary,
    with_quantised_boundary,
    with_signature_names,
)
from shrinkc.compiler.formats.tflite_operators import require_numbers, require_types
from shrinkc.compiler.quantise.ranges import Range
from shrinkc.compiler.quantise.rounding import Grid
from shrinkc.compiler.quantise.simulate import Quantisation
from shrinkc.compiler.support.apart.runner import ApartRunner
from shrinkc.compiler.support.choices import Io
from shrinkc.compiler.support.difference import relative_error
from shrinkc.compiler.support.quiet import silent
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import DeviceError, InputError, LoadError

NOT_INSTALLED = "int8 TFLite needs ai-edge-quantizer: pip install 'shrinkc[int8]'"


class TfliteFormat(Format):
    """TFLite, at the captured batch size. Images lie as `boundary_order` says."""

    name = "tflite"
    precisions = FILE_PRECISIONS
    runtimes = ("tflite", "ai-edge-litert", "TensorFlow Lite")
    magic = (4, b"TFL3")

    def encode(self, program: ops.Program, opset: int = DEFAULT_OPSET) -> bytes:
        return write_tflite(program)

    def write_int8(
        self, quantisation: Quantisation, batches: Batches, opset: int = DEFAULT_OPSET
    ) -> Written:
        """An output that operators read as well would have to be int8 and float32."""
        data = write_tflite(quantisation.program, copied_outputs=True)
        return self.quantise(data, quantisation, batches)

    def quantise(self, data: bytes, quantisation: Quantisation, batches: Batches) -> Written:
        program, kept = quantisation.program, quantisation.keep_fp32
        with quantiser("ai-edge-quantizer"):
            made = quantize_tflite(data, program, batches, quantisation.ranges, kept)
            require_types(made)
            return Written(with_signature_names(made))

    def described(self, data: bytes, description: Description) -> bytes:
        return described(data, description)

    def with_io(self, data: bytes, io: Io, grids: Mapping[str, Grid]) -> bytes:
        return with_quantised_boundary(data, io, grids)

    def boundary(self, data: bytes) -> Boundary:
        return tflite_boundary(data)

    def encode_int8_operator(self, program: ops.Program, batch: tuple[Tensor, ...]) -> bytes:
        """Its inputs and outputs are int8, too: what one operator hands to the next."""
        return _quantised_throughout(self.encode(program), program, batch)

    def check(self, data: bytes) -> None:
        """The interpreter believes every offset and type."""
        require_numbers(data)

    def open(self, data: bytes, threads: int = 1) -> TfliteRunner:
        return TfliteRunner(data, threads)

    def open_apart(self, data: bytes, threads: int = 1) -> ApartRunner:
        return ApartRunner("tflite", data, threads)

    def run(self, runner: Runner, program: ops.Program, inputs: Sequence[Array]) -> list[Array]:
        stored = [
            np.ascontiguousarray(x.transpose(boundary_order(v)))
            for x, v in zip(inputs, program.inputs, strict=True)
        ]
        return [
            y.transpose(np.argsort(boundary_order(v)))
            for y, v in zip(runner.run(stored), program.outputs, strict=True)
        ]

    def inner_values(
        self, data: bytes, program: ops.Program, inputs: Sequence[Array], names: Sequence[str]
    ) -> dict[str, Array]:
        runner = TfliteRunner(data, keep_all=True)
        self.run(runner, program, inputs)
        found = ((n, runner.tensor(n)) for n in names)
        return {n: v for n, v in found if v is not None}

    def inner_error(self, got: Array, want: Array) -> float:
        """Inner tensors have their dimensions in another order: numbers are compared sorted."""
        return relative_error(np.sort(got, axis=None), np.sort(want, axis=None))

    def output_steps(self, data: bytes) -> tuple[float | None, ...] | None:
        return tflite_output_steps(data)


TFLITE = TfliteFormat()


def quantize_tflite(
    model: bytes,
    program: ops.Program,
    batches: Sequence[tuple[Tensor, ...]],
    ranges: Mapping[str, Range],
    keep_fp32: Collection[str] = (),
) -> bytes:
    """The int8 version of a .tflite file written from `program`.

    `batches` are a few calibration inputs in PyTorch's layout, each at the captured batch size,
    for the tensors that `ranges` says nothing of; `keep_fp32` are names of operators.
    Raises InputError when ai-edge-quantizer is not installed.
    """
    try:
        from ai_edge_quantizer import calibrator, quantizer
        from ai_edge_quantizer.utils import qsv_utils
    except ImportError as error:
        raise InputError(NOT_INSTALLED) from error
    samples = [_sample(program, inputs) for inputs in batches]
    with silent():
        buffer, manager = bytearray(model), _recipes(tensors_of(program, keep_fp32))
        # its own calibrate() averages the ranges of images; here they are only a start
        watch: Any = calibrator.Calibrator(buffer, qsv_update_func=qsv_utils.min_max_update)
        watch.calibrate({"serving_default": samples}, manager)
        found = _with_ranges(watch.get_model_qsvs(), moved_ranges(model, ranges))
        if not found:
            return model  # everything stays float
        work: Any = quantizer.Quantizer(buffer)
        work.load_quantization_recipe(manager.get_quantization_recipe())
        result = work.quantize(found, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _quantised_throughout(model: bytes, program: ops.Program, batch: tuple[Tensor, ...]) -> bytes:
    """int8 at its inputs and outputs, too, with the ranges of one batch."""
    try:
        from ai_edge_quantizer import calibrator, quantizer
    except ImportError as error:
        raise InputError(NOT_INSTALLED) from error
    with silent():
        manager = _int8_everywhere()
        watch: Any = calibrator.Calibrator(bytearray(model))
        watch.calibrate({"serving_default": [_sample(program, batch)]}, manager)
        work: Any = quantizer.Quantizer(bytearray(model))
        work.load_quantization_recipe(manager.get_quantization_recipe())
        result = work.quantize(
            watch.get_model_qsvs(), enable_progress_bar=False, enable_progress_report=False
        )
    return bytes(result.quantized_model)


def _sample(program: ops.Program, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    """Inputs as the file's signature names and stores them."""
    return {
        value.name: np.ascontiguousarray(x.numpy().transpose(boundary_order(value)))
        for value, x in zip(program.inputs, inputs, strict=True)
    }


def _int8_everywhere() -> Any:
    from ai_edge_quantizer import qtyping, recipe, recipe_manager

    names: Any = recipe.TFLOperationName
    kinds: Any = qtyping.QuantGranularity
    manager: Any = recipe_manager.RecipeManager()
    for operation, granularity in (
        (names.ALL_SUPPORTED, kinds.CHANNELWISE),
        # a constant factor has one scale: kernels read no more, wherever its channels lie
        (names.BATCH_MATMUL, kinds.TENSORWISE),
    ):
        manager.add_static_config(
            regex=".*",
            operation_name=operation,
            activation_num_bits=8,
            weight_num_bits=8,
            weight_granularity=granularity,
        )
    return manager


def _recipes(keep_fp32: Sequence[str]) -> Any:
    """int8 weights and activations everywhere, float32 at the boundary and in what writes the
    tensors of `keep_fp32`."""
    from ai_edge_quantizer import recipe

    names: Any = recipe.TFLOperationName
    manager = _int8_everywhere()
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


class TfliteRunner:
    """A model in the TFLite interpreter (ai-edge-litert, else tflite-runtime)."""

    def __init__(self, model: bytes, threads: int = 1, keep_all: bool = False) -> None:
        interpreter, self.runtime = _interpreter()
        self._made_of = (model, threads, keep_all)
        try:
            with silent():  # announces its delegate from C++
                self._it: Any = interpreter(
                    model_content=model,
                    num_threads=threads,
                    experimental_preserve_all_tensors=keep_all,
                )
                self._it.allocate_tensors()
            self._inputs: list[Any] = self._it.get_input_details()
            self._outputs: list[Any] = self._it.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise LoadError(f"TFLite cannot load the file: {one_line(error)}") from error

    def __reduce__(self) -> tuple[type, tuple[bytes, int, bool]]:
        """Copied and pickled as what it was loaded from."""
        return type(self), self._made_of

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(int(d) for d in i["shape"]) for i in self._inputs)

    @property
    def input_types(self) -> tuple[np.dtype[Any], ...]:
        return tuple(np.dtype(i["dtype"]) for i in self._inputs)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        try:
            for detail, array in zip(self._inputs, inputs, strict=True):
                self._it.set_tensor(detail["index"], array)
            self._it.invoke()
            return [self._it.get_tensor(o["index"]) for o in self._outputs]
        except (RuntimeError, ValueError) as error:  # such as int8 divided by what rounds to 0
            raise LoadError(f"TFLite cannot run the file: {one_line(error)}") from error

    def tensor(self, name: str) -> Array | None:
        """An inner tensor after `run`, for a runner made with `keep_all`."""
        for detail in self._it.get_tensor_details():
            if detail["name"] == name:
                return self._it.get_tensor(detail["index"])
        return None


@cache  # reading what is installed takes longer than loading a small file
def _named(distribution: str) -> str:
    return f"{distribution} {version(distribution)}"


def _interpreter() -> tuple[Any, str]:
    for package in ("ai_edge_litert", "tflite_runtime"):
        try:
            module = importlib.import_module(f"{package}.interpreter")
        except ImportError:
            continue
        return module.Interpreter, _named(package.replace("_", "-"))
    raise DeviceError("no TFLite runtime: pip install ai-edge-litert (or tflite-runtime)")
