"""Functions of numbers, element by element, that runtimes lack: said with those they have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.rules.arithmetic import scaled
from shrinkc.passes import ir


def sinh(c: Context, x: Any) -> fx.Node:
    """(eˣ − e⁻ˣ) / 2 by differences from 1, so that nothing cancels near 0"""
    x = c.tensor(x)
    up, down = c.b.call(torch.expm1, x), c.b.call(torch.expm1, c.b.call(ir.neg, x))
    return c.b.call(ir.mul, c.b.call(ir.sub, up, down), 0.5)


def cosh(c: Context, x: Any) -> fx.Node:
    """(eˣ + e⁻ˣ) / 2"""
    x = c.tensor(x)
    up, down = c.b.call(torch.exp, x), c.b.call(torch.exp, c.b.call(ir.neg, x))
    return c.b.call(ir.mul, c.b.call(ir.add, up, down), 0.5)


def asinh(c: Context, x: Any) -> fx.Node:
    """sgn(x) · ln(1 + a + a² / (1 + √(1 + a²))), a = |x|"""
    x = c.tensor(x)
    size = c.b.call(torch.abs, x)
    square = c.b.call(ir.mul, size, size)
    root = c.b.call(torch.sqrt, c.b.call(ir.add, square, 1))
    more = c.b.call(ir.div, square, c.b.call(ir.add, root, 1))
    grown = c.b.call(torch.log1p, c.b.call(ir.add, size, more))
    return c.b.call(ir.mul, c.b.call(torch.sign, x), grown)


def acosh(c: Context, x: Any) -> fx.Node:
    """ln(1 + t + √(t (t + 2))), t = x − 1"""
    t = c.b.call(ir.sub, c.tensor(x), 1)
    root = c.b.call(torch.sqrt, c.b.call(ir.mul, t, c.b.call(ir.add, t, 2)))
    return c.b.call(torch.log1p, c.b.call(ir.add, t, root))


def atanh(c: Context, x: Any) -> fx.Node:
    """½ ln(1 + 2x / (1 − x))"""
    x = c.tensor(x)
    ratio = c.b.call(ir.div, c.b.call(ir.mul, x, 2), c.b.call(ir.sub, 1, x))
    return c.b.call(ir.mul, c.b.call(torch.log1p, ratio), 0.5)


def atan2(c: Context, y: Any, x: Any) -> fx.Node:
    return c.b.call(torch.atan2, c.tensor(y), c.tensor(x))


def asin(c: Context, x: Any) -> fx.Node:
    """The angle of (√(1 − x²), x)"""
    x = c.tensor(x)
    return c.b.call(torch.atan2, x, _other_leg(c, x))


def acos(c: Context, x: Any) -> fx.Node:
    """The angle of (x, √(1 − x²))"""
    x = c.tensor(x)
    return c.b.call(torch.atan2, _other_leg(c, x), x)


ROUNDING = 1e-6


def _other_leg(c: Context, x: fx.Node) -> fx.Node:
    """√(1 − x²), not a number beyond 1 but for rounding: a runtime's tanh may be 1.0000001."""
    square = c.b.call(ir.mul, c.b.call(ir.sub, 1, x), c.b.call(ir.add, x, 1))
    rounded = c.b.call(ir.where, c.b.call(ir.greater, square, -ROUNDING), 0.0, square)
    return c.b.call(
        torch.sqrt, c.b.call(ir.where, c.b.call(ir.greater, square, 0), square, rounded)
    )


def erfc(c: Context, x: Any) -> fx.Node:
    return c.b.call(ir.sub, 1, c.b.call(torch.erf, c.tensor(x)))


def logit(c: Context, x: Any, eps: float | None = None) -> fx.Node:
    """ln(x / (1 − x))"""
    x = c.tensor(x)
    x = x if eps is None else c.b.call(ir.clamp, x, eps, 1 - eps)
    return c.b.call(torch.log, c.b.call(ir.div, x, c.b.call(ir.sub, 1, x)))


def logaddexp(c: Context, a: Any, b: Any) -> fx.Node:
    """The larger + ln(1 + exp(−|a − b|))"""
    a, b = c.tensor(a), c.tensor(b)
    apart = c.b.call(torch.abs, c.b.call(ir.sub, a, b))
    rest = c.b.call(torch.log1p, c.b.call(torch.exp, c.b.call(ir.neg, apart)))
    return c.b.call(ir.add, c.b.call(torch.maximum, a, b), rest)


def sinc(c: Context, x: Any) -> fx.Node:
    """sin(πx) / (πx), 1 at 0"""
    angle = c.b.call(ir.mul, c.tensor(x), math.pi)
    nowhere = c.b.call(ir.equal, angle, 0)
    safe = c.b.call(ir.add, angle, nowhere)
    return c.b.call(ir.where, nowhere, 1.0, c.b.call(ir.div, c.b.call(torch.sin, angle), safe))


def nan_to_num(
    c: Context, x: Any, nan: float | None = None, posinf: Any = None, neginf: Any = None
) -> fx.Node:
    x, limits = c.tensor(x), torch.finfo(torch.float32)
    known = c.b.call(ir.where, c.b.call(ir.not_equal, x, x), nan or 0.0, x)
    high = limits.max if posinf is None else posinf
    low = limits.min if neginf is None else neginf
    known = c.b.call(ir.where, c.b.call(ir.greater, known, limits.max), high, known)
    return c.b.call(ir.where, c.b.call(ir.greater, limits.min, known), low, known)


def copysign(c: Context, a: Any, b: Any) -> fx.Node:
    """|a|, negative where b is"""
    size, other = c.b.call(torch.abs, c.tensor(a)), c.operand(b)
    if not isinstance(other, fx.Node):
        return c.b.call(ir.mul, size, math.copysign(1, other))
    sign = c.b.call(ir.where, c.b.call(ir.greater, 0, other), -1.0, 1.0)
    return c.b.call(ir.mul, size, sign)


def heaviside(c: Context, x: Any, values: Any) -> fx.Node:
    """0 below 0, 1 above, and the value at 0"""
    x = c.tensor(x)
    above = c.b.call(ir.greater, x, 0)
    return c.b.call(ir.where, c.b.call(ir.equal, x, 0), c.operand(values), above)


def addcdiv(c: Context, x: Any, a: Any, b: Any, value: float = 1) -> fx.Node:
    ratio = c.b.call(ir.div, c.operand(a), c.operand(b))
    return c.b.call(ir.add, c.operand(x), scaled(c, ratio, value))


def _times(factor: float) -> Callable[..., Any]:
    def rule(c: Context, x: Any) -> fx.Node:
        return c.b.call(ir.mul, c.tensor(x), factor)

    return rule


def atan(c: Context, x: Any) -> fx.Node:
    return c.b.call(torch.atan, c.tensor(x))


def isfinite(c: Context, x: Any) -> fx.Node:
    return c.b.call(ir.greater, math.inf, c.b.call(torch.abs, c.tensor(x)))


def isinf(c: Context, x: Any) -> fx.Node:
    return c.b.call(ir.equal, c.b.call(torch.abs, c.tensor(x)), math.inf)


def bucketize(
    c: Context, x: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False
) -> fx.Node:
    """How many boundaries lie below, or, with `right`, not above."""
    x, limits = c.tensor(x), c.parameter(boundaries, "boundaries")
    if limits is None:
        raise c.unsupported("boundaries are needed")
    wide = c.b.reshape(x, [(*s, 1) for s in c.b.shapes(x)])
    line = c.tensor(Constant(limits.tensor.reshape(-1).to(torch.get_default_dtype())))
    passed = c.b.call(ir.greater_equal if right else ir.greater, wide, line)
    return c.b.call(ir.sum_, passed, (c.b.rank(wide) - 1,), False)


RULES: dict[str, Callable[..., Any]] = {
    "sinh": sinh,
    "cosh": cosh,
    **dict.fromkeys(("asinh", "arcsinh"), asinh),
    **dict.fromkeys(("acosh", "arccosh"), acosh),
    **dict.fromkeys(("atanh", "arctanh"), atanh),
    **dict.fromkeys(("atan2", "arctan2"), atan2),
    **dict.fromkeys(("asin", "arcsin"), asin),
    **dict.fromkeys(("acos", "arccos"), acos),
    "arctan": atan,
    **dict.fromkeys(("erfc", "special_erfc"), erfc),
    **dict.fromkeys(("logit", "special_logit"), logit),
    "logaddexp": logaddexp,
    **dict.fromkeys(("sinc", "special_sinc"), sinc),
    "nan_to_num": nan_to_num,
    "copysign": copysign,
    "heaviside": heaviside,
    "addcdiv": addcdiv,
    "deg2rad": _times(math.pi / 180),
    "rad2deg": _times(180 / math.pi),
    "isfinite": isfinite,
    "isinf": isinf,
    "bucketize": bucketize,
}
