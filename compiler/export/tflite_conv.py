"""Conv and ConvTranspose. Inputs and outputs are NHWC."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from . import ops
from .tflite_emit import ACTIVATIONS, Emitter, Operator
from .tflite_layout import NHWC, storage_index
from .tflite_windows import Window, pad_window, pair, window_options
from .tflite_writer import Writer


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
        x, weight = image.tensor, weight[:, storage_index(image.layout, 1)]
    else:
        x = w.arrange(op.x, NHWC)
    weight = weight.transpose(0, 2, 3, 1)
    w.define(op.output, _conv(w.emit, x, weight, bias, window, op.activation), NHWC)


def _write_depthwise(w: Writer, op: ops.Conv, window: Window) -> None:
    """One output a channel leaves the channels in the order they come in."""
    if len(op.bias) == op.groups:
        image = w.image(op.x)
        channels = storage_index(image.layout, 1)
        weight, bias = op.weight[channels].transpose(1, 2, 3, 0), op.bias[channels]
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


def _conv(
    e: Emitter,
    x: int,
    weight: ops.FloatArray,
    bias: ops.FloatArray,
    window: Window,
    activation: ops.FusedActivation,
) -> int:
    """`weight` (out, kh, kw, in/groups)."""
    x, window = pad_window(e, x, window)
    options = window_options(schema.Conv2DOptionsT, window.stride, window.padding)
    options.dilationHFactor, options.dilationWFactor = window.dilation
    options.fusedActivationFunction = ACTIVATIONS[activation]
    grouped = weight.shape[3] != e.shape(x)[3]
    version = 6 if grouped else 2 if window.dilation != (1, 1) else 1
    shape = (e.shape(x)[0], *window.out_size, weight.shape[0])
    return e.emit(Operator.CONV_2D, (x, *e.weights(weight, bias)), shape, options, version)


def depthwise_conv(
    e: Emitter,
    x: int,
    weight: ops.FloatArray,
    bias: ops.FloatArray,
    window: Window,
    activation: ops.FusedActivation,
) -> int:
    """`weight` (1, kh, kw, out); the outputs of one input channel are neighbours."""
    x, window = pad_window(e, x, window)
    options = window_options(schema.DepthwiseConv2DOptionsT, window.stride, window.padding)
    options.dilationHFactor, options.dilationWFactor = window.dilation
    options.depthMultiplier = weight.shape[3] // e.shape(x)[3]
    options.fusedActivationFunction = ACTIVATIONS[activation]
    version = 2 if window.dilation != (1, 1) else 1
    shape = (e.shape(x)[0], *window.out_size, weight.shape[3])
    inputs = (x, *e.weights(weight, bias))
    return e.emit(Operator.DEPTHWISE_CONV_2D, inputs, shape, options, version)


# --- transposed ----------------------------------------------------------------------------------


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
        return _transpose_conv_to(e, x, weight, op, pair(op.output.shape[2:]), "same")
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
    padding: str,
) -> int:
    options = window_options(
        schema.TransposeConvOptionsT, op.stride, "same" if padding == "same" else "valid"
    )
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
    return _conv(e, x, weight.transpose(0, 2, 3, 1), op.bias, window, op.activation)


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
    kernel, out_size = pair(op.weight.shape[2:]), pair(op.output.shape[2:])
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
