"""Pick: rows of a table at computed places."""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.emit import Emitter, Operator
from shrinkc.compiler.export.tflite.layout import logical
from shrinkc.compiler.export.tflite.writer import Writer


def write_pick(w: Writer, op: ops.Pick) -> None:
    """What lies behind the rows may lie in any order."""
    rank = len(op.a.shape)
    order = (0, 1, *(d for d in w.common_order([op.a], rank) if d > 1))
    table, rows = w.arrange(op.a, order), w.arrange(op.b, logical(2))
    w.define(op.output, gather_rows(w.emit, table, w.emit.cast(rows, "int32")), order)


def gather_rows(e: Emitter, table: int, rows: int) -> int:
    """`table` (B, L, …) at the integers `rows` (B, K)."""
    options = schema.GatherOptionsT()
    options.axis, options.batchDims = 1, 1
    shape = (*e.shape(rows), *e.shape(table)[2:])
    return e.emit(Operator.GATHER, (table, rows), shape, options, version=5)
