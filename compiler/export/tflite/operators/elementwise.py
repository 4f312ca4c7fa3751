"""Unary, Binary, Compare and Where.

They run on the tensor as it is stored: a value that is a mere view (transposed, reshaped) stays
one. Kinds without an operator of their own are composed of few, each stable over all of float32.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.emit import Emitter, Operator
from shrinkc.compiler.export.tflite.layout import MAX_RANK
from shrinkc.compiler.export.tflite.ranks import merged
from shrinkc.compiler.export.tflite.writer import View, Writer

_NATIVE: dict[ops.UnaryKind, int] = {
    "relu": Operator.RELU,
    "relu6": Operator.RELU6,
    "elu": Operator.ELU,
    "sigmoid": Operator.LOGISTIC,
    "tanh": Operator.TANH,
    "hard_swish": Operator.HARD_SWISH,
    "sqrt": Operator.SQRT,
    "rsqrt": Operator.RSQRT,
    "exp": Operator.EXP,
    "log": Operator.LOG,
    "abs": Operator.ABS,
    "neg": Operator.NEG,
    "sign": Operator.SIGN,
    "floor": Operator.FLOOR,
    "ceil": Operator.CEIL,
    "round": Operator.ROUND,
    "sin": Operator.SIN,
    "cos": Operator.COS,
}
_BINARY: dict[ops.BinaryKind, int] = {
    "add": Operator.ADD,
    "sub": Operator.SUB,
    "mul": Operator.MUL,
    "div": Operator.DIV,
    "pow": Operator.POW,
    "remainder": Operator.FLOOR_MOD,
    "atan2": Operator.ATAN2,
    "maximum": Operator.MAXIMUM,
    "minimum": Operator.MINIMUM,
}
_COMPARISONS: dict[ops.ComparisonKind, int] = {
    "greater": Operator.GREATER,
    "greater_equal": Operator.GREATER_EQUAL,
    "equal": Operator.EQUAL,
    "not_equal": Operator.NOT_EQUAL,
}
_FEW = 4  # dimensions that most operators outside XNNPACK broadcast
_WHERE_RANK = 5
_CLIPS = {
    (0.0, inf): Operator.RELU,
    (0.0, 6.0): Operator.RELU6,
    (-1.0, 1.0): Operator.RELU_N1_TO_1,
}


def write_unary(w: Writer, op: ops.Unary) -> None:
    view = w.view(op.x)
    if op.kind in _COMPOSED:
        result = _COMPOSED[op.kind](w.emit, view.tensor, op.parameters)
    else:
        result = w.emit.unary(_NATIVE[op.kind], view.tensor)
    w.define_view(op.output, View(result, view.layout))


def leaky_relu(e: Emitter, x: int, slope: float) -> int:
    options = schema.LeakyReluOptionsT()
    options.alpha = slope
    return e.unary(Operator.LEAKY_RELU, x, options)


def _elu(e: Emitter, x: int, parameters: tuple[float, ...]) -> int:
    """alpha · (exp(x) − 1) below 0: TFLite's ELU has alpha 1, so scale what is negative."""
    unit = e.unary(Operator.ELU, x)
    return unit if parameters[0] == 1 else leaky_relu(e, unit, parameters[0])


def _hard_sigmoid(e: Emitter, x: int, _: tuple[float, ...]) -> int:
    return e.mul(e.add(x, e.scalar(3.0), "relu6"), e.scalar(1 / 6))


def _silu(e: Emitter, x: int, _: tuple[float, ...]) -> int:
    return e.mul(x, e.unary(Operator.LOGISTIC, x))


def _mish(e: Emitter, x: int, _: tuple[float, ...]) -> int:
    """x · tanh(ln(1 + eˣ)) = x · n / (n + 2), n = eˣ (eˣ + 2); the ratio is 1 from x = 20 on."""
    power = e.unary(Operator.EXP, e.binary(Operator.MINIMUM, x, e.scalar(20.0)))
    n = e.mul(power, e.add(power, e.scalar(2.0)))
    return e.mul(x, e.binary(Operator.DIV, n, e.add(n, e.scalar(2.0))))


def _softplus(e: Emitter, x: int, _: tuple[float, ...]) -> int:
    """ln(1 + eˣ) = max(x, 0) − ln(sigmoid(|x|)): nothing overflows."""
    rest = e.unary(Operator.LOG, e.unary(Operator.LOGISTIC, e.unary(Operator.ABS, x)))
    return e.binary(Operator.SUB, e.unary(Operator.RELU, x), rest)


def _gelu(e: Emitter, x: int, approximate: bool) -> int:
    options = schema.GeluOptionsT()
    options.approximate = approximate
    return e.unary(Operator.GELU, x, options)


def _clip(e: Emitter, x: int, parameters: tuple[float, ...]) -> int:
    low, high = parameters
    if (low, high) in _CLIPS:
        return e.unary(_CLIPS[low, high], x)
    if low == 0:
        x = e.unary(Operator.RELU, x)
    elif low > -inf:
        x = e.binary(Operator.MAXIMUM, x, e.scalar(low))
    return e.binary(Operator.MINIMUM, x, e.scalar(high)) if high < inf else x


# erf(x) ≈ x · P(x²) / Q(x²) on [−4, 4], the rational approximation of Eigen and XLA for float32.
_ERF_P = (
    *(-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06),
    *(-5.69250639462346e-05, -7.34990630326855e-04, -2.95459980854025e-03),
    -1.60960333262415e-02,
)
_ERF_Q = (
    *(-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03),
    *(-7.37332916720468e-03, -1.42647390514189e-02),
)


def _erf(e: Emitter, x: int, _: tuple[float, ...]) -> int:
    x = _clip(e, x, (-4.0, 4.0))
    square = e.mul(x, x)
    ratio = e.binary(Operator.DIV, _horner(e, square, _ERF_P), _horner(e, square, _ERF_Q))
    return e.mul(x, ratio)


def _horner(e: Emitter, x: int, coefficients: tuple[float, ...]) -> int:
    first, second, *rest = coefficients
    total = e.add(e.mul(x, e.scalar(first)), e.scalar(second))
    for coefficient in rest:
        total = e.add(e.mul(total, x), e.scalar(coefficient))
    return total


def _trunc(e: Emitter, x: int, _: tuple[float, ...]) -> int:
    whole = e.unary(Operator.FLOOR, e.unary(Operator.ABS, x))
    return e.mul(whole, e.unary(Operator.SIGN, x))


def _log1p(e: Emitter, x: int, _: tuple[float, ...]) -> int:
    """2 · artanh(s), s = x / (2 + x), by its series where |x| < 0.3; else ln(1 + x), which XNNPACK
    knows to 6e-8 only where it is near 0."""
    s = e.binary(Operator.DIV, x, e.add(x, e.scalar(2.0)))
    series = e.mul(s, _horner(e, e.mul(s, s), (2 / 9, 2 / 7, 2 / 5, 2 / 3, 2.0)))
    far = e.compare(Operator.GREATER, e.unary(Operator.ABS, x), e.scalar(0.3))
    log = e.unary(Operator.LOG, e.add(x, e.scalar(1.0)))
    return e.select(far, log, series)


def _expm1(e: Emitter, x: int, _: tuple[float, ...]) -> int:
    """exp(x) − 1 = tanh(x/2) · (exp(x) + 1): nothing cancels."""
    half = e.unary(Operator.TANH, e.mul(x, e.scalar(0.5)))
    return e.mul(half, e.add(e.unary(Operator.EXP, x), e.scalar(1.0)))


def _atan(e: Emitter, x: int, _: tuple[float, ...]) -> int:
    return e.binary(Operator.ATAN2, x, e.constant(np.ones(e.shape(x), np.float32), "ones"))


_COMPOSED: dict[ops.UnaryKind, Callable[[Emitter, int, tuple[float, ...]], int]] = {
    "leaky_relu": lambda e, x, parameters: leaky_relu(e, x, parameters[0]),
    "elu": _elu,
    "hard_sigmoid": _hard_sigmoid,
    "silu": _silu,
    "mish": _mish,
    "gelu": lambda e, x, _: _gelu(e, x, False),
    "gelu_tanh": lambda e, x, _: _gelu(e, x, True),
    "softplus": _softplus,
    "clip": _clip,
    "erf": _erf,
    "trunc": _trunc,
    "log1p": _log1p,
    "expm1": _expm1,
    "atan": _atan,
}


# --- several operands ----------------------------------------------------------------------------


def write_binary(w: Writer, op: ops.Binary) -> None:
    few = op.kind in ("pow", "remainder")

    def apply(a: int, b: int) -> int:
        if op.kind == "atan2":  # takes two of the same shape
            shape = np.broadcast_shapes(w.emit.shape(a), w.emit.shape(b))
            a, b = (w.emit.broadcast(x, shape) for x in (a, b))
        return w.emit.binary(_BINARY[op.kind], a, b, op.activation)

    _write(w, op.output, (op.a, op.b), _within(w, op.kind, _FEW if few else MAX_RANK, apply))


def write_compare(w: Writer, op: ops.Compare) -> None:
    def apply(a: int, b: int) -> int:
        truth = w.emit.compare(_COMPARISONS[op.kind], a, b)
        result = w.emit.cast(truth, op.output.dtype)
        w.truths[result] = truth
        return result

    _write(w, op.output, (op.a, op.b), _within(w, op.kind, _FEW, apply))


def write_where(w: Writer, op: ops.Where) -> None:
    def apply(condition: int, a: int, b: int) -> int:
        truth = w.truths.get(condition)
        if truth is None:
            truth = w.emit.compare(Operator.NOT_EQUAL, condition, w.emit.scalar(0.0))
        return w.emit.select(truth, a, b)

    _write(w, op.output, (op.condition, op.a, op.b), _within(w, "where", _WHERE_RANK, apply))


def _write(
    w: Writer,
    output: ops.Value,
    given: tuple[ops.Operand, ...],
    apply: Callable[..., int],
) -> None:
    """`apply` the operator to tensors that lie alike; numbers have no dimensions."""
    operands = [w.resolve(x) for x in given]
    rank = len(output.shape)
    values = [x for x in operands if not _is_number(x)]
    if values and all(_alike(w, values[0], x, rank) for x in values[1:]):
        view = w.view(values[0], rank)
        tensors = [_number(w, x) if _is_number(x) else w.view(x, rank).tensor for x in operands]
        w.define_view(output, View(apply(*tensors), view.layout))
    else:
        order = w.common_order(operands, rank)
        tensors = [w.arrange(x, order, exact=False) for x in operands]
        w.define(output, apply(*tensors), order)


def _within(w: Writer, kind: str, limit: int, apply: Callable[..., int]) -> Callable[..., int]:
    """`apply` to tensors that broadcast at most `limit` dimensions: neighbours that all of them
    have, or that one of them repeats, are taken as one."""

    def limited(*tensors: int) -> int:
        shapes = [w.emit.shape(x) for x in tensors]
        wide = {shape for shape in shapes if shape != ()}
        if len(wide) < 2 or max(map(len, wide)) <= limit:
            return apply(*tensors)
        shape = np.broadcast_shapes(*shapes)
        fewer = merged(shapes, shape)
        if len(fewer[0]) > limit:
            raise w.unsupported(f"{kind} broadcasts at most {limit} dimensions")
        flat = (
            x if old == () else w.emit.reshape(x, new)
            for x, old, new in zip(tensors, shapes, fewer, strict=True)
        )
        return w.emit.reshape(apply(*flat), shape)

    return limited


def _alike(w: Writer, a: ops.Operand, b: ops.Operand, rank: int) -> bool:
    first, second = w.view(a, rank), w.view(b, rank)
    same_shape = w.emit.shape(first.tensor) == w.emit.shape(second.tensor)
    return same_shape and first.layout == second.layout


def _is_number(operand: ops.Operand) -> bool:
    return isinstance(operand, ops.Const) and operand.array.size == 1


def _number(w: Writer, operand: ops.Operand) -> int:
    assert isinstance(operand, ops.Const)
    return w.emit.builder.constant(operand.name, operand.array.reshape(()))
