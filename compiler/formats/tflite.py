"""Post-training int8 of both files, by the quantisers that their runtimes come with.

Static, per-channel weights, activation ranges from `calibrate`: ai-edge-quantizer for
TFLite, onnxruntime's QDQ quantiser for ONNX. Inputs and outputs stay float32, and so do the
operators named in `keep_fp32`. `quantisation.prepare` makes the network that is written here.
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
from shrinkc.compiler.export.tflite.write import boundary_order
from shrinkc.compiler.formats.runner import Array
from shrinkc.compiler.quantise.ranges import Range
from shrinkc.compiler.support.quiet import silent
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import DeviceError, InputError, LoadError


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
        # its own calibrate() averages the ranges of images; here they are only a start
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


class TfliteRunner:
    """A model in the TFLite interpreter (ai-edge-litert, else tflite-runtime)."""

    def __init__(self, model: bytes, threads: int = 1, keep_all: bool = False) -> None:
        interpreter, self.runtime = _interpreter()
        try:
            with silent():  # announces its delegate from C++
                self._it: Any = interpreter(
                    model_content=model,
                    num_threads=threads,
                    experimental_preserve_all_tensors=keep_all,
                )
                self._it.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise LoadError(f"TFLite cannot load the file: {one_line(error)}") from error
        self._inputs: list[Any] = self._it.get_input_details()
        self._outputs: list[Any] = self._it.get_output_details()

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(int(d) for d in i["shape"]) for i in self._inputs)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        for detail, array in zip(self._inputs, inputs, strict=True):
            self._it.set_tensor(detail["index"], array)
        self._it.invoke()
        return [self._it.get_tensor(o["index"]) for o in self._outputs]

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
