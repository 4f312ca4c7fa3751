"""Recurrent layers: an LSTM that starts from zeros is TFLite's own, others are written out.

TFLite's LSTM keeps its state from one run of the file to the next. A step in front of the sequence
makes it forget: one more feature, which is 1 there and 0 elsewhere, closes the input, forget and
output gates, so that both states are zeros behind that step, whatever they were.

Written out, each step is a handful of operators, and runtimes keep the weights once for every step.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.builder import NONE
from shrinkc.compiler.export.tflite.emit import Emitter, Operator, activated
from shrinkc.compiler.export.tflite.layout import Order
from shrinkc.compiler.export.tflite.writer import Writer

MOST_STEPS = 256  # written out
MOST_WEIGHTS = 1 << 25  # numbers of them together: 128 MiB in the runtime
_CLOSED = 1e4  # what closes a gate: its sigmoid is 0 in float32
_TIME_MAJOR: Order = (1, 0, 2)
_BATCH_MAJOR: Order = (0, 1, 2)


def write_recurrent(w: Writer, op: ops.Recurrent) -> None:
    if op.kind == "lstm" and op.steps > 1 and not op.states and not op.with_cell:
        _native(w, op)
        return
    weights = op.steps * op.weight_hh.size
    if op.steps > MOST_STEPS or weights > MOST_WEIGHTS:
        most = min(MOST_STEPS, MOST_WEIGHTS // op.weight_hh.size)
        raise w.unsupported(
            f"{_NAMES[op.kind]} of {op.steps} steps is written out step by step, at most {most} of "
            f"its size; TFLite has an operator for LSTMs alone that start from zeros and return no "
            "cell"
        )
    _written_out(w, op)


_NAMES: dict[ops.RecurrentKind, str] = {
    "lstm": "an LSTM with a first state or a last cell",
    "gru": "a GRU",
    "rnn_tanh": "an RNN",
    "rnn_relu": "an RNN",
}


# --- TFLite's own --------------------------------------------------------------------------------


def _native(w: Writer, op: ops.Recurrent) -> None:
    e, order = w.emit, w.order(op.x)
    order = _TIME_MAJOR if order == _TIME_MAJOR else _BATCH_MAJOR
    time = order.index(1)
    x = w.arrange(op.x, order)
    x = _reversed(e, x, time) if op.reverse else x
    x = _with_first_step(e, x, time)
    y = _lstm(e, op, x, time_major=order == _TIME_MAJOR)
    shape = e.shape(y)
    begin = tuple(int(axis == time) for axis in range(3))
    y = e.slice(y, begin, tuple(n - b for n, b in zip(shape, begin, strict=True)))
    w.define(op.output, _reversed(e, y, time) if op.reverse else y, order)


def _with_first_step(e: Emitter, x: int, time: int) -> int:
    """One feature more, which is 1 in one step more in front."""
    padded = e.pad(x, (0, 0, 0), (0, 0, 1))
    first = np.zeros(
        tuple(1 if a == time else n for a, n in enumerate(e.shape(padded))), np.float32
    )
    first[..., -1] = 1
    return e.concat((e.constant(first, "first_step"), padded), time)


def _lstm(e: Emitter, op: ops.Recurrent, x: int, *, time_major: bool) -> int:
    reach = np.abs(op.weight_hh).sum(1).max() + np.abs(op.biases).max()
    closing = np.full((4, op.hidden, 1), -(_CLOSED + reach), np.float32)
    closing[2] = 0  # what is let in does not matter
    weight_ih = np.concatenate((op.weight_ih, closing.reshape(-1, 1)), 1)
    gates = [  # i, f, g, o of each
        [
            e.constant(np.ascontiguousarray(part), f"{name}_{gate}")
            for gate, part in zip("ifgo", np.split(whole, 4), strict=True)
        ]
        for name, whole in (
            ("input_weight", weight_ih),
            ("state_weight", op.weight_hh),
            ("bias", op.biases[0] + op.biases[1]),
        )
    ]
    shape = e.shape(x)
    batch = shape[1 if time_major else 0]
    states = [e.builder.variable(f"{op.output.name}/{n}", (batch, op.hidden)) for n in ("h", "c")]
    options = schema.UnidirectionalSequenceLSTMOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.TANH
    options.timeMajor = time_major
    inputs = (x, *gates[0], *gates[1], *(NONE,) * 3, *gates[2], *(NONE,) * 2, *states)
    result = (*shape[:2], op.hidden)
    return e.emit(
        *(Operator.UNIDIRECTIONAL_SEQUENCE_LSTM, (*inputs, *(NONE,) * 4), result, options)
    )


def _reversed(e: Emitter, x: int, axis: int) -> int:
    return e.emit(Operator.REVERSE_V2, (x, e.ints((axis,))), e.shape(x))


# --- written out ---------------------------------------------------------------------------------


def _written_out(w: Writer, op: ops.Recurrent) -> None:
    e = w.emit
    x = w.arrange(op.x, _TIME_MAJOR)
    steps, batch, size = e.shape(x)
    gru = op.kind == "gru"  # the state's bias is behind a gate
    bias = op.biases[0] if gru else op.biases[0] + op.biases[1]
    product = _linear(e, e.reshape(x, (steps * batch, size)), op.weight_ih, bias)
    rows = (batch, op.weight_ih.shape[0])
    given = _unpacked(e, e.reshape(product, (steps, *rows)))
    h, c = ([w.arrange(s, (0, 1)) for s in op.states] + [None, None])[:2]
    made: list[int] = []
    for part in given[::-1] if op.reverse else given:
        h, c = _STEPS[op.kind](e, op, part, h, c)
        made.append(h)
    made = made[::-1] if op.reverse else made
    if op.with_cell:
        assert c is not None
        made.append(c)
    w.define(op.output, _packed(e, made), _TIME_MAJOR)


def _linear(e: Emitter, x: int, weight: ops.FloatArray, bias: ops.FloatArray) -> int:
    options = activated(schema.FullyConnectedOptionsT, "none")
    shape = (e.shape(x)[0], len(bias))
    return e.emit(Operator.FULLY_CONNECTED, (x, *e.weights(weight, bias)), shape, options)


def _unpacked(e: Emitter, x: int) -> tuple[int, ...]:
    count, *shape = e.shape(x)
    options = schema.UnpackOptionsT()
    options.num, options.axis = count, 0
    results = (((*shape,), "float32"),) * count
    return e.emit_all(Operator.UNPACK, (x,), results, options)


def _packed(e: Emitter, parts: list[int]) -> int:
    options = schema.PackOptionsT()
    options.valuesCount, options.axis = len(parts), 0
    return e.emit(Operator.PACK, parts, (len(parts), *e.shape(parts[0])), options)


def _gates(e: Emitter, x: int, count: int) -> tuple[int, ...]:
    batch, rows = e.shape(x)
    options = schema.SplitOptionsT()
    options.numSplits = count
    results = (((batch, rows // count), "float32"),) * count
    return e.emit_all(Operator.SPLIT, (e.ints((1,)), x), results, options)


def _gate(e: Emitter, x: int, at: int, hidden: int) -> int:
    return e.slice(x, (0, at * hidden), (e.shape(x)[0], hidden))


def _sum_of_gates(e: Emitter, op: ops.Recurrent, given: int, h: int | None) -> int:
    if h is None:
        return given
    zeros = np.zeros(op.weight_hh.shape[0], np.float32)
    return e.add(given, _linear(e, h, op.weight_hh, zeros))


def _lstm_step(
    e: Emitter, op: ops.Recurrent, given: int, h: int | None, c: int | None
) -> tuple[int, int]:
    """c = σ(f) c₀ + σ(i) tanh(g); h = σ(o) tanh(c)"""
    total = _sum_of_gates(e, op, given, h)
    if c is None:  # what nobody reads has no memory, which quantisers look for
        i, g, o = (_gate(e, total, at, op.hidden) for at in (0, 2, 3))
        new = e.mul(e.unary(Operator.LOGISTIC, i), e.unary(Operator.TANH, g))
    else:
        i, f, g, o = _gates(e, total, 4)
        kept = e.mul(e.unary(Operator.LOGISTIC, f), c)
        new = e.add(kept, e.mul(e.unary(Operator.LOGISTIC, i), e.unary(Operator.TANH, g)))
    return e.mul(e.unary(Operator.LOGISTIC, o), e.unary(Operator.TANH, new)), new


def _gru_step(
    e: Emitter, op: ops.Recurrent, given: int, h: int | None, c: int | None
) -> tuple[int, None]:
    """n = tanh(xₙ + σ(r) hₙ); h = n + σ(z) (h₀ − n)"""
    xr, xz, xn = _gates(e, given, 3)
    if h is None:
        hr, hz, hn = (e.constant(part, "state_bias") for part in np.split(op.biases[1], 3))
    else:
        hr, hz, hn = _gates(e, _linear(e, h, op.weight_hh, op.biases[1]), 3)
    r = e.unary(Operator.LOGISTIC, e.add(xr, hr))
    z = e.unary(Operator.LOGISTIC, e.add(xz, hz))
    n = e.unary(Operator.TANH, e.add(xn, e.mul(r, hn)))
    if h is None:
        return e.binary(Operator.SUB, n, e.mul(z, n)), None
    return e.add(n, e.mul(z, e.binary(Operator.SUB, h, n))), None


def _rnn_step(
    e: Emitter, op: ops.Recurrent, given: int, h: int | None, c: int | None
) -> tuple[int, None]:
    total = _sum_of_gates(e, op, given, h)
    return e.unary(Operator.TANH if op.kind == "rnn_tanh" else Operator.RELU, total), None


_STEPS = {"lstm": _lstm_step, "gru": _gru_step, "rnn_tanh": _rnn_step, "rnn_relu": _rnn_step}
