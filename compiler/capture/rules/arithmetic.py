"""Arithmetic and functions, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from shrinkc.compiler.capture.builder import Expanded
from shrinkc.compiler.capture.context import Context
from shrinkc.passes import ir


def _binary(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(c: Context, a: Any, b: Any) -> Any:
        return c.b.call(function, c.operand(a), c.operand(b))

    return rule


def _extreme(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of two tensors, one of which may be a number."""

    def rule(c: Context, a: Any, b: Any) -> Any:
        return c.b.call(function, c.tensor(_kept(a)), c.tensor(_kept(b)))

    return rule


def _kept(value: Any) -> Any:
    return value.node if isinstance(value, Expanded) else value


def _unary(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(c: Context, x: Any) -> Any:
        return c.b.call(function, c.tensor(x))

    return rule


def _times(factor: float, function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(c: Context, x: Any) -> fx.Node:
        return c.b.call(ir.mul, c.b.call(function, c.tensor(x)), factor)

    return rule


def add(c: Context, a: Any, b: Any, alpha: float = 1) -> fx.Node:
    if c.out_dtype == torch.bool:  # one of the two
        return c.b.call(torch.maximum, c.tensor(a), c.tensor(b))
    return c.b.call(ir.add, c.operand(a), scaled(c, b, alpha))


def sub(c: Context, a: Any, b: Any, alpha: float = 1) -> fx.Node:
    return c.b.call(ir.sub, c.operand(a), scaled(c, b, alpha))


def rsub(c: Context, a: Any, b: Any, alpha: float = 1) -> fx.Node:
    return c.b.call(ir.sub, c.operand(b), scaled(c, a, alpha))


def scaled(c: Context, value: Any, alpha: float) -> Any:
    operand = c.operand(value)
    return operand if alpha == 1 else c.b.call(ir.mul, operand, alpha)


def div(c: Context, a: Any, b: Any, rounding_mode: str | None = None) -> fx.Node:
    if rounding_mode == "floor":
        return floor_divide(c, a, b)
    ratio = c.b.call(ir.div, c.operand(a), c.operand(b))
    return ratio if rounding_mode is None else c.b.call(torch.trunc, ratio)


def floor_divide(c: Context, a: Any, b: Any) -> fx.Node:
    """(a − a mod b) / b, which is whole but for rounding, as PyTorch has it: ⌊a / b⌋ is another
    number where the quotient is rounded up."""
    a, b = c.operand(a), c.operand(b)
    multiple = c.b.call(ir.sub, a, c.b.call(torch.remainder, a, b))
    return c.b.call(torch.round, c.b.call(ir.div, multiple, b))


def fmod(c: Context, a: Any, b: Any) -> fx.Node:
    """With the sign of a: sgn(a) · (|a| mod |b|)"""
    x, y = c.tensor(a), c.operand(b)
    size = abs(y) if isinstance(y, (int, float)) else c.b.call(torch.abs, y)
    rest = c.b.call(torch.remainder, c.b.call(torch.abs, x), size)
    return c.b.call(ir.mul, c.b.call(torch.sign, x), rest)


def frac(c: Context, x: Any) -> fx.Node:
    x = c.tensor(x)
    return c.b.call(ir.sub, x, c.b.call(torch.trunc, x))


def round_(c: Context, x: Any, decimals: int = 0) -> fx.Node:
    """Halves to the even neighbour."""
    x = c.tensor(x)
    if decimals == 0:
        return c.b.call(torch.round, x)
    scaled_up = c.b.call(ir.mul, x, 10.0**decimals)
    return c.b.call(ir.div, c.b.call(torch.round, scaled_up), 10.0**decimals)


def exp2(c: Context, x: Any) -> fx.Node:
    return c.b.call(ir.pow_, 2.0, c.tensor(x))


def tan(c: Context, x: Any) -> fx.Node:
    x = c.tensor(x)
    return c.b.call(ir.div, c.b.call(torch.sin, x), c.b.call(torch.cos, x))


def lerp(c: Context, a: Any, b: Any, weight: Any) -> fx.Node:
    """a + weight · (b − a)"""
    a = c.operand(a)
    way = c.b.call(ir.sub, c.operand(b), a)
    return c.b.call(ir.add, a, c.b.call(ir.mul, way, c.operand(weight)))


def hypot(c: Context, a: Any, b: Any) -> fx.Node:
    squares = [c.b.call(ir.pow_, c.tensor(x), 2) for x in (a, b)]
    return c.b.call(torch.sqrt, c.b.call(ir.add, *squares))


def pow_(c: Context, x: Any, exponent: Any) -> fx.Node:
    return c.b.call(ir.pow_, c.operand(x), c.operand(exponent))


def square(c: Context, x: Any) -> fx.Node:
    return c.b.call(ir.pow_, c.tensor(x), 2)


def reciprocal(c: Context, x: Any) -> fx.Node:
    return c.b.call(ir.div, 1.0, c.tensor(x))


def clamp(c: Context, x: Any, min: Any = None, max: Any = None) -> fx.Node:
    """Limits that are numbers, or tensors: of both, the upper one counts."""
    limits = [None if limit is None else c.operand(limit) for limit in (min, max)]
    numbers = [None if isinstance(limit, fx.Node) else limit for limit in limits]
    y = c.tensor(x)
    if isinstance(limits[0], fx.Node):
        y = c.b.call(torch.maximum, y, limits[0])
    if any(number is not None for number in numbers):
        y = c.b.call(ir.clamp, y, *numbers)
    return c.b.call(torch.minimum, y, limits[1]) if isinstance(limits[1], fx.Node) else y


def clamp_max(c: Context, x: Any, max: Any) -> fx.Node:
    return clamp(c, x, None, max)


def addcmul(c: Context, x: Any, a: Any, b: Any, value: float = 1) -> fx.Node:
    product = c.b.call(ir.mul, c.operand(a), c.operand(b))
    return c.b.call(ir.add, c.operand(x), scaled(c, product, value))


RULES: dict[str, Callable[..., Any]] = {
    "add": add,
    "sub": sub,
    "subtract": sub,
    "rsub": rsub,
    "mul": _binary(ir.mul),
    "multiply": _binary(ir.mul),
    "div": div,
    "divide": div,
    "true_divide": div,
    "truediv": div,
    "pow": pow_,
    "square": square,
    "reciprocal": reciprocal,
    "floor_divide": floor_divide,
    "floordiv": floor_divide,
    "remainder": _binary(torch.remainder),
    "mod": _binary(torch.remainder),
    "fmod": fmod,
    "maximum": _extreme(torch.maximum),
    "fmax": _extreme(torch.maximum),
    "minimum": _extreme(torch.minimum),
    "fmin": _extreme(torch.minimum),
    "clamp": clamp,
    "clip": clamp,
    "clamp_min": clamp,
    "clamp_max": clamp_max,
    **{name: _unary(function) for name, function in ir.UNARY.items()},
    "negative": _unary(ir.neg),
    "absolute": _unary(torch.abs),
    "fix": _unary(torch.trunc),
    "sgn": _unary(torch.sign),
    "round": round_,
    "frac": frac,
    "exp2": exp2,
    "log2": _times(1 / math.log(2), torch.log),
    "log10": _times(1 / math.log(10), torch.log),
    "tan": tan,
    "lerp": lerp,
    "hypot": hypot,
    "addcmul": addcmul,
}
