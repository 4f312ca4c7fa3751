"""Reduce, Softmax and LayerNorm: operators along some dimensions."""

from __future__ import annotations

from typing import Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.emit import Operator
from shrinkc.compiler.export.tflite.layout import Order, last, without
from shrinkc.compiler.export.tflite.writer import Writer

_REDUCTIONS: dict[Literal["mean", "sum", "max"], int] = {
    "mean": Operator.MEAN,
    "sum": Operator.SUM,
    "max": Operator.REDUCE_MAX,
}


def write_reduce(w: Writer, op: ops.Reduce) -> None:
    order = w.order(op.x)
    x = w.arrange(op.x, order)
    positions = _positions(order, op.axes)
    result = w.emit.reduce(_REDUCTIONS[op.kind], x, positions, op.keepdims)
    w.define(op.output, result, order if op.keepdims else without(order, op.axes))


def write_softmax(w: Writer, op: ops.Softmax) -> None:
    """SOFTMAX runs over what lies innermost."""
    order = last(w.order(op.x), (op.axis,))
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    result = w.emit.unary(Operator.SOFTMAX, w.arrange(op.x, order), options)
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
