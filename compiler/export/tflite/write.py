"""Deployment program → TFLite file, on the official schema, NHWC, activations fused.

The batch size is fixed to the captured one. Tensors carry the names of the program's values.
`boundary_order` says how the file stores the inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.operators.channels import write_channel_affine, write_prelu
from shrinkc.compiler.export.tflite.operators.conv import write_conv, write_dynamic_conv
from shrinkc.compiler.export.tflite.operators.conv_transpose import write_conv_transpose
from shrinkc.compiler.export.tflite.operators.elementwise import (
    write_binary,
    write_compare,
    write_unary,
    write_where,
)
from shrinkc.compiler.export.tflite.operators.lookup.grid_sample import write_grid_sample
from shrinkc.compiler.export.tflite.operators.lookup.pick import write_pick
from shrinkc.compiler.export.tflite.operators.matrix import write_linear, write_matmul
from shrinkc.compiler.export.tflite.operators.pool import write_avg_pool, write_max_pool
from shrinkc.compiler.export.tflite.operators.reduce import (
    write_argmax,
    write_cumsum,
    write_layer_norm,
    write_reduce,
    write_softmax,
    write_topk,
)
from shrinkc.compiler.export.tflite.operators.shape import (
    write_batch_expand,
    write_concat,
    write_constant,
    write_embedding,
    write_gather,
    write_integers,
    write_pad,
    write_reshape,
    write_transpose,
)
from shrinkc.compiler.export.tflite.operators.slice import write_slice
from shrinkc.compiler.export.tflite.operators.spatial import write_depth_to_space, write_resize
from shrinkc.compiler.export.tflite.ranks import within_ranks
from shrinkc.compiler.export.tflite.recurrent import write_recurrent
from shrinkc.compiler.export.tflite.writer import Writer, boundary_order

__all__ = ["boundary_order", "write_tflite"]


def write_tflite(program: ops.Program, *, copied_outputs: bool = False) -> bytes:
    """The program as a .tflite file with one signature, "serving_default", whose inputs and
    outputs are named like the program's values and stored in their `boundary_order`.
    `copied_outputs`: no operator reads an output; a copy of what one reads is returned instead, for
    quantisers that cannot give one tensor two types.

    Raises UnsupportedOperatorError for what TFLite cannot express, ExportError above 2 GB.
    """
    program = within_ranks(program)
    w = Writer(program)
    inputs = [w.add_input(value) for value in program.inputs]
    for op in program.ops:
        w.enter(op)
        _write(w, op)
    outputs = w.add_outputs(program.outputs, copied=copied_outputs)
    return w.emit.builder.finish(
        list(zip((value.name for value in program.inputs), inputs, strict=True)),
        list(zip((value.name for value in program.outputs), outputs, strict=True)),
    )


def _write(w: Writer, op: ops.Op) -> None:
    write = _WRITERS.get(type(op))
    if write is None:
        raise w.unsupported("no translation")
    write(w, op)


_WRITERS: dict[type[ops.Op], Callable[[Writer, Any], None]] = {
    ops.Conv: write_conv,
    ops.ConvTranspose: write_conv_transpose,
    ops.Linear: write_linear,
    ops.ChannelAffine: write_channel_affine,
    ops.PRelu: write_prelu,
    ops.Unary: write_unary,
    ops.Binary: write_binary,
    ops.Compare: write_compare,
    ops.Where: write_where,
    ops.Integers: write_integers,
    ops.Constant: write_constant,
    ops.MatMul: write_matmul,
    ops.Concat: write_concat,
    ops.Slice: write_slice,
    ops.Gather: write_gather,
    ops.Pick: write_pick,
    ops.GridSample: write_grid_sample,
    ops.DynamicConv: write_dynamic_conv,
    ops.Embedding: write_embedding,
    ops.Reshape: write_reshape,
    ops.Transpose: write_transpose,
    ops.BatchExpand: write_batch_expand,
    ops.Pad: write_pad,
    ops.MaxPool: write_max_pool,
    ops.AvgPool: write_avg_pool,
    ops.Reduce: write_reduce,
    ops.ArgMax: write_argmax,
    ops.CumSum: write_cumsum,
    ops.TopK: write_topk,
    ops.Resize: write_resize,
    ops.DepthToSpace: write_depth_to_space,
    ops.Softmax: write_softmax,
    ops.LayerNorm: write_layer_norm,
    ops.Recurrent: write_recurrent,
}
