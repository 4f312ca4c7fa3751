"""How a recurrent layer becomes deployment operators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
from torch import fx

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lowering import Lowering, NotLowerableError
from shrinkc.passes.recurrent import Recurrent


def recurrent(s: Lowering, node: fx.Node, m: Recurrent) -> None:
    source, *given = cast("tuple[fx.Node, ...]", node.args)
    zeros = np.zeros(m.weight_hh.shape[0], np.float32)
    op = ops.Recurrent(
        *(node.name, s.value(node), s.tensor(source), cast(Any, m.kind)),
        *(s.array(m.weight_ih), s.array(m.weight_hh)),
        (s.array(m.bias_ih), s.array(m.bias_hh)) if m.has_bias else (zeros, zeros),
        tuple(s.operand(node, state) for state in given),
        m.reverse,
        m.with_cell,
    )
    if m.proj_size:
        _projected(s, node, m, op)
    else:
        s.add(node, op)


def _projected(s: Lowering, node: fx.Node, m: Recurrent, op: ops.Recurrent) -> None:
    """h = R h′ for h′ = σ(o) tanh(c), which gates read as U h = (U R) h′: a layer of h′ with U R
    for U, and a linear one behind it."""
    if op.states and not _is_zero(s, op.states[0]):
        raise NotLowerableError("an LSTM with a projection and a first state")
    n, value, shape = node.name, s.value(node), (*op.x.shape[:2], m.hidden_size)
    rows = shape[1]

    def part(suffix: str, *shape: int) -> ops.Value:
        return replace(value, name=f"{n}_{suffix}", shape=shape)

    product = m.weight_hh.detach().double() @ m.weight_hr.detach().double()
    states = op.states
    if states:
        none = ops.Const(f"{n}_none", np.zeros((1, m.hidden_size), np.float32))
        first = part("first", shape[0], m.hidden_size)
        states = (s.emit(ops.BatchExpand(n, first, none, op.x)), states[1])
    extra = int(m.with_cell)
    whole = part("unprojected", shape[0], rows + extra, m.hidden_size)
    op = replace(op, output=whole, weight_hh=product.float().numpy(), states=states)
    made = s.emit(op)
    if extra:
        made = s.emit(ops.Slice(n, part("steps", *shape), whole, 1, 0, rows))
    bias, weight = np.zeros(m.proj_size, np.float32), s.array(m.weight_hr)
    if not extra:
        s.add(node, ops.Linear(n, value, made, weight, bias))
        return
    narrow = s.emit(ops.Linear(n, part("projected", *shape[:2], m.proj_size), made, weight, bias))
    wide = (0, 0, m.hidden_size - m.proj_size)
    filled = s.emit(ops.Pad(n, part("filled", *shape), narrow, (0, 0, 0), wide))
    cell = s.emit(ops.Slice(n, part("cell", shape[0], 1, shape[2]), whole, 1, rows, rows + 1))
    s.add(node, ops.Concat(n, value, (filled, cell), 1))


def _is_zero(s: Lowering, state: ops.Operand) -> bool:
    made = state if isinstance(state, ops.Const) else s.made_by(state)
    known = made.x if isinstance(made, ops.BatchExpand) else made
    return isinstance(known, ops.Const) and not known.array.any()
