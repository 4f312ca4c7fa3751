"""Resize and DepthToSpace."""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.emit import Operator
from shrinkc.compiler.export.tflite.layout import NHWC, permuted, reshaped
from shrinkc.compiler.export.tflite.operators.windows import pair
from shrinkc.compiler.export.tflite.writer import View, Writer


def write_resize(w: Writer, op: ops.Resize) -> None:
    size = pair(op.output.shape)
    image = w.image(op.x)
    if op.mode == "bilinear":
        code, options = Operator.RESIZE_BILINEAR, schema.ResizeBilinearOptionsT()
        options.halfPixelCenters = not op.align_corners
    else:
        code, options = Operator.RESIZE_NEAREST_NEIGHBOR, schema.ResizeNearestNeighborOptionsT()
    options.alignCorners = op.align_corners
    version = 3 if op.mode == "bilinear" and not op.align_corners else 1
    batch, channels = op.output.shape[:2]
    inputs, shape = (image.tensor, w.emit.ints(size)), (batch, *size, channels)
    w.define_image(op.output, w.emit.emit(code, inputs, shape, options, version), image)


def write_depth_to_space(w: Writer, op: ops.DepthToSpace) -> None:
    """DEPTH_TO_SPACE wants the channels of a block apart, PyTorch has them together. A
    convolution in front can write them so; otherwise the values are moved."""
    if op.x.name in w.shuffled_convs:
        x = w.arrange(op.x, NHWC)
        batch, channels, height, width = op.output.shape
        options = schema.DepthToSpaceOptionsT()
        options.blockSize = op.block
        shape = (batch, height, width, channels)
        result = w.emit.emit(Operator.DEPTH_TO_SPACE, (x,), shape, options)
        w.define(op.output, result, NHWC)
        return
    view = w.view(op.x)
    batch, channels, height, width = op.x.shape
    block = op.block
    split = (batch, channels // block**2, block, block, height, width)
    layout = reshaped(view.layout, split)
    assert layout is not None
    layout = reshaped(permuted(layout, (0, 1, 4, 2, 5, 3)), op.output.shape)
    assert layout is not None
    w.define_view(op.output, View(view.tensor, layout))
