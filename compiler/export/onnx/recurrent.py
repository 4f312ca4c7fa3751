"""ONNX's LSTM, GRU and RNN.

They run over the first dimension, have a dimension of directions, and their gates in another order
than PyTorch: i, o, f, c for i, f, g, o, and z, r, h for r, z, n.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.onnx.writer import Writer

_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}
_OPERATORS = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN", "rnn_relu": "RNN"}


def write_recurrent(w: Writer, op: ops.Recurrent) -> None:
    n, out = op.name, op.output.name
    x = w.node("Transpose", [op.x.name], f"{out}/steps", perm=(1, 0, 2))
    states = [_raised(w, w.operand(s), f"{out}/first_{i}") for i, s in enumerate(op.states)]
    wanted = [f"{out}/sequence", "", f"{out}/last"] if op.with_cell else [f"{out}/sequence"]
    biases = np.concatenate([_ordered(op, b) for b in op.biases])
    inputs = [
        *(x, w.array(f"{n}.weight_ih", _ordered(op, op.weight_ih)[None])),
        w.array(f"{n}.weight_hh", _ordered(op, op.weight_hh)[None]),
        *(w.array(f"{n}.bias", biases[None]), "", *states),
    ]
    attributes: dict[str, Any] = {"hidden_size": op.hidden}
    if op.reverse:
        attributes["direction"] = "reverse"
    if op.kind == "gru":
        attributes["linear_before_reset"] = 1
    if op.kind == "rnn_relu":
        attributes["activations"] = ["Relu"]
    inputs = inputs if states else inputs[:4]
    w.several(_OPERATORS[op.kind], inputs, wanted, **attributes)
    axis = w.numbers(f"{out}/direction", [1], np.int64)
    flat = w.node("Squeeze", [wanted[0], axis], f"{out}/flat")  # (L, N, H)
    if not op.with_cell:
        w.node("Transpose", [flat], out, perm=(1, 0, 2))
        return
    both = w.node("Concat", [flat, wanted[2]], f"{out}/both", axis=0)  # (1, N, H) behind it
    w.node("Transpose", [both], out, perm=(1, 0, 2))


def _ordered(op: ops.Recurrent, weight: ops.FloatArray) -> ops.FloatArray:
    """(gates · H, …) with its gates as ONNX has them."""
    gates = weight.reshape(-1, op.hidden, *weight.shape[1:])
    return gates[list(_GATES[op.kind])].reshape(weight.shape)


def _raised(w: Writer, state: str, name: str) -> str:
    """(N, H) → (1, N, H)"""
    return w.node("Unsqueeze", [state, w.numbers(f"{name}/axis", [0], np.int64)], name)
