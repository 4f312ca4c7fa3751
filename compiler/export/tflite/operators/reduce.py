"""Reduce, ArgMax, TopK, Softmax and LayerNorm: operators along some dimensions."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.emit import Operator
from shrinkc.compiler.export.tflite.layout import Order, last, without
from shrinkc.compiler.export.tflite.writer import Writer

_REDUCTIONS: dict[ops.ReduceKind, int] = {
    "mean": Operator.MEAN,
    "sum": Operator.SUM,
    "max": Operator.REDUCE_MAX,
    "min": Operator.REDUCE_MIN,
    "prod": Operator.REDUCE_PROD,
}

_FEW = 4  # dimensions that XNNPACK reduces


def write_reduce(w: Writer, op: ops.Reduce) -> None:
    """Of volumes one dimension after the other: outside XNNPACK, sums are added up in a row, and a
    thousand numbers lose a digit."""
    order = w.order(op.x)
    x = w.arrange(op.x, order)
    positions = _positions(order, op.axes)
    if len(order) > _FEW and op.kind in ("mean", "sum"):
        *before, last_one = positions[::-1]
        for place in before:
            x = w.emit.reduce(_REDUCTIONS[op.kind], x, (place,), True)
        if not op.keepdims:
            shape = w.emit.shape(x)
            x = w.emit.reshape(x, tuple(n for i, n in enumerate(shape) if i not in before))
            last_one -= sum(place < last_one for place in before)
        positions = (last_one,)
    result = w.emit.reduce(_REDUCTIONS[op.kind], x, positions, op.keepdims)
    w.define(op.output, result, order if op.keepdims else without(order, op.axes))


def write_argmax(w: Writer, op: ops.ArgMax) -> None:
    order = w.order(op.x)
    x = w.arrange(op.x, order)
    place = order.index(op.axis)
    options = schema.ArgMaxOptionsT()
    options.outputType = schema.TensorType.INT32
    shape = tuple(n for d, n in enumerate(w.emit.shape(x)) if d != place)
    inputs = (x, w.emit.ints((place,)))
    found = w.emit.emit(Operator.ARG_MAX, inputs, shape, options, dtype="int32")
    left = order if op.keepdims else without(order, (op.axis,))
    w.define(op.output, w.emit.cast(found, op.output.dtype), left)


def write_cumsum(w: Writer, op: ops.CumSum) -> None:
    order = w.order(op.x)
    x = w.arrange(op.x, order)
    axis = w.emit.builder.constant(f"{op.name}/axis", np.array(order.index(op.axis), np.int32))
    result = w.emit.emit(Operator.CUMSUM, (x, axis), w.emit.shape(x), schema.CumsumOptionsT())
    w.define(op.output, result, order)


def write_topk(w: Writer, op: ops.TopK) -> None:
    """TOPK_V2 runs over what lies innermost."""
    order = last(w.order(op.x), (op.axis,))
    x = w.arrange(op.x, order)
    shape = (*w.emit.shape(x)[:-1], op.count)
    results = ((shape, "float32"), (shape, "int32"))
    options = schema.TopKV2OptionsT()
    inputs = (x, w.emit.ints((op.count,)))
    values, indices = w.emit.emit_all(Operator.TOPK_V2, inputs, results, options)
    found = values if op.part == "values" else w.emit.cast(indices, op.output.dtype)
    w.define(op.output, found, order)


def write_softmax(w: Writer, op: ops.Softmax) -> None:
    """SOFTMAX and LOG_SOFTMAX run over what lies innermost."""
    order = last(w.order(op.x), (op.axis,))
    x = w.arrange(op.x, order)
    if op.log:
        result = w.emit.unary(Operator.LOG_SOFTMAX, x, schema.LogSoftmaxOptionsT())
    else:
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        result = w.emit.unary(Operator.SOFTMAX, x, options)
    w.define(op.output, result, order)


def write_layer_norm(w: Writer, op: ops.LayerNorm) -> None:
    """d = x − mean; d / √(mean(d²) + eps) · weight + bias. The variance is taken of centred
    values, so nothing cancels; a weight of ones and a bias of zeros are left out."""
    e = w.emit
    order = w.order(op.x)
    x = w.arrange(op.x, order)
    rank = len(order)
    axes = _positions(order, tuple(range(rank - op.weight.ndim, rank)))
    centred = e.binary(Operator.SUB, x, e.reduce(Operator.MEAN, x, axes, True))
    variance = e.reduce(Operator.MEAN, e.unary(Operator.SQUARE, centred), axes, True)
    inverse = e.unary(Operator.RSQRT, e.add(variance, e.scalar(op.eps)))
    result = e.mul(centred, inverse)
    if np.any(op.weight != 1):
        result = e.mul(result, e.constant(_aligned(op.weight, order), "weight"))
    if np.any(op.bias != 0):
        result = e.add(result, e.constant(_aligned(op.bias, order), "bias"))
    w.define(op.output, result, order)


def _positions(order: Order, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(order.index(axis) for axis in axes))


def _aligned(array: ops.FloatArray, order: Order) -> ops.FloatArray:
    """A constant over the last logical dimensions, to broadcast over a tensor in `order`."""
    return array.reshape((1,) * (len(order) - array.ndim) + array.shape).transpose(order)
