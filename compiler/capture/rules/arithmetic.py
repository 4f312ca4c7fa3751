"""Arithmetic, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context
from shrinkc.passes import ir


def _binary(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(c: Context, a: Any, b: Any) -> Any:
        return c.b.call(function, c.operand(a), c.operand(b))

    return rule


def _unary(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(c: Context, x: Any) -> Any:
        return c.b.call(function, c.tensor(x))

    return rule


def add(c: Context, a: Any, b: Any, alpha: float = 1) -> fx.Node:
    return c.b.call(ir.add, c.operand(a), scaled(c, b, alpha))


def sub(c: Context, a: Any, b: Any, alpha: float = 1) -> fx.Node:
    return c.b.call(ir.sub, c.operand(a), scaled(c, b, alpha))


def rsub(c: Context, a: Any, b: Any, alpha: float = 1) -> fx.Node:
    return c.b.call(ir.sub, c.operand(b), scaled(c, a, alpha))


def scaled(c: Context, value: Any, alpha: float) -> Any:
    operand = c.operand(value)
    return operand if alpha == 1 else c.b.call(ir.mul, operand, alpha)


def div(c: Context, a: Any, b: Any, rounding_mode: str | None = None) -> fx.Node:
    if rounding_mode is not None:
        raise c.unsupported(f"rounding_mode={rounding_mode}")
    return c.b.call(ir.div, c.operand(a), c.operand(b))


def pow_(c: Context, x: Any, exponent: Any) -> fx.Node:
    return c.b.call(ir.pow_, c.operand(x), c.operand(exponent))


def square(c: Context, x: Any) -> fx.Node:
    return c.b.call(ir.pow_, c.tensor(x), 2)


def reciprocal(c: Context, x: Any) -> fx.Node:
    return c.b.call(ir.div, 1.0, c.tensor(x))


def clamp(c: Context, x: Any, min: float | None = None, max: float | None = None) -> fx.Node:
    low, high = (_number(c, limit) for limit in (min, max))
    return c.b.call(ir.clamp, c.tensor(x), low, high)


def clamp_max(c: Context, x: Any, max: float) -> fx.Node:
    return clamp(c, x, None, max)


def _number(c: Context, value: Any) -> float | None:
    if isinstance(value, Constant) and value.tensor.numel() == 1:
        return float(value.tensor)
    if value is None or isinstance(value, (int, float)):
        return value
    raise c.unsupported("a limit that is not a number")


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
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "clamp": clamp,
    "clip": clamp,
    "clamp_min": clamp,
    "clamp_max": clamp_max,
    "sqrt": _unary(torch.sqrt),
    "rsqrt": _unary(torch.rsqrt),
    "exp": _unary(torch.exp),
    "log": _unary(torch.log),
    "abs": _unary(torch.abs),
    "neg": _unary(ir.neg),
    "erf": _unary(torch.erf),
    "addcmul": addcmul,
}
