"""One-operator model files for a runtime and precision, and what to take off their time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.onnx import write_onnx
from shrinkc.compiler.export.tflite.write import boundary_order, write_tflite
from shrinkc.compiler.formats.onnx import quantize_onnx
from shrinkc.compiler.profile.one_operator import one_operator, tiny, with_neighbours
from shrinkc.compiler.support.quiet import silent
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import ExportError, InputError
from shrinkc.latency_tables.key import OpKey


class NoFileError(ExportError):
    """An operator that no file can be made of, in this precision for this runtime."""


@dataclass(frozen=True, eq=False)
class OpFile:
    """The operator costs `model`'s time less that of `base`; without a base, `model`'s."""

    model: bytes
    base: bytes | None = None


def op_file(key: OpKey, runtime: str) -> OpFile:
    """Raises NoFileError, and InputError where the quantiser for int8 is not installed."""
    try:
        if runtime == "tflite":
            return OpFile(_tflite(one_operator(key), key.precision))
        context = with_neighbours(key) if runtime == "onnxruntime" else None
        programs = (one_operator(key),) if context is None else context
        return OpFile(*(_onnx(program, key.precision) for program in programs))
    except NotImplementedError as error:
        raise NoFileError(f"{key.op}: no file of this operator alone ({error})") from None
    except (InputError, NoFileError):
        raise
    except Exception as error:  # the writers' and quantisers' own
        raise NoFileError(f"{key.op}: {one_line(error)}") from error


def tiny_file(precision: str, runtime: str) -> bytes:
    """A network of next to nothing."""
    write = _tflite if runtime == "tflite" else _onnx
    return write(tiny(), precision)


def _tflite(program: ops.Program, precision: str) -> bytes:
    model = write_tflite(program)
    return model if precision == "fp32" else _int8_tflite(model, program)


def _int8_tflite(model: bytes, program: ops.Program) -> bytes:
    """int8 through and through, inputs and outputs too: what one operator hands to the next."""
    try:
        from ai_edge_quantizer import calibrator, quantizer, recipe, recipe_manager
    except ImportError as error:
        raise InputError(
            "int8 TFLite needs ai-edge-quantizer: pip install 'shrinkc[int8]'"
        ) from error
    sample = {
        value.name: array.transpose(boundary_order(value)).copy()
        for value, array in zip(program.inputs, _inputs(program), strict=True)
    }
    recipes: Any = recipe_manager.RecipeManager()
    names: Any = recipe.TFLOperationName
    recipes.add_static_config(
        regex=".*",
        operation_name=names.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
    )
    with silent():
        watch: Any = calibrator.Calibrator(bytearray(model))
        watch.calibrate({"serving_default": [sample]}, recipes)
        work: Any = quantizer.Quantizer(bytearray(model))
        work.load_quantization_recipe(recipes.get_quantization_recipe())
        result = work.quantize(
            watch.get_model_qsvs(), enable_progress_bar=False, enable_progress_report=False
        )
    return bytes(result.quantized_model)


def _onnx(program: ops.Program, precision: str) -> bytes:
    model = write_onnx(program).SerializeToString()
    if precision == "fp32":
        return model
    batch = tuple(torch.tensor(array) for array in _inputs(program))
    return quantize_onnx(model, (batch,), {}, seven_bits=False)


def _inputs(program: ops.Program) -> Sequence[ops.FloatArray]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal(v.shape, dtype=np.float32) for v in program.inputs]
