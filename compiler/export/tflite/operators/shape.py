"""Operators that move elements: Reshape, Transpose, BatchExpand, Concat, Gather, Pad; and what is
only said in another way: Integers, Constant.

The first two only change how a value looks at its tensor; see `tflite_layout`.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.emit import Operator
from shrinkc.compiler.export.tflite.layout import (
    Order,
    common_groups,
    natural_order,
    permuted,
    reshaped,
    stored,
)
from shrinkc.compiler.export.tflite.writer import View, Writer, boundary_order

_MAX_RANK = 5  # of SLICE and the PADs


def write_transpose(w: Writer, op: ops.Transpose) -> None:
    view = w.view(op.x)
    w.define_view(op.output, View(view.tensor, permuted(view.layout, op.perm)))


def write_reshape(w: Writer, op: ops.Reshape) -> None:
    """Where the dimensions do not divide one another, as in (6, 4) → (8, 3), those that mix are
    first brought together."""
    view = w.view(op.x)
    layout = reshaped(view.layout, op.output.shape)
    if layout is None:
        groups = common_groups(op.x.shape, op.output.shape)
        grouped = reshaped(view.layout, groups)
        assert grouped is not None
        order = natural_order(grouped, w.emit.shape(view.tensor))
        view = View(w.arrange_view(View(view.tensor, grouped), order), stored(groups, order))
        layout = reshaped(view.layout, op.output.shape)
        assert layout is not None
    w.define_view(op.output, View(view.tensor, layout))


def write_batch_expand(w: Writer, op: ops.BatchExpand) -> None:
    """The batch of a file is fixed: the result is a constant."""
    array = np.broadcast_to(op.x.array, op.output.shape)
    w.define_constant(op.output, ops.Const(op.x.name, array))


def write_integers(w: Writer, op: ops.Integers) -> None:
    """Behind whatever has to move: that is done in float32."""
    order = boundary_order(op.output)
    x = w.arrange(op.x, order)
    result = w.emit.cast(x, op.output.dtype)
    if op.x.dtype != "float32":
        w.whole[result] = x
    w.define(op.output, result, order)


def write_embedding(w: Writer, op: ops.Embedding) -> None:
    """GATHER of rows."""
    order = w.order(op.x)
    x = w.arrange(op.x, order)
    indices = w.emit.cast(w.whole.get(x, x), "int32")
    options = schema.GatherOptionsT()
    shape = (*w.emit.shape(x), op.weight.shape[1])
    inputs = (w.emit.constant(op.weight, "weight"), indices)
    result = w.emit.emit(Operator.GATHER, inputs, shape, options)
    w.define(op.output, result, (*order, len(order)))


def write_constant(w: Writer, op: ops.Constant) -> None:
    order = boundary_order(op.output)
    tensor = w.arrange(ops.Const(f"{op.name}/value", op.array), order)
    result = w.emit.cast(tensor, op.output.dtype)
    w.define(op.output, w.emit.copy(result, w.emit.shape(result)), order)


def write_gather(w: Writer, op: ops.Gather) -> None:
    order = w.order(op.x)
    x = w.arrange(op.x, order)
    options = schema.GatherOptionsT()
    options.axis = order.index(op.axis)
    shape = _replaced(w.emit.shape(x), options.axis, len(op.indices))
    inputs = (x, w.emit.ints(op.indices))
    w.define(op.output, w.emit.emit(Operator.GATHER, inputs, shape, options), order)


def write_concat(w: Writer, op: ops.Concat) -> None:
    """A concatenation that continues an earlier one (a dense block) starts from its result."""
    parts = tuple(w.resolve(part) for part in op.parts)
    order = w.common_order(parts, len(op.output.shape))
    axis = order.index(op.axis)
    tensors = tuple(w.arrange(part, order) for part in parts)
    head, *rest = _continued(w, axis, tensors)
    result = w.emit.concat((head, *rest), axis) if rest else head
    w.joined[axis, tensors] = result
    w.define(op.output, result, order)


def _continued(w: Writer, axis: int, tensors: tuple[int, ...]) -> tuple[int, ...]:
    """`tensors` with the longest beginning that is already joined replaced by the result."""
    for length in range(len(tensors), 1, -1):
        head = w.joined.get((axis, tensors[:length]))
        if head is not None:
            return (head, *tensors[length:])
    return tensors


def _replaced(values: tuple[int, ...], index: int, value: int) -> tuple[int, ...]:
    return (*values[:index], value, *values[index + 1 :])


def write_pad(w: Writer, op: ops.Pad) -> None:
    order = w.order(op.x)
    x = w.arrange(op.x, order)
    before = tuple(op.before[d] for d in order)
    after = tuple(op.after[d] for d in order)
    if op.mode == "replicate":
        result = _replicated(w, x, before, after)
    else:
        if len(order) > _MAX_RANK:
            x, before, after = _merged(w, x, before, after)
        if op.mode == "reflect":
            result = w.emit.mirror_pad(x, before, after)
        else:
            result = w.emit.pad(x, before, after, op.value)
    w.define(op.output, result, order)


def _merged(
    w: Writer, x: int, before: Order, after: Order
) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Neighbouring dimensions without padding taken as one."""
    amounts: list[tuple[int, int]] = []
    shape: list[int] = []
    for size, *amount in zip(w.emit.shape(x), before, after, strict=True):
        if amounts and amount == [0, 0] and amounts[-1] == (0, 0):
            shape[-1] *= size
        else:
            amounts.append((amount[0], amount[1]))
            shape.append(size)
    if len(shape) > _MAX_RANK:
        raise w.unsupported(f"pads {len(shape)} separate dimensions, TFLite has {_MAX_RANK}")
    x = w.emit.reshape(x, tuple(shape))
    return x, tuple(b for b, _ in amounts), tuple(a for _, a in amounts)


def _replicated(w: Writer, x: int, before: Order, after: Order) -> int:
    """Edges repeated by concatenating slices, one dimension after the other."""
    for axis, counts in enumerate(zip(before, after, strict=True)):
        if counts == (0, 0):
            continue
        shape = w.emit.shape(x)
        edges = [
            w.emit.slice(x, _replaced((0,) * len(shape), axis, at), _replaced(shape, axis, 1))
            for at in (0, shape[axis] - 1)
        ]
        parts = [edges[0]] * counts[0] + [x] + [edges[1]] * counts[1]
        x = w.emit.concat(parts, axis)
    return x
