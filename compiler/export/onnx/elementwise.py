"""Unary, Binary, Compare, Where, PRelu, Integers and Constant as ONNX."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.onnx.writer import Writer

_UNARY: dict[str, tuple[str, tuple[str, ...]]] = {
    "relu": ("Relu", ()),
    "leaky_relu": ("LeakyRelu", ("alpha",)),
    "elu": ("Elu", ("alpha",)),
    "sigmoid": ("Sigmoid", ()),
    "tanh": ("Tanh", ()),
    "softplus": ("Softplus", ()),
    "sqrt": ("Sqrt", ()),
    "exp": ("Exp", ()),
    "log": ("Log", ()),
    "abs": ("Abs", ()),
    "neg": ("Neg", ()),
    "sign": ("Sign", ()),
    "erf": ("Erf", ()),
    "floor": ("Floor", ()),
    "ceil": ("Ceil", ()),
    "round": ("Round", ()),
    "sin": ("Sin", ()),
    "cos": ("Cos", ()),
    "atan": ("Atan", ()),
}


def _relu6(w: Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    _clip(w, out, x, (0.0, 6.0))


def _clip(w: Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    low, high = p
    limits = [
        "" if math.isinf(low) else w.scalar(out, "low", low),
        "" if math.isinf(high) else w.scalar(out, "high", high),
    ]
    w.node("Clip", [x, *limits], out)


def _hard_sigmoid(w: Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    w.node("HardSigmoid", [x], out, alpha=1 / 6, beta=0.5)


def _hard_swish(w: Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    if w.opset >= 14:
        w.node("HardSwish", [x], out)
        return
    _hard_sigmoid(w, f"{out}/gate", x, ())
    w.node("Mul", [x, f"{out}/gate"], out)


def _silu(w: Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    gate = w.node("Sigmoid", [x], f"{out}/gate")
    w.node("Mul", [x, gate], out)


def _mish(w: Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    """x · tanh(ln(1 + eˣ)) = x · n / (n + 2), n = eˣ (eˣ + 2); the ratio is 1 from x = 20
    on. ONNX Runtime's own Softplus takes several times as long."""
    two = w.scalar(out, "two", 2.0)
    limited = w.node("Min", [x, w.scalar(out, "limit", 20.0)], f"{out}/limited")
    power = w.node("Exp", [limited], f"{out}/power")
    n = w.node("Mul", [power, w.node("Add", [power, two], f"{out}/sum")], f"{out}/n")
    gate = w.node("Div", [n, w.node("Add", [n, two], f"{out}/divisor")], f"{out}/gate")
    w.node("Mul", [x, gate], out)


def _gelu(w: Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    """x/2 · (1 + erf(x/√2)), in the form that ONNX Runtime fuses"""
    scaled = w.node("Div", [x, w.scalar(out, "root2", math.sqrt(2))], f"{out}/scaled")
    _halved(w, out, x, w.node("Erf", [scaled], f"{out}/erf"))


def _gelu_tanh(w: Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    """x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), in the form that ONNX Runtime fuses"""
    cube = w.node("Pow", [x, w.scalar(out, "three", 3.0)], f"{out}/cube")
    small = w.node("Mul", [cube, w.scalar(out, "c3", 0.044715)], f"{out}/small")
    total = w.node("Add", [x, small], f"{out}/total")
    inner = w.node("Mul", [total, w.scalar(out, "c1", math.sqrt(2 / math.pi))], f"{out}/inner")
    _halved(w, out, x, w.node("Tanh", [inner], f"{out}/tanh"))


def _halved(w: Writer, out: str, x: str, gate: str) -> None:
    half = w.node("Mul", [x, w.scalar(out, "half", 0.5)], f"{out}/halved")
    shifted = w.node("Add", [gate, w.scalar(out, "one", 1.0)], f"{out}/shifted")
    w.node("Mul", [half, shifted], out)


def _rsqrt(w: Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    w.node("Reciprocal", [w.node("Sqrt", [x], f"{out}/sqrt")], out)


def _trunc(w: Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    whole = w.node("Floor", [w.node("Abs", [x], f"{out}/abs")], f"{out}/floor")
    w.node("Mul", [whole, w.node("Sign", [x], f"{out}/sign")], out)


def _log1p(w: Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    """x · ln(u) / (u − 1) for u = 1 + x: its rounding is that of the quotient (Kahan); x where u
    is 1."""
    one = w.scalar(out, "one", 1.0)
    u = w.node("Add", [x, one], f"{out}/u")
    step = w.node("Sub", [u, one], f"{out}/step")
    none = w.node("Equal", [step, w.scalar(out, "zero", 0.0)], f"{out}/none")
    safe = w.node("Where", [none, one, step], f"{out}/safe")
    slope = w.node("Div", [w.node("Log", [u], f"{out}/log"), safe], f"{out}/slope")
    w.node("Mul", [x, w.node("Where", [none, one, slope], f"{out}/factor")], out)


def _expm1(w: Writer, out: str, x: str, p: tuple[float, ...]) -> None:
    """exp(x) − 1 = tanh(x/2) · (exp(x) + 1): nothing cancels"""
    half = w.node("Mul", [x, w.scalar(out, "half", 0.5)], f"{out}/halved")
    more = w.node("Add", [w.node("Exp", [x], f"{out}/exp"), w.scalar(out, "one", 1.0)], f"{out}/p1")
    w.node("Mul", [w.node("Tanh", [half], f"{out}/tanh"), more], out)


_COMPOSED: dict[str, Callable[[Writer, str, str, tuple[float, ...]], None]] = {
    "clip": _clip,
    "relu6": _relu6,
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": _hard_swish,
    "silu": _silu,
    "mish": _mish,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "rsqrt": _rsqrt,
    "trunc": _trunc,
    "log1p": _log1p,
    "expm1": _expm1,
}
_BINARY = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "pow": "Pow",
    "maximum": "Max",
    "minimum": "Min",
}


def activated(w: Writer, op: Any, write: Callable[[str], object]) -> None:
    """`write` the operator, then its fused activation."""
    final = op.output.name
    if op.activation == "none":
        write(final)
        return
    before = f"{final}/linear"
    write(before)
    unary(w, final, before, op.activation, ())


def unary(w: Writer, out: str, x: str, kind: str, p: tuple[float, ...]) -> None:
    """An operator on every element alone, with its parameters."""
    simple = _UNARY.get(kind)
    if simple is not None:
        operator, attributes = simple
        w.node(operator, [x], out, **dict(zip(attributes, p, strict=True)))
    else:
        _COMPOSED[kind](w, out, x, p)


def write_unary(w: Writer, op: ops.Unary) -> None:
    unary(w, op.output.name, op.x.name, op.kind, op.parameters)


def write_binary(w: Writer, op: ops.Binary) -> None:
    operands = [w.operand(op.a), w.operand(op.b)]
    if op.kind in _COMPOSED_BINARY:
        write = _COMPOSED_BINARY[op.kind]
        activated(w, op, lambda out: write(w, out, *operands))
    else:
        activated(w, op, lambda out: w.node(_BINARY[op.kind], operands, out))


def _remainder(w: Writer, out: str, a: str, b: str) -> None:
    """Mod leaves the sign of a."""
    rest = w.node("Mod", [a, b], f"{out}/rest", fmod=1)
    signs = w.node("Mul", [w.node("Sign", [rest], f"{out}/sign"), b], f"{out}/signs")
    other = w.node("Less", [signs, w.scalar(out, "zero", 0.0)], f"{out}/other")
    w.node("Where", [other, w.node("Add", [rest, b], f"{out}/moved"), rest], out)


def _atan2(w: Writer, out: str, y: str, x: str) -> None:
    """The angle within an eighth of the circle, of the shorter leg to the longer one, moved to
    where it is. 1 / x tells −0 from 0."""
    zero, tiny = w.scalar(out, "zero", 0.0), w.scalar(out, "tiny", float(np.finfo("f").tiny))
    legs = {name: w.node("Abs", [leg], f"{out}/{name}") for name, leg in (("ay", y), ("ax", x))}
    short = w.node("Min", [*legs.values()], f"{out}/short")
    long = w.node("Max", [*legs.values(), tiny], f"{out}/long")
    eighth = w.node("Atan", [w.node("Div", [short, long], f"{out}/ratio")], f"{out}/eighth")
    steep = w.node("Greater", [legs["ay"], legs["ax"]], f"{out}/steep")
    rest = w.node("Sub", [w.scalar(out, "quarter", math.pi / 2), eighth], f"{out}/rest")
    quarter = w.node("Where", [steep, rest, eighth], f"{out}/angle")

    def negative(name: str, leg: str) -> str:
        inverse = w.node("Reciprocal", [leg], f"{out}/{name}_inverse")
        return w.node("Less", [inverse, zero], f"{out}/{name}")

    other = w.node("Sub", [w.scalar(out, "half", math.pi), quarter], f"{out}/other")
    half = w.node("Where", [negative("left", x), other, quarter], f"{out}/above")
    below = w.node("Neg", [half], f"{out}/below")
    w.node("Where", [negative("down", y), below, half], out)


_COMPOSED_BINARY: dict[str, Callable[[Writer, str, str, str], None]] = {
    "remainder": _remainder,
    "atan2": _atan2,
}
_COMPARISONS = {"greater": "Greater", "greater_equal": "GreaterOrEqual"}


def write_compare(w: Writer, op: ops.Compare) -> None:
    out, operands = op.output.name, [w.operand(op.a), w.operand(op.b)]
    truth = out if op.output.dtype == "bool" else f"{out}/truth"
    if op.kind == "not_equal":
        w.node("Not", [w.node("Equal", operands, f"{out}/equal")], truth)
    else:
        w.node(_COMPARISONS.get(op.kind, "Equal"), operands, truth)
    if truth != out:
        w.truths[out] = truth
        w.cast(truth, out, "float32")


def write_where(w: Writer, op: ops.Where) -> None:
    out, condition = op.output.name, w.operand(op.condition)
    truth = w.truths.get(condition) or w.cast(condition, f"{out}/truth", "bool")
    w.node("Where", [truth, w.operand(op.a), w.operand(op.b)], out)


def write_integers(w: Writer, op: ops.Integers) -> None:
    w.cast(op.x.name, op.output.name, op.output.dtype)
    if op.x.dtype in ("int64", "int32"):
        w.whole[op.output.name] = op.x.name


def write_constant(w: Writer, op: ops.Constant) -> None:
    array = op.array.astype(op.output.dtype)
    w.node("Identity", [w.array(f"{op.output.name}/value", array)], op.output.name)


def write_prelu(w: Writer, op: ops.PRelu) -> None:
    per_channel = op.slope.size > 1
    shape = (-1, *(1,) * (len(op.x.shape) - 2)) if per_channel else (1,)
    slope = w.array(f"{op.name}.slope", op.slope.reshape(shape))
    w.node("PRelu", [op.x.name, slope], op.output.name)
