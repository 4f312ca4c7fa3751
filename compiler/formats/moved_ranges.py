"""Ranges of a TFLite file's own tensors that hold the numbers of others, moved or padded.

Calibration knows the network's values, and a file has more: a padded input, an output before it is
brought into another layout. A quantiser that finds ranges for these by itself, on other inputs,
clips what they hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shrinkc.compiler.quantise.ranges import Range

MOVING = ("RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS")  # all numbers, and no others
PARTS = ("SLICE", "STRIDED_SLICE", "GATHER", "SPLIT", "MIRROR_PAD", "MAX_POOL_2D")
ZEROS = "PAD"  # which zeros come to


def moved_ranges(model: bytes, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Tensor → range, with what follows from `ranges` for tensors that they do not name."""
    from ai_edge_litert import schema_py_generated as schema

    file: Any = schema
    read = file.ModelT.InitFromObj(file.Model.GetRootAs(model, 0))
    (graph, *_) = read.subgraphs
    kinds = {getattr(file.BuiltinOperator, name): name for name in (*MOVING, *PARTS, ZEROS)}
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in read.operatorCodes]
    names = [tensor.name.decode("utf-8") for tensor in graph.tensors]
    steps = [
        (
            kinds[codes[op.opcodeIndex]],
            names[_source(op, codes, file)],
            [names[i] for i in op.outputs],
        )
        for op in graph.operators
        if codes[op.opcodeIndex] in kinds
    ]
    found = dict(ranges)
    for kind, source, (output, *_) in reversed(steps):
        if kind in MOVING and source not in found and output in found:
            found[source] = found[output]
    for kind, source, outputs in steps:
        if source in found:
            low, high = found[source]
            moved = (min(low, 0.0), max(high, 0.0)) if kind == ZEROS else (low, high)
            for output in outputs:
                found.setdefault(output, moved)
    return found


def _source(op: Any, codes: list[int], file: Any) -> int:
    """The input whose numbers move: a split reads its axis first."""
    operator: int = file.BuiltinOperator.SPLIT
    return int(op.inputs[1 if codes[op.opcodeIndex] == operator else 0])
