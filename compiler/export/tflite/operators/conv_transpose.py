"""ConvTranspose. Inputs and outputs are NHWC."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.emit import ACTIVATIONS, Emitter, Operator
from shrinkc.compiler.export.tflite.layout import NHWC
from shrinkc.compiler.export.tflite.operators.conv import conv, depthwise_conv
from shrinkc.compiler.export.tflite.operators.windows import Padding, Window, pair, window_options
from shrinkc.compiler.export.tflite.writer import Writer


def write_conv_transpose(w: Writer, op: ops.ConvTranspose) -> None:
    x = w.arrange(op.x, NHWC)
    write = _transpose_conv if op.groups == 1 else _zero_stuffed
    w.define(op.output, write(w.emit, x, op), NHWC)


def _transpose_conv(e: Emitter, x: int, op: ops.ConvTranspose) -> int:
    """TRANSPOSE_CONV. It has no dilation (zeros between the weights do the same) and only SAME
    and VALID as padding (VALID, cropped, does for any other)."""
    weight = _dilated(op.weight, op.dilation).transpose(1, 2, 3, 0)
    axes = [_spread(op, axis, weight.shape[1 + axis]) for axis in (0, 1)]
    if all(same for _, _, same in axes):
        return _transpose_conv_to(e, x, weight, op, pair(op.output.shape), "same")
    (full_h, top, _), (full_w, left, _) = axes
    full = _transpose_conv_to(e, x, weight, op, (full_h, full_w), "valid")
    batch, channels, height, width = op.output.shape
    if (height, width) == (full_h, full_w):
        return full
    return e.slice(full, (0, top, left, 0), (batch, height, width, channels))


def _spread(op: ops.ConvTranspose, axis: int, kernel: int) -> tuple[int, int, bool]:
    """Along one axis: the size before cropping, how much is cropped in front, and whether
    TensorFlow's SAME crops just so."""
    size, out, stride = op.x.shape[2 + axis], op.output.shape[2 + axis], op.stride[axis]
    front = op.pads[axis]
    covered = (size - 1) * stride + kernel
    total = max(covered - out, 0)
    same = -(-out // stride) == size and front == total // 2 and covered - out >= 0
    return max(covered, front + out), front, same


def _transpose_conv_to(
    e: Emitter,
    x: int,
    weight: ops.FloatArray,
    op: ops.ConvTranspose,
    out_size: ops.Pair,
    padding: Padding,
) -> int:
    options = window_options(schema.TransposeConvOptionsT, op.stride, padding)
    options.fusedActivationFunction = ACTIVATIONS[op.activation]
    shape = (e.shape(x)[0], *out_size, weight.shape[0])
    kernel, bias = e.weights(weight, op.bias)
    version = 3 if op.activation == "none" else 4
    inputs = (e.ints(shape), kernel, x, bias)
    return e.emit(Operator.TRANSPOSE_CONV, inputs, shape, options, version)


def _dilated(weight: ops.FloatArray, dilation: ops.Pair) -> ops.FloatArray:
    if dilation == (1, 1):
        return weight
    height, width = (d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True))
    result = np.zeros((*weight.shape[:2], height, width), np.float32)
    result[:, :, :: dilation[0], :: dilation[1]] = weight
    return result


def _zero_stuffed(e: Emitter, x: int, op: ops.ConvTranspose) -> int:
    """Grouped: a convolution, with mirrored weights, of the input with zeros between its pixels.

    TRANSPOSE_CONV has no groups; this takes a handful of operators however many there are.
    """
    weight = _mirrored(op)
    x, window = _reach_of_outputs(e, _stuffed(e, x, op.stride), op)
    if op.groups == op.x.shape[1]:
        weight = weight.transpose(1, 2, 3, 0)
        return depthwise_conv(e, x, weight, op.bias, window, op.activation)
    return conv(e, x, weight.transpose(0, 2, 3, 1), op.bias, window, op.activation)


def _mirrored(op: ops.ConvTranspose) -> ops.FloatArray:
    """The weights (out, in/groups, kh, kw) of the convolution that does the same."""
    outputs, *kernel = op.weight.shape[1:]
    per_group = op.weight.reshape(op.groups, -1, outputs, *kernel)[..., ::-1, ::-1]
    return per_group.swapaxes(1, 2).reshape(op.groups * outputs, -1, *kernel)


def _stuffed(e: Emitter, x: int, stride: ops.Pair) -> int:
    """stride − 1 zeros behind every pixel, by one PAD of (rows, 1, columns, channels)."""
    if stride == (1, 1):
        return x
    batch, height, width, channels = e.shape(x)
    rows = e.reshape(x, (batch * height, 1, width, channels))
    rows = e.pad(rows, (0, 0, 0, 0), (0, stride[0] - 1, 0, channels * (stride[1] - 1)))
    return e.reshape(rows, (batch, height * stride[0], width * stride[1], channels))


def _reach_of_outputs(e: Emitter, x: int, op: ops.ConvTranspose) -> tuple[int, Window]:
    """`x` without the pixels that no output reads, and the window over the rest."""
    batch, *size, channels = e.shape(x)
    kernel, out_size = pair(op.weight.shape), pair(op.output.shape)
    begin, end, front = [0, 0], [0, 0], [0, 0]
    for axis in (0, 1):
        reach = op.dilation[axis] * (kernel[axis] - 1)
        first = op.pads[axis] - reach
        begin[axis], front[axis] = max(first, 0), max(-first, 0)
        end[axis] = min(size[axis], first + out_size[axis] + reach)
    kept = (end[0] - begin[0], end[1] - begin[1])
    if kept != (size[0], size[1]):
        x = e.slice(x, (0, *begin, 0), (batch, *kept, channels))
    pads = (front[0], front[1], 0, 0)
    return x, Window(kept, out_size, kernel, (1, 1), op.dilation, pads)
