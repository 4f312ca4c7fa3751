"""Deployment program → ONNX, one operator at a time, at any opset from 13 on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
from onnx import helper

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.onnx.elementwise import (
    write_binary,
    write_compare,
    write_constant,
    write_integers,
    write_prelu,
    write_unary,
    write_where,
)
from shrinkc.compiler.export.onnx.layers import (
    write_affine,
    write_argmax,
    write_avg_pool,
    write_conv,
    write_conv_transpose,
    write_cumsum,
    write_layer_norm,
    write_linear,
    write_matmul,
    write_max_pool,
    write_reduce,
    write_softmax,
    write_topk,
)
from shrinkc.compiler.export.onnx.lookup import (
    write_dynamic_conv,
    write_embedding,
    write_grid_sample,
    write_pick,
)
from shrinkc.compiler.export.onnx.moving import (
    write_batch_expand,
    write_concat,
    write_depth_to_space,
    write_gather,
    write_pad,
    write_reshape,
    write_resize,
    write_slice,
    write_transpose,
)
from shrinkc.compiler.export.onnx.recurrent import write_recurrent
from shrinkc.compiler.export.onnx.writer import Writer
from shrinkc.errors import ExportError, InputError

OPSETS = range(13, onnx.defs.onnx_opset_version() + 1)
DEFAULT_OPSET = 17
MAX_BYTES = 2**31 - 2**20  # a protobuf message holds 2 GiB


def write_onnx(program: ops.Program, opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    """The program as an ONNX model; the batch dimension is dynamic where the program allows.

    Tensor names are the program's, so that a difference can be traced to a graph node.
    Raises InputError for an opset out of range, ExportError for weights beyond protobuf's 2 GiB.
    """
    if opset not in OPSETS:
        raise InputError(f"`opset` {opset}: give {OPSETS.start} to {OPSETS.stop - 1}")
    writer = Writer(opset, program.dynamic_batch)
    for op in program.ops:
        _WRITERS[type(op)](writer, op)
    if writer.bytes > MAX_BYTES:
        raise ExportError("the weights exceed the 2 GiB that one ONNX file can hold")
    graph = helper.make_graph(
        writer.nodes,
        "shrinkc",
        [writer.info(v) for v in program.inputs],
        [writer.info(v) for v in program.outputs],
        writer.initializers,
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        graph,
        opset_imports=imports,
        ir_version=helper.find_min_ir_version_for(imports),
        producer_name="shrinkc",
    )
    return model


_WRITERS: dict[type[ops.Op], Callable[[Writer, Any], None]] = {
    ops.Conv: write_conv,
    ops.ConvTranspose: write_conv_transpose,
    ops.Linear: write_linear,
    ops.ChannelAffine: write_affine,
    ops.PRelu: write_prelu,
    ops.Unary: write_unary,
    ops.Binary: write_binary,
    ops.Compare: write_compare,
    ops.Where: write_where,
    ops.Integers: write_integers,
    ops.Constant: write_constant,
    ops.Gather: write_gather,
    ops.Embedding: write_embedding,
    ops.Pick: write_pick,
    ops.GridSample: write_grid_sample,
    ops.DynamicConv: write_dynamic_conv,
    ops.ArgMax: write_argmax,
    ops.CumSum: write_cumsum,
    ops.TopK: write_topk,
    ops.MatMul: write_matmul,
    ops.Concat: write_concat,
    ops.Slice: write_slice,
    ops.Reshape: write_reshape,
    ops.Transpose: write_transpose,
    ops.BatchExpand: write_batch_expand,
    ops.Pad: write_pad,
    ops.MaxPool: write_max_pool,
    ops.AvgPool: write_avg_pool,
    ops.Reduce: write_reduce,
    ops.Resize: write_resize,
    ops.DepthToSpace: write_depth_to_space,
    ops.Softmax: write_softmax,
    ops.LayerNorm: write_layer_norm,
    ops.Recurrent: write_recurrent,
}


def simplified(model: bytes) -> bytes:
    """onnxsim's version of the model; the caller keeps it only if it computes the same."""
    import onnxsim

    result: onnx.ModelProto = onnxsim.simplify(onnx.load_model_from_string(model))[0]
    return result.SerializeToString()
