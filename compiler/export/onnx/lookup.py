"""Reading at computed places, and convolutions with computed filters, as ONNX."""

from __future__ import annotations

import numpy as np

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.onnx.writer import Writer
from shrinkc.errors import UnsupportedOperatorError

GRID_SAMPLE_OPSET = 16
RENAMED_OPSET = 20  # "bilinear" and "bicubic" are "linear" and "cubic" from here on


def write_embedding(w: Writer, op: ops.Embedding) -> None:
    out = op.output.name
    weight = w.array(f"{op.name}.weight", op.weight)
    indices = w.whole.get(op.x.name) or w.cast(op.x.name, f"{out}/indices", "int64")
    w.node("Gather", [weight, indices], out, axis=0)


def write_pick(w: Writer, op: ops.Pick) -> None:
    out = op.output.name
    whole = w.cast(w.operand(op.b), f"{out}/whole", "int64")
    axis = w.numbers(f"{out}/axis", [2], np.int64)
    places = w.node("Unsqueeze", [whole, axis], f"{out}/places")
    w.node("GatherND", [w.operand(op.a), places], out, batch_dims=1)


def write_grid_sample(w: Writer, op: ops.GridSample) -> None:
    if w.opset < GRID_SAMPLE_OPSET:
        raise UnsupportedOperatorError(
            *(op.name, "GridSample", "ONNX"),
            f"opset {w.opset} has none; give `opset` {GRID_SAMPLE_OPSET} or more",
        )
    mode = op.mode.removeprefix("bi") if w.opset >= RENAMED_OPSET else op.mode
    w.node(
        "GridSample",
        [w.operand(op.a), w.operand(op.b)],
        op.output.name,
        mode=mode,
        padding_mode=op.padding,
        align_corners=int(op.align_corners),
    )


def write_dynamic_conv(w: Writer, op: ops.DynamicConv) -> None:
    w.node(
        "Conv",
        [w.operand(op.a), w.operand(op.b)],
        op.output.name,
        kernel_shape=op.b.shape[2:],
        strides=op.stride,
        pads=op.pads,
        dilations=op.dilation,
        group=op.groups,
    )
