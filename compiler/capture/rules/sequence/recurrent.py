"""LSTMs, GRUs and RNNs: one `Recurrent` for each layer and direction; cells are written out."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx, nn

from shrinkc.compiler.capture.builder import Constant, Expanded
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.lift import lift
from shrinkc.compiler.capture.rules.conv import linear
from shrinkc.passes import ir
from shrinkc.passes.recurrent import GATES, Recurrent

LAYERS: tuple[type[nn.RNNBase], ...] = (nn.LSTM, nn.GRU, nn.RNN)
CELLS: tuple[type[nn.RNNCellBase], ...] = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)
MODULES = (*LAYERS, *CELLS)


@dataclass(frozen=True)
class _Form:
    """What a call of a layer says beside its numbers."""

    kind: str
    has_bias: bool
    layers: int
    bidirectional: bool
    batch_first: bool

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    def weights(self, given: Sequence[Constant]) -> list[list[Constant]]:
        """Of every layer and direction, in PyTorch's order."""
        parts = self.layers * self.directions
        each = len(given) // parts
        return [list(given[i * each : (i + 1) * each]) for i in range(parts)]


def module(c: Context, path: str, m: nn.Module, x: Any, hx: Any = None) -> Any:
    """A call of a module of `MODULES`."""
    if isinstance(m, nn.RNNCellBase):
        kind = "lstm" if isinstance(m, nn.LSTMCell) else "gru"
        if isinstance(m, nn.RNNCell):
            kind = f"rnn_{m.nonlinearity}"
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [
            None if (w := getattr(m, n)) is None else Constant(w, f"{path}.{n}") for n in names
        ]
        return _cell(kind)(c, x, hx, *weights)
    base = cast(nn.RNNBase, m)
    kind = {"RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu"}.get(base.mode, base.mode.lower())
    form = _Form(kind, base.bias, base.num_layers, base.bidirectional, base.batch_first)
    weights = [Constant(getattr(m, n), f"{path}.{n}") for n in base._flat_weights_names]  # pyright: ignore
    states = hx if kind == "lstm" and hx is not None else (hx,)
    y, *last = _layers(c, form, x, states, weights, cell=_reads_cell(c.node))
    return (y, tuple(last)) if kind == "lstm" else (y, last[0])


def _reads_cell(node: fx.Node) -> bool:
    """Whether somebody reads c of `y, (h, c) = lstm(x)`, or of ATen's (y, h, c)."""
    if node.op == "call_function":
        return not {*_parts_read(node)} <= {0, 1}
    if not {*_parts_read(node)} <= {0, 1}:
        return True
    states = [u for u in node.users if u.args[1] == 1]
    return any(part != 0 for state in states for part in _parts_read(state))


def _parts_read(node: fx.Node) -> list[Any]:
    return [u.args[1] if u.target is operator.getitem else None for u in node.users]


def _layer(kind: str) -> Callable[..., Any]:
    """`torch.lstm` and its like, as ATen has them, too."""

    def rule(c: Context, x: Any, hx: Any, weights: Any, *rest: Any, **named: Any) -> Any:
        if not isinstance(weights, (list, tuple)):
            raise c.unsupported("packed sequences; give padded ones, all of one length")
        names = ("has_biases", "num_layers", "dropout", "train", "bidirectional", "batch_first")
        given = {**dict(zip(names, rest, strict=False)), **named}
        if given["train"] and given["dropout"]:
            raise c.unsupported("dropout between layers in training mode")
        form = _Form(
            *(kind, given["has_biases"], given["num_layers"], given["bidirectional"]),
            given["batch_first"],
        )
        constants = [c.weight(w) for w in cast("list[Any]", weights)]
        states = hx if kind == "lstm" else (hx,)
        return tuple(_layers(c, form, x, states, constants, cell=_reads_cell(c.node)))

    return rule


def _layers(
    c: Context, form: _Form, x: Any, states: Any, weights: list[Constant], *, cell: bool
) -> list[fx.Node]:
    """(y, h, and c of an LSTM), where somebody reads the `cell`."""
    x = c.tensor(x)
    single = c.b.rank(x) == 2
    if single:
        x = c.b.reshape(x, [(1, *s) for s in c.b.shapes(x)])
    elif not form.batch_first:
        x = c.b.permute(x, (1, 0, 2))
    if len({s[1] for s in c.b.shapes(x)}) > 1:
        raise c.unsupported("the length of its sequence follows the first dimension of the input")
    cell = cell and form.kind == "lstm"
    last: list[list[fx.Node]] = [[], []]
    given = form.weights(weights)
    for layer in range(form.layers):
        made: list[fx.Node] = []
        for direction in range(form.directions):
            index = layer * form.directions + direction
            first = [_first(c, s, index, x) for s in states]
            y, ends = _one(c, form, x, first, given[index], direction == 1, cell)
            made.append(y)
            for known, end in zip(last, ends, strict=False):
                known.append(end)
        x = made[0] if len(made) == 1 else c.b.call(torch.cat, tuple(made), 2)
    if single:
        x = c.b.reshape(x, [s[1:] for s in c.b.shapes(x)])
    elif not form.batch_first:
        x = c.b.permute(x, (1, 0, 2))
    ends = [_stacked(c, nodes, single) for nodes in last if nodes]
    return [x, *ends] if cell or form.kind != "lstm" else [x, *ends, ends[0]]  # that nobody reads


def _stacked(c: Context, states: list[fx.Node], single: bool) -> fx.Node:
    """(N, P) of every layer and direction as (layers · directions, N, P)."""
    raised = [c.b.reshape(s, [(1, *n) for n in c.b.shapes(s)]) for s in states]
    whole = raised[0] if len(raised) == 1 else c.b.call(torch.cat, tuple(raised), 0)
    return c.b.reshape(whole, [(n[0], n[2]) for n in c.b.shapes(whole)]) if single else whole


def _first(c: Context, given: Any, index: int, x: fx.Node) -> fx.Node | None:
    """A layer's part of the first states; None: zeros."""
    if given is None:
        return None
    known = isinstance(given, Constant) and not isinstance(given.tensor, nn.Parameter)
    if known and not given.tensor.any():
        return None
    node = given.node if isinstance(given, Expanded) else c.tensor(given)
    part = c.b.slice(node, 0, index, index + 1)
    part = c.b.reshape(part, [(1, s[-1]) if len(s) == 2 else s[1:] for s in c.b.shapes(part)])
    if c.b.shapes(part)[-1][0] != c.b.shapes(x)[-1][0]:
        return c.b.call(ir.batch_expand, part, x)
    return part


def _one(
    c: Context,
    form: _Form,
    x: fx.Node,
    first: Sequence[fx.Node | None],
    weights: Sequence[Constant],
    reverse: bool,
    cell: bool,
) -> tuple[fx.Node, list[fx.Node]]:
    """(N, L, P) of one layer in one direction, and its last states: (N, P), of a cell (N, H)."""
    steps, size = c.b.shape(x)[1:]
    rows, outputs = weights[1].tensor.shape
    hidden = rows // GATES[form.kind]
    projected = outputs if outputs != hidden or len(weights) % 2 else 0
    names = ["weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if form.has_bias else ())]
    names += ["weight_hr"] * (projected > 0)
    config = (form.kind, size, hidden, projected, form.has_bias, reverse, cell)
    tensors: dict[str, Constant | None] = dict(zip(names, weights, strict=True))
    if any(s is not None for s in first):
        widths = (outputs, hidden)
        first = [_zeros(c, w, x) if s is None else s for s, w in zip(first, widths, strict=False)]
    states = [s for s in first if s is not None]
    y = lift(c, x, lambda: Recurrent(*config), tensors, ("recurrent", *config), *states)
    at = 0 if reverse else steps - 1
    if not cell:
        return y, [_row(c, y, at)]
    ends = [c.b.slice(_row(c, y, at), 1, 0, outputs), _row(c, y, steps)]
    return c.b.slice(c.b.slice(y, 1, 0, steps), 2, 0, outputs), ends


def _row(c: Context, y: fx.Node, at: int) -> fx.Node:
    row = c.b.slice(y, 1, at, at + 1)
    return c.b.reshape(row, [(s[0], s[2]) for s in c.b.shapes(row)])


def _zeros(c: Context, width: int, x: fx.Node) -> fx.Node:
    return c.b.call(ir.batch_expand, c.tensor(Constant(torch.zeros(1, width))), x)


# --- cells ---------------------------------------------------------------------------------------


def _cell(kind: str) -> Callable[..., Any]:
    """One step, in layers and activations."""

    def rule(
        c: Context, x: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
    ) -> Any:
        x = c.tensor(x)
        states = list(cast("list[Any]", hx)) if isinstance(hx, (list, tuple)) else [hx]
        single = c.b.rank(x) == 1
        if single:
            x = _with_batch(c, x)
            states = [None if s is None else _with_batch(c, c.tensor(s)) for s in states]
        given = linear(c, x, w_ih, b_ih)
        first = states[0]
        if first is None:
            hidden = c.weight(w_hh).tensor.shape[1]
            first = _zeros(c, hidden, x)
        kept = linear(c, first, w_hh, b_hh)
        result = _STEPS[kind](c, given, kept, states)
        if single:
            result = [c.b.reshape(r, [s[1:] for s in c.b.shapes(r)]) for r in result]
        return tuple(result) if kind == "lstm" else result[0]

    return rule


def _with_batch(c: Context, x: fx.Node) -> fx.Node:
    return c.b.reshape(x, [(1, *s) for s in c.b.shapes(x)])


def _parts(c: Context, x: fx.Node, count: int) -> list[fx.Node]:
    size = c.b.shape(x)[1] // count
    return [c.b.slice(x, 1, i * size, (i + 1) * size) for i in range(count)]


def _sigmoid(c: Context, x: fx.Node) -> fx.Node:
    return c.b.new_module(f"{c.hint}_gate", nn.Sigmoid(), x)


def _tanh(c: Context, x: fx.Node) -> fx.Node:
    return c.b.new_module(f"{c.hint}_tanh", nn.Tanh(), x)


def _lstm_step(c: Context, given: fx.Node, kept: fx.Node, states: list[Any]) -> list[fx.Node]:
    """c = σ(f) c₀ + σ(i) tanh(g); h = σ(o) tanh(c)"""
    i, f, g, o = _parts(c, c.b.call(ir.add, given, kept), 4)
    cell = c.b.call(ir.mul, _sigmoid(c, i), _tanh(c, g))
    if len(states) > 1 and states[1] is not None:
        before = c.b.call(ir.mul, _sigmoid(c, f), c.operand(states[1]))
        cell = c.b.call(ir.add, before, cell)
    return [c.b.call(ir.mul, _sigmoid(c, o), _tanh(c, cell)), cell]


def _gru_step(c: Context, given: fx.Node, kept: fx.Node, states: list[Any]) -> list[fx.Node]:
    """n = tanh(xₙ + σ(r) hₙ); h = n + σ(z) (h₀ − n)"""
    (xr, xz, xn), (hr, hz, hn) = _parts(c, given, 3), _parts(c, kept, 3)
    r = _sigmoid(c, c.b.call(ir.add, xr, hr))
    z = _sigmoid(c, c.b.call(ir.add, xz, hz))
    n = _tanh(c, c.b.call(ir.add, xn, c.b.call(ir.mul, r, hn)))
    if states[0] is None:
        return [c.b.call(ir.sub, n, c.b.call(ir.mul, z, n))]
    apart = c.b.call(ir.sub, c.operand(states[0]), n)
    return [c.b.call(ir.add, n, c.b.call(ir.mul, z, apart))]


def _rnn_step(kind: Callable[[], nn.Module]) -> Callable[..., list[fx.Node]]:
    def step(c: Context, given: fx.Node, kept: fx.Node, states: list[Any]) -> list[fx.Node]:
        return [c.b.new_module(f"{c.hint}_out", kind(), c.b.call(ir.add, given, kept))]

    return step


_STEPS: dict[str, Callable[[Context, fx.Node, fx.Node, list[Any]], list[fx.Node]]] = {
    "lstm": _lstm_step,
    "gru": _gru_step,
    "rnn_tanh": _rnn_step(nn.Tanh),
    "rnn_relu": _rnn_step(nn.ReLU),
}

RULES: dict[str, Callable[..., Any]] = {
    **{kind: _layer(kind) for kind in GATES},
    **{f"{kind}_cell": _cell(kind) for kind in GATES},
}
