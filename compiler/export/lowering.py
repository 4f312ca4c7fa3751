"""The state of one lowering: operators so far, and the tensor that each graph node became."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, fx

from shrinkc.compiler.export import ops


class NotLowerableError(Exception):
    """Why a node has no deployment operator; `lower` adds which node."""


class Lowering:
    """Grows a program; `shapes` are those of the graph's nodes, `doubled` at twice the batch."""

    def __init__(
        self,
        graph_module: fx.GraphModule,
        shapes: dict[str, tuple[int, ...]],
        doubled: dict[str, tuple[int, ...]],
    ) -> None:
        self.graph_module, self.shapes, self._doubled = graph_module, shapes, doubled
        self.inputs: list[ops.Value] = []
        self.outputs: list[ops.Value] = []
        self.ops: list[ops.Op] = []
        self._env: dict[fx.Node, ops.Operand] = {}
        self._made_by: dict[str, int] = {}
        self._arrays: dict[int, ops.FloatArray] = {}

    def program(self) -> ops.Program:
        return ops.Program(tuple(self.inputs), tuple(self._live()), tuple(self.outputs))

    def value(self, node: fx.Node) -> ops.Value:
        """The tensor that `node` computes."""
        shape = self.shapes[node.name]
        doubled = self._doubled.get(node.name, shape)
        grown = [i for i, (a, b) in enumerate(zip(shape, doubled, strict=True)) if a != b]
        return ops.Value(node.name, shape, grown[0] if len(grown) == 1 else None)

    def set(self, node: fx.Node, operand: ops.Operand) -> None:
        self._env[node] = operand

    def emit(self, op: ops.Op) -> ops.Value:
        """Append a helper operator; returns its result."""
        self._made_by[op.output.name] = len(self.ops)
        self.ops.append(op)
        return op.output

    def add(self, node: fx.Node, op: ops.Op) -> None:
        """Append the operator whose result is the node's."""
        self.set(node, self.emit(op))

    def alias(self, node: fx.Node, source: fx.Node) -> None:
        self._env[node] = self._env[source]

    def producer(self, node: fx.Node) -> int | None:
        """Where in `ops` the node's tensor is made."""
        return self._made_by.get(self._env[node].name)

    def made_by(self, value: ops.Value) -> ops.Op | None:
        at = self._made_by.get(value.name)
        return None if at is None else self.ops[at]

    def replace(self, at: int, op: ops.Op) -> None:
        """The operator at `at`, rewritten; its result may have another name."""
        self.ops[at] = op
        self._made_by[op.output.name] = at

    def tensor(self, node: fx.Node) -> ops.Value:
        """A node that must be computed."""
        operand = self._env[node]
        if isinstance(operand, ops.Const):
            raise NotLowerableError("works on a constant; run the simplify pass first")
        return operand

    def operand(self, node: fx.Node, value: Any) -> ops.Operand:
        """A node, or a number as a constant."""
        if isinstance(value, fx.Node):
            return self._env[value]
        return ops.Const(f"{node.name}_scalar", np.asarray(value, np.float32))

    def result(self, node: fx.Node) -> ops.Value:
        """A tensor that the network returns: computed, and returned once."""
        known = self._env[node]
        value = self.value(node) if isinstance(known, ops.Const) else known
        if isinstance(known, ops.Const) and value not in self.outputs:
            return self.emit(ops.Constant(node.name, value, known.array))
        if value in self.inputs or value in self.outputs:
            copy = ops.Value(f"{value.name}_copy{len(self.outputs)}", value.shape, value.batch_axis)
            value = self.emit(ops.Reshape(node.name, copy, value))
        return value

    def array(self, tensor: Tensor) -> ops.FloatArray:
        """float32 numbers; a tensor used twice gives the same array."""
        known = self._arrays.get(id(tensor))
        if known is None:
            known = tensor.detach().to("cpu").float().numpy()
            known = self._arrays[id(tensor)] = np.ascontiguousarray(known)
        return known

    def _live(self) -> list[ops.Op]:
        """Without operators that nothing reads (a pad that a convolution took over)."""
        needed = {value.name for value in self.outputs}
        kept: list[ops.Op] = []
        for op in reversed(self.ops):
            if op.output.name in needed:
                kept.append(op)
                needed |= {o.name for o in op.operands() if isinstance(o, ops.Value)}
        return kept[::-1]
