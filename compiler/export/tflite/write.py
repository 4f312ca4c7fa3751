"""Deployment program → TFLite file, on the official schema, NHWC, activations fused.

The batch size is fixed to the captured one. Tensors carry the names of the program's values.
`boundary_order` says how the file stores the inputs and outputs.
"""

from __future__ import annotations

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.operators.channels import write_channel_affine, write_prelu
from shrinkc.compiler.export.tflite.operators.conv import write_conv
from shrinkc.compiler.export.tflite.operators.conv_transpose import write_conv_transpose
from shrinkc.compiler.export.tflite.operators.elementwise import write_binary, write_unary
from shrinkc.compiler.export.tflite.operators.matrix import write_linear, write_matmul
from shrinkc.compiler.export.tflite.operators.pool import write_avg_pool, write_max_pool
from shrinkc.compiler.export.tflite.operators.reduce import (
    write_layer_norm,
    write_reduce,
    write_softmax,
)
from shrinkc.compiler.export.tflite.operators.shape import (
    write_batch_expand,
    write_concat,
    write_pad,
    write_reshape,
    write_transpose,
)
from shrinkc.compiler.export.tflite.operators.slice import write_slice
from shrinkc.compiler.export.tflite.operators.spatial import write_depth_to_space, write_resize
from shrinkc.compiler.export.tflite.writer import Writer, boundary_order

__all__ = ["boundary_order", "write_tflite"]


def write_tflite(program: ops.Program) -> bytes:
    """The program as a .tflite file with one signature, "serving_default", whose inputs and
    outputs are named like the program's values and stored in their `boundary_order`.

    Raises UnsupportedOperatorError for what TFLite cannot express, ExportError above 2 GB.
    """
    w = Writer(program)
    inputs = [w.add_input(value) for value in program.inputs]
    for op in program.ops:
        w.enter(op)
        _write(w, op)
    outputs = [w.add_output(value) for value in program.outputs]
    return w.emit.builder.finish(
        list(zip((value.name for value in program.inputs), inputs, strict=True)),
        list(zip((value.name for value in program.outputs), outputs, strict=True)),
    )


def _write(w: Writer, op: ops.Op) -> None:
    match op:
        case ops.Conv():
            write_conv(w, op)
        case ops.ConvTranspose():
            write_conv_transpose(w, op)
        case ops.Linear():
            write_linear(w, op)
        case ops.ChannelAffine():
            write_channel_affine(w, op)
        case ops.PRelu():
            write_prelu(w, op)
        case ops.Unary():
            write_unary(w, op)
        case ops.Binary():
            write_binary(w, op)
        case ops.MatMul():
            write_matmul(w, op)
        case ops.Concat():
            write_concat(w, op)
        case ops.Slice():
            write_slice(w, op)
        case ops.Reshape():
            write_reshape(w, op)
        case ops.Transpose():
            write_transpose(w, op)
        case ops.BatchExpand():
            write_batch_expand(w, op)
        case ops.Pad():
            write_pad(w, op)
        case ops.MaxPool():
            write_max_pool(w, op)
        case ops.AvgPool():
            write_avg_pool(w, op)
        case ops.Reduce():
            write_reduce(w, op)
        case ops.Resize():
            write_resize(w, op)
        case ops.DepthToSpace():
            write_depth_to_space(w, op)
        case ops.Softmax():
            write_softmax(w, op)
        case ops.LayerNorm():
            write_layer_norm(w, op)
        case _:
            raise w.unsupported("no translation")
