"""Linear and MatMul."""

from __future__ import annotations

from math import prod

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.emit import Operator, activated
from shrinkc.compiler.export.tflite.layout import (
    MAX_RANK,
    Layout,
    in_storage_order,
    last,
    logical,
    stored,
)
from shrinkc.compiler.export.tflite.writer import View, Writer

_MAX_RANK = 5  # of BATCH_MATMUL


def write_linear(w: Writer, op: ops.Linear) -> None:
    _linear(w, op.x, op.weight, op.bias, op.activation, op.output)


def _linear(
    w: Writer,
    x: ops.Value,
    weight: ops.FloatArray,
    bias: ops.FloatArray,
    activation: ops.FusedActivation,
    output: ops.Value,
) -> None:
    """FULLY_CONNECTED multiplies what lies innermost. If that is the last dimension with its
    factors in another order (a flattened image), the weight's columns are put in that order."""
    view = _innermost(w, x)
    layout = view.layout
    outer = len(layout.factors) - len(layout.dims[-1])
    weight = in_storage_order(weight, 1, layout, len(layout.dims) - 1)
    tensor, flatten = _matrix_tensor(w, view, x.shape)
    options = activated(schema.FullyConnectedOptionsT, activation)
    options.keepNumDims = not flatten
    leading = x.shape[:1] if flatten else w.emit.shape(tensor)[:-1]
    inputs = (tensor, *w.emit.weights(weight, bias))
    result = w.emit.emit(
        *(Operator.FULLY_CONNECTED, inputs, (*leading, len(bias)), options),
        version=1 if flatten else 5,
    )
    outputs = (len(bias),) if len(bias) > 1 else ()
    factors = (*layout.factors[:outer], *outputs)
    dims = (*layout.dims[:-1], tuple(range(outer, len(factors))))
    w.define_view(output, View(result, Layout(factors, dims)))


def _innermost(w: Writer, x: ops.Value) -> View:
    """A view in which the last dimension's factors lie behind all others, in any order."""
    view = w.view(x)
    columns, factors = view.layout.dims[-1], view.layout.factors
    if sorted(columns) == list(range(len(factors) - len(columns), len(factors))):
        return view
    order = last(w.order(x), (len(x.shape) - 1,))
    return View(w.arrange(x, order), stored(x.shape, order))


def _matrix_tensor(w: Writer, view: View, shape: tuple[int, ...]) -> tuple[int, bool]:
    """The tensor to multiply, and whether it must be flattened to (first size, rest)."""
    physical = w.emit.shape(view.tensor)
    if len(shape) == 2 and physical[:1] == shape[:1]:
        return view.tensor, True
    if physical[-1:] == shape[-1:] and len(physical) <= MAX_RANK:
        return view.tensor, False
    rows = prod(physical) // shape[-1]
    return w.emit.reshape(view.tensor, (rows, shape[-1])), False


def write_matmul(w: Writer, op: ops.MatMul) -> None:
    a, b = w.resolve(op.a), w.resolve(op.b)
    if isinstance(a, ops.Value) and isinstance(b, ops.Const) and b.array.ndim == 2:
        bias = np.zeros(b.shape[1], np.float32)
        _linear(w, a, b.array.T, bias, "none", op.output)
        return
    rank = len(op.output.shape)
    if rank > _MAX_RANK:
        raise w.unsupported(f"a product of {rank} dimensions, TFLite has {_MAX_RANK}")
    left, adjoint_left = _matrix(w, a, rank)
    right, adjoint_right = _matrix(w, b, rank)
    options = schema.BatchMatMulOptionsT()
    options.adjX, options.adjY = adjoint_left, adjoint_right
    result = w.emit.emit(Operator.BATCH_MATMUL, (left, right), op.output.shape, options)
    w.define(op.output, result, logical(rank))


def _matrix(w: Writer, operand: ops.Operand, rank: int) -> tuple[int, bool]:
    """The operand in logical order, or with its last two dimensions swapped (and True) where
    that is how these two lie."""
    order = logical(rank)
    swapped = False
    if isinstance(operand, ops.Value):
        rows, columns = w.view(operand, rank).layout.dims[-2:]
        swapped = rows > columns > ()
    if swapped:
        order = (*order[:-2], rank - 1, rank - 2)
    return w.arrange(operand, order), swapped
