"""A program taken apart: the operators of every graph node on inputs of their own.

Side by side in one file they show what int8 costs each of them alone, behind fp32 inputs, in the
runtime's own arithmetic: also what a file composes of several operators, and what has no weights.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, fx

from shrinkc.compiler.export import ops
from shrinkc.compiler.quantise.ranges import Range

GIVEN = "__given"  # behind the name of a value that is an input here


@dataclass(frozen=True)
class Part:
    """The operators of one graph node.

    reads   values that come from elsewhere
    leaves  values that others read, or that the network returns
    """

    name: str
    ops: tuple[ops.Op, ...]
    reads: tuple[ops.Value, ...]
    leaves: tuple[ops.Value, ...]

    @property
    def weighted(self) -> bool:
        """A layer: its operators carry the network's weights, and most of its time."""
        return any(isinstance(op, ops.Conv | ops.ConvTranspose | ops.Linear) for op in self.ops)

    @property
    def elements(self) -> int:
        """Numbers that go in and come out."""
        return sum(torch.Size(v.shape).numel() for v in (*self.reads, *self.leaves))


def parts_of(program: ops.Program) -> list[Part]:
    """Every graph node's, in order."""
    groups: dict[str, list[ops.Op]] = {}
    for op in program.ops:
        groups.setdefault(op.name, []).append(op)
    readers: dict[str, set[str]] = {value.name: {""} for value in program.outputs}
    for op in program.ops:
        for value in _values(op):
            readers.setdefault(value.name, set()).add(op.name)
    parts: list[Part] = []
    for name, group in groups.items():
        made = {op.output.name for op in group}
        read = {v.name: v for op in group for v in _values(op) if v.name not in made}
        left = [op.output for op in group if readers.get(op.output.name, set()) - {name}]
        parts.append(Part(name, tuple(group), tuple(read.values()), tuple(left)))
    return parts


def side_by_side(parts: Sequence[Part]) -> ops.Program:
    """One program of them all. Its inputs are what they read, named with GIVEN behind; its outputs
    what they leave."""
    inputs = {v.name: _given(v) for part in parts for v in part.reads}
    written = tuple(
        _reading(op, {v.name: inputs[v.name] for v in part.reads})
        for part in parts
        for op in part.ops
    )
    outputs = tuple(value for part in parts for value in part.leaves)
    return ops.Program(tuple(inputs.values()), written, outputs)


def ranges_beside(ranges: Mapping[str, Range], program: ops.Program) -> dict[str, Range]:
    """Those of the network, for the inputs of `side_by_side` too."""
    names = {value.name: value.name.removesuffix(GIVEN) for value in program.inputs}
    return {**ranges, **{given: ranges[name] for given, name in names.items() if name in ranges}}


def outputs_with(
    graph_module: fx.GraphModule, values: dict[fx.Node, Any], changed: Mapping[str, Tensor]
) -> list[Tensor]:
    """The network's outputs with other values in the nodes `changed`; `values` are those of all
    nodes, and only what depends on a changed one is computed again."""
    interpreter = fx.Interpreter(graph_module, garbage_collect_values=False)
    other: dict[fx.Node, Any] = {}
    known = cast(MutableMapping[fx.Node, Any], values)  # only the first map is written to
    interpreter.env = ChainMap(other, known)  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        for node in graph_module.graph.nodes:
            if node.op == "output":
                return [interpreter.env[result] for result in node.args[0]]
            if node.name in changed:
                other[node] = changed[node.name]
            elif any(source in other for source in node.all_input_nodes):
                other[node] = interpreter.run_node(node)
    raise AssertionError("a graph ends with its output")


def _values(op: ops.Op) -> list[ops.Value]:
    return [operand for operand in op.operands() if isinstance(operand, ops.Value)]


def _given(value: ops.Value) -> ops.Value:
    return replace(value, name=f"{value.name}{GIVEN}")


def _reading(op: ops.Op, inputs: Mapping[str, ops.Value]) -> ops.Op:
    """The operator with these values in place of those of their names."""
    changed: dict[str, Any] = {}
    for field in ("x", "a", "b", "like"):
        operand = getattr(op, field, None)
        if isinstance(operand, ops.Value) and operand.name in inputs:
            changed[field] = inputs[operand.name]
    for field in ("parts", "states"):
        if hasattr(op, field):
            changed[field] = tuple(inputs.get(x.name, x) for x in getattr(op, field))
    return replace(op, **changed)
