"""MaxPool and AvgPool. Inputs and outputs are NHWC."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.emit import Emitter, Operator
from shrinkc.compiler.export.tflite.operators.windows import (
    Window,
    pad_window,
    pair,
    window_options,
)
from shrinkc.compiler.export.tflite.writer import Writer

_LOWEST = float(np.finfo(np.float32).min)


def write_max_pool(w: Writer, op: ops.MaxPool) -> None:
    """Padding with zeros does for values that cannot be negative: every window holds one, and
    unlike other numbers zeros are padded inside XNNPACK."""
    border = 0.0 if op.x.name in w.nonnegative else _LOWEST
    image = w.image(op.x)
    if op.dilation != (1, 1):
        w.define_image(op.output, _dilated(w.emit, image.tensor, op, border), image)
        return
    x, window = pad_window(w.emit, image.tensor, _window(op), border)
    w.define_image(op.output, _pool(w.emit, Operator.MAX_POOL_2D, x, window), image)


def _dilated(e: Emitter, x: int, op: ops.MaxPool, border: float) -> int:
    """MAX_POOL_2D has no dilation: the map's maximum with itself, moved, a direction after the
    other; windows of one pixel take every stride-th."""
    sizes = (pair(op.x.shape), pair(op.output.shape))
    top, left, bottom, right = Window(*sizes, op.kernel, op.stride, op.dilation, op.pads).needed
    if any((top, left, bottom, right)):
        x = e.pad(x, (0, top, left, 0), (0, bottom, right, 0), border)
    for axis in (0, 1):
        shape = list(e.shape(x))
        shape[axis + 1] = (sizes[1][axis] - 1) * op.stride[axis] + 1
        moved = [
            e.slice(x, (0, *(i * d if a == axis else 0 for a in (0, 1)), 0), tuple(shape))
            for d in (op.dilation[axis],)
            for i in range(op.kernel[axis])
        ]
        x = moved[0]
        for other in moved[1:]:
            x = e.binary(Operator.MAXIMUM, x, other)
    if op.stride == (1, 1):
        return x
    return _pool(
        e, Operator.MAX_POOL_2D, x, Window(pair(e.shape(x)[:3]), sizes[1], (1, 1), op.stride)
    )


def write_avg_pool(w: Writer, op: ops.AvgPool) -> None:
    """AVERAGE_POOL_2D divides by the real elements of a window. Explicit zeros count as real
    ones, which is `count_padding`; where they must not, a map of corrections undoes it."""
    window = _window(op)
    image = w.image(op.x)
    x = image.tensor
    explicit = window.padding is None or (window.padding == "same" and op.count_padding)
    if explicit:
        top, left, bottom, right = window.needed
        x = w.emit.pad(x, (0, top, left, 0), (0, bottom, right, 0))
    used = window.padded() if explicit else window
    result = _pool(w.emit, Operator.AVERAGE_POOL_2D, x, used)
    if explicit and not op.count_padding:
        result = w.emit.mul(result, w.emit.constant(_corrections(window), "corrections"))
    elif op.count_padding and window.kernel != op.kernel:
        result = w.emit.mul(result, w.emit.scalar(_area(window.kernel) / _area(op.kernel)))
    w.define_image(op.output, result, image)


def _window(op: ops.MaxPool | ops.AvgPool) -> Window:
    """Where there is one output, the window is cut to the elements it meets: it may be far
    larger than the image, and padding that far takes more memory than there is."""
    in_size, out_size = pair(op.x.shape), pair(op.output.shape)
    kernel, pads = list(op.kernel), list(op.pads)
    for axis in (0, 1):
        if out_size[axis] == 1:
            kernel[axis] = min(in_size[axis], kernel[axis] - pads[axis])
            pads[axis] = 0
    front = (pads[0], pads[1], 0, 0)
    return Window(in_size, out_size, (kernel[0], kernel[1]), op.stride, (1, 1), front)


def _area(kernel: ops.Pair) -> int:
    return kernel[0] * kernel[1]


def _pool(e: Emitter, code: int, x: int, window: Window) -> int:
    options = window_options(schema.Pool2DOptionsT, window.stride, window.padding)
    options.filterHeight, options.filterWidth = window.kernel
    shape = (e.shape(x)[0], *window.out_size, e.shape(x)[3])
    return e.emit(code, (x,), shape, options)


def _corrections(window: Window) -> ops.FloatArray:
    """kh·kw / (real elements in the window), (1, out height, out width, 1)."""
    real = [_real_elements(window, axis) for axis in (0, 1)]
    result = _area(window.kernel) / np.outer(*real)
    return result.astype(np.float32)[None, :, :, None]


def _real_elements(window: Window, axis: int) -> np.ndarray:
    start = np.arange(window.out_size[axis]) * window.stride[axis] - window.pads[axis]
    stop = start + window.kernel[axis]
    return np.minimum(stop, window.in_size[axis]) - np.maximum(start, 0)
