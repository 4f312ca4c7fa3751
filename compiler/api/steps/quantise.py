"""The int8 versions of exported files."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, fx

from shrinkc.compiler.export.onnx import write_onnx
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.formats.exported import Exported, _simplify_onnx
from shrinkc.compiler.formats.onnx import int8_saturates, quantize_onnx
from shrinkc.compiler.formats.tflite import quantize_tflite, tensors_of
from shrinkc.compiler.pipeline.run import sample_inputs
from shrinkc.compiler.quantise.prepare import Prepared, prepare, with_levels
from shrinkc.compiler.quantise.rounding import LEVELS_OF_7_BITS
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.verify.data import Data
from shrinkc.errors import InputError

FEW_BATCHES = 8  # for what is no node of the graph: the inner tensors of composed operators


def quantised(
    exported: Exported, final: fx.GraphModule, data: Data, seven_bits: bool, progress: Progress
) -> tuple[Exported, Prepared]:
    """int8 versions of both files, with the same activation ranges, weights and biases."""
    if exported.program is None:
        raise InputError("int8 needs a network that shrinkc can lower itself")
    options, stored = data.options, data.options.stored
    if stored is not None:
        prepared, batches = stored.prepared(final), list[tuple[Tensor, ...]]()
        few = [sample_inputs(final, torch.float32, seed) for seed in range(FEW_BATCHES)]
    else:
        batches = data.calibration_batches()
        prepared = prepare(final, batches, options.int8, progress, task=options.task)
        few = batches[:FEW_BATCHES]
    program, ranges = prepared.quantisation.program, prepared.quantisation.ranges
    keep = prepared.quantisation.keep_fp32
    in_onnx = program
    if seven_bits and stored is None:
        levels = LEVELS_OF_7_BITS
        other = with_levels(prepared, levels, batches, options.int8, progress)
        in_onnx = other.quantisation.program
    with progress.task("Quantising ONNX"):
        written, _ = _simplify_onnx(write_onnx(in_onnx, options.opset).SerializeToString())
        onnx = quantize_onnx(written, few, ranges, seven_bits, tensors_of(program, keep))
    tflite = None
    if exported.tflite is not None:
        with progress.task("Quantising TFLite"):
            tflite = quantize_tflite(write_tflite(program), program, few, ranges, keep)
    notes = (*exported.notes, *prepared.notes)
    if seven_bits:
        notes = (*notes, "model.onnx has 7-bit weights: 8 would overflow in this machine's kernels")
    elif int8_saturates():
        notes = (
            *notes,
            "model.onnx was judged in exact arithmetic: int8 overflows on this machine",
        )
    return replace(exported, program=program, onnx=onnx, tflite=tflite, notes=notes), prepared
