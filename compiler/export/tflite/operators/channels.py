"""PRelu and ChannelAffine: one or two numbers a channel (dimension 1)."""

from __future__ import annotations

from math import prod

import numpy as np

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.emit import Operator
from shrinkc.compiler.export.tflite.layout import Order, in_storage_order
from shrinkc.compiler.export.tflite.operators.conv import depthwise_conv
from shrinkc.compiler.export.tflite.operators.elementwise import leaky_relu
from shrinkc.compiler.export.tflite.operators.windows import Window, pair
from shrinkc.compiler.export.tflite.writer import View, Writer

_PRELU_RANK = 4  # of its broadcasting in runtimes of 2023


def write_prelu(w: Writer, op: ops.PRelu) -> None:
    if op.slope.size == 1:
        view = w.view(op.x)
        result = leaky_relu(w.emit, view.tensor, float(op.slope.item()))
        w.define_view(op.output, View(result, view.layout))
        return
    order = w.order(op.x)
    x = w.arrange(op.x, order)
    slope = _per_channel(op.slope, order)
    if len(order) > _PRELU_RANK:
        inner = prod(w.emit.shape(x)[order.index(1) + 1 :])
        x = w.emit.reshape(x, (prod(op.output.shape) // (inner * slope.size), slope.size, inner))
        slope = slope.reshape(1, -1, 1)
    inputs = (x, w.emit.constant(slope, "slope"))
    w.define(op.output, w.emit.emit(Operator.PRELU, inputs, w.emit.shape(x)), order)


def write_channel_affine(w: Writer, op: ops.ChannelAffine) -> None:
    """A 1×1 depthwise convolution where there is a height and a width: one pass over memory."""
    if len(op.x.shape) == 4:
        image = w.image(op.x)
        scale, shift = (in_storage_order(v, 0, image.layout, 1) for v in (op.scale, op.shift))
        weight = scale.reshape(1, 1, 1, -1)
        window = Window(pair(op.x.shape), pair(op.x.shape), (1, 1))
        result = depthwise_conv(w.emit, image.tensor, weight, shift, window, op.activation)
        w.define_image(op.output, result, image)
        return
    order = w.order(op.x)
    scale = w.emit.constant(_per_channel(op.scale, order), "scale")
    shift = w.emit.constant(_per_channel(op.shift, order), "shift")
    scaled = w.emit.mul(w.arrange(op.x, order), scale)
    w.define(op.output, w.emit.add(scaled, shift, op.activation), order)


def _per_channel(vector: ops.FloatArray, order: Order) -> ops.FloatArray:
    """Shaped to broadcast over a tensor stored in `order`."""
    shape = np.ones(len(order), np.int64)
    shape[order.index(1)] = vector.size
    return vector.reshape(tuple(shape))
