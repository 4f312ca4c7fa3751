"""Conv. Inputs and outputs are NHWC."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.emit import ACTIVATIONS, Emitter, Operator
from shrinkc.compiler.export.tflite.layout import NHWC, in_storage_order
from shrinkc.compiler.export.tflite.operators.windows import (
    Window,
    pad_window,
    pair,
    window_options,
)
from shrinkc.compiler.export.tflite.writer import Writer


def write_conv(w: Writer, op: ops.Conv) -> None:
    kernel = pair(op.weight.shape)
    sizes = (pair(op.x.shape), pair(op.output.shape))
    window = Window(*sizes, kernel, op.stride, op.dilation, op.pads)
    if op.groups == op.x.shape[1] > 1:
        _write_depthwise(w, op, window)
        return
    weight, bias = op.weight, op.bias
    if block := w.shuffled_convs.get(op.output.name):
        weight, bias = (_block_major(array, block) for array in (weight, bias))
    if op.groups == 1:
        image = w.image(op.x)
        x, weight = image.tensor, in_storage_order(weight, 1, image.layout, 1)
    else:
        x = w.arrange(op.x, NHWC)
    weight = weight.transpose(0, 2, 3, 1)
    w.define(op.output, conv(w.emit, x, weight, bias, window, op.activation), NHWC)


def write_dynamic_conv(w: Writer, op: ops.DynamicConv) -> None:
    """CONV_2D reads its filter (out, kh, kw, in/groups) from a tensor, DEPTHWISE_CONV_2D
    (1, kh, kw, out)."""
    outputs, kernel = op.b.shape[0], pair(op.b.shape)
    sizes = (pair(op.a.shape), pair(op.output.shape))
    window = Window(*sizes, kernel, op.stride, op.dilation, op.pads)
    x, bias = w.arrange(op.a, NHWC), np.zeros(outputs, np.float32)
    if op.groups == op.a.shape[1] > 1:
        result = depthwise_conv(w.emit, x, w.arrange(op.b, (1, 2, 3, 0)), bias, window, "none")
    else:
        result = conv(w.emit, x, w.arrange(op.b, (0, 2, 3, 1)), bias, window, "none")
    w.define(op.output, result, NHWC)


def _write_depthwise(w: Writer, op: ops.Conv, window: Window) -> None:
    """One output a channel leaves the channels in the order they come in."""
    if len(op.bias) == op.groups:
        image = w.image(op.x)
        weight, bias = (in_storage_order(v, 0, image.layout, 1) for v in (op.weight, op.bias))
        weight = weight.transpose(1, 2, 3, 0)
        result = depthwise_conv(w.emit, image.tensor, weight, bias, window, op.activation)
        w.define_image(op.output, result, image)
        return
    x = w.arrange(op.x, NHWC)
    weight = op.weight.transpose(1, 2, 3, 0)
    w.define(op.output, depthwise_conv(w.emit, x, weight, op.bias, window, op.activation), NHWC)


def _block_major(array: ops.FloatArray, block: int) -> ops.FloatArray:
    """Output channel c·b² + k moves to k·C + c: PyTorch's order of pixel shuffle to TFLite's."""
    split = array.reshape(-1, block**2, *array.shape[1:])
    return split.swapaxes(0, 1).reshape(array.shape)


def conv(
    e: Emitter,
    x: int,
    weight: ops.FloatArray | int,
    bias: ops.FloatArray,
    window: Window,
    activation: ops.FusedActivation,
) -> int:
    """`weight` (out, kh, kw, in/groups), known or a tensor."""
    filters, biases = e.weights(weight, bias)
    outputs, *_, per_group = e.shape(filters)
    x, window = pad_window(e, x, window)
    options = window_options(schema.Conv2DOptionsT, window.stride, window.padding)
    options.dilationHFactor, options.dilationWFactor = window.dilation
    options.fusedActivationFunction = ACTIVATIONS[activation]
    grouped = per_group != e.shape(x)[3]
    version = 6 if grouped else 2 if window.dilation != (1, 1) else 1
    shape = (e.shape(x)[0], *window.out_size, outputs)
    return e.emit(Operator.CONV_2D, (x, filters, biases), shape, options, version)


def depthwise_conv(
    e: Emitter,
    x: int,
    weight: ops.FloatArray | int,
    bias: ops.FloatArray,
    window: Window,
    activation: ops.FusedActivation,
) -> int:
    """`weight` (1, kh, kw, out), known or a tensor; the outputs of one input channel are
    neighbours."""
    filters, biases = e.weights(weight, bias)
    outputs = e.shape(filters)[3]
    x, window = pad_window(e, x, window)
    options = window_options(schema.DepthwiseConv2DOptionsT, window.stride, window.padding)
    options.dilationHFactor, options.dilationWFactor = window.dilation
    options.depthMultiplier = outputs // e.shape(x)[3]
    options.fusedActivationFunction = ACTIVATIONS[activation]
    version = 2 if window.dilation != (1, 1) else 1
    shape = (e.shape(x)[0], *window.out_size, outputs)
    inputs = (x, filters, biases)
    return e.emit(Operator.DEPTHWISE_CONV_2D, inputs, shape, options, version)
