"""LSTM, GRU and plain recurrent layers as torch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shrinkc.compiler.load.onnx.build import Value
from shrinkc.compiler.load.onnx.context import Context, Rule

# Of torch's gates, where ONNX has them: i, o, f, c for i, f, g, o and z, r, h for r, z, n.
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_KINDS: dict[str, Any] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
_USUAL = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh")}


def recurrent(c: Context) -> list[Value]:
    """(steps, batch, features) → Y (steps, directions, batch, hidden), Y_h, and Y_c of an LSTM."""
    x, weight, again = c.x(), c.weight(1).tensors[0], c.weight(2).tensors[0]
    hidden, directions = c.int("hidden_size"), weight.shape[0]
    rest = _checked(c, directions)
    bias = c.maybe_weight(3)
    module = _KINDS[c.op](
        *(weight.shape[2], hidden), bias=bias is not None, bidirectional=directions == 2, **rest
    )
    weights: dict[str, Value | None] = {}
    for d, end in enumerate(("", "_reverse")[:directions]):
        weights[f"weight_ih_l0{end}"] = _gates(c, weight[d])
        weights[f"weight_hh_l0{end}"] = _gates(c, again[d])
        if bias is not None:
            first, second = bias.tensors[0][d].chunk(2)
            weights[f"bias_ih_l0{end}"] = _gates(c, first)
            weights[f"bias_hh_l0{end}"] = _gates(c, second)
    outputs, states = c.layer(module, weights, x)
    y = c.reshape(outputs, [(*s[:2], directions, hidden) for s in outputs.shapes])
    y = c.permute(y, (0, 2, 1, 3))
    return [y, *(states if isinstance(states, list) else [states])]


def _gates(c: Context, rows: Tensor) -> Value:
    parts = rows.chunk(len(_GATES[c.op]))
    return c.constant(torch.cat([parts[i] for i in _GATES[c.op]]))


def _checked(c: Context, directions: int) -> dict[str, Any]:
    """What the kind of layer needs besides. Raises CaptureError for what torch has no layer of."""
    names = [a.decode().lower() for a in c.attribute("activations", ())]
    if c.op == "RNN":
        kinds = set(names) or {"tanh"}
        if len(kinds) > 1 or not kinds <= {"tanh", "relu"}:
            raise c.unsupported(f"activations {', '.join(names)}")
    elif names and tuple(names) != _USUAL[c.op] * directions:
        raise c.unsupported(f"activations {', '.join(names)}")
    if c.text("direction", "forward") == "reverse":
        raise c.unsupported("a layer that only runs backwards")
    if c.int("layout") or "clip" in c.attributes or c.int("input_forget") or c.has(7):
        raise c.unsupported("layout, clip, input_forget or peepholes")
    if c.op == "GRU" and not c.int("linear_before_reset"):
        raise c.unsupported("linear_before_reset 0, which torch has no layer of")
    if c.has(4):
        steps = c.x().shape[0]
        if any(n != steps for one in c.numbers(4) for n in one):
            raise c.unsupported("sequences of different lengths")
    _refuse_states(c, (5, 6))
    return {"nonlinearity": names[0] if names else "tanh"} if c.op == "RNN" else {}


def _refuse_states(c: Context, indices: Sequence[int]) -> None:
    """Zeros are what a layer begins with anyway."""
    for index in indices:
        value = c.maybe(index)
        if value is not None and not (value.known and all(not t.any() for t in value.tensors)):
            raise c.unsupported("an initial state; start from zeros")


RULES: dict[str, Rule] = dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent)
