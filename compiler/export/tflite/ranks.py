"""Fewer dimensions: what runtimes cannot hold in six is said in fewer, neighbours taken as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from math import prod

import numpy as np

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.layout import MAX_RANK

Shape = tuple[int, ...]


def within_ranks(program: ops.Program) -> ops.Program:
    """The same program, its broadcasts, softmaxes and reductions of more than six dimensions in
    fewer, between reshapes, which cost nothing."""
    found: list[ops.Op] = []
    for op in program.ops:
        found += _narrowed(op)
    return replace(program, ops=tuple(found))


def _narrowed(op: ops.Op) -> list[ops.Op]:
    ranks = (len(x.shape) for x in (*op.operands(), op.output))
    if max(ranks, default=0) <= MAX_RANK:
        return [op]
    match op:
        case ops.Binary() | ops.Compare() | ops.Where():
            given = list(op.operands())
            shapes = merged([x.shape for x in given], op.output.shape)
            full = tuple(map(int, np.broadcast_shapes(*shapes)))
            names = [n for n in ("condition", "a", "b") if hasattr(op, n)]
            before, parts = _reshaped(op, given, shapes)
            inner = replace(op, output=_inner(op, full), **dict(zip(names, parts, strict=True)))
        case ops.Softmax(x=x, axis=axis):
            full = (prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :]))
            before, parts = _reshaped(op, [x], [full])
            inner = replace(op, output=_inner(op, full), x=parts[0], axis=1)
        case ops.Reduce(x=x, axes=axes):
            runs = [(gone, list(r)) for gone, r in groupby(range(len(x.shape)), axes.__contains__)]
            shape = tuple(prod(x.shape[d] for d in run) for _, run in runs)
            gone = tuple(i for i, (is_gone, _) in enumerate(runs) if is_gone)
            full = tuple(1 if i in gone else n for i, n in enumerate(shape))
            before, parts = _reshaped(op, [x], [shape])
            inner = replace(op, output=_inner(op, full), x=parts[0], axes=gone, keepdims=True)
        case _:
            return [op]
    return [*before, inner, ops.Reshape(op.name, op.output, inner.output)]


def _inner(op: ops.Op, shape: Shape) -> ops.Value:
    return replace(op.output, name=f"{op.output.name}_merged", shape=shape, batch_axis=None)


def _reshaped(
    op: ops.Op, operands: Sequence[ops.Operand], shapes: Sequence[Shape]
) -> tuple[list[ops.Op], list[ops.Operand]]:
    before: list[ops.Op] = []
    parts: list[ops.Operand] = []
    for i, (x, shape) in enumerate(zip(operands, shapes, strict=True)):
        if isinstance(x, ops.Const):
            parts.append(ops.Const(x.name, x.array.reshape(shape)))
            continue
        name = f"{op.output.name}_part{i}"
        flat = replace(x, name=name, shape=shape, batch_axis=None)
        before.append(ops.Reshape(op.name, flat, x))
        parts.append(flat)
    return before, parts


def merged(shapes: Sequence[Shape], full: Shape) -> list[Shape]:
    """What broadcasts to `full`, neighbours that all of them have or that the same ones repeat as
    one: (2, 3, 4, 1) and (1, 1, 4, 5) → (6, 4, 1) and (1, 4, 5)."""
    padded = [((1,) * (len(full) - len(shape)) + shape) for shape in shapes]
    columns = [c for c, n in zip(zip(*padded, strict=True), full, strict=True) if n > 1]
    runs: list[list[int]] = []
    before: tuple[bool, ...] | None = None
    for column in columns:
        repeats = tuple(n == 1 for n in column)
        if repeats == before:
            runs[-1] = [a * b for a, b in zip(runs[-1], column, strict=True)]
        else:
            runs.append(list(column))
        before = repeats
    return [tuple(run[i] for run in runs) for i in range(len(shapes))]
