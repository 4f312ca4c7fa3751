"""Arithmetic, functions, comparisons and casts, element by element."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from shrinkc.compiler.load.onnx.build import Value
from shrinkc.compiler.load.onnx.context import DTYPES, Context, Rule


def _unary(function: Callable[..., Any]) -> Rule:
    return lambda c: c.call(function, c.x())


def _binary(function: Callable[..., Any]) -> Rule:
    return lambda c: c.call(function, c.x(0), c.x(1))


def _all(function: Callable[..., Any]) -> Rule:
    """Of any number of tensors."""

    def rule(c: Context) -> Value:
        return reduce(lambda a, b: c.call(function, a, b), map(c.x, range(len(c.inputs))))

    return rule


def add(c: Context) -> Value:
    """A vector behind a linear layer that nobody else reads is its bias."""
    for index in (0, 1):
        layer, vector = c.x(index), c.x(1 - index)
        if vector.same() and c.alone[index] and c.build.give_bias(layer, vector):
            return layer
    return c.call(torch.add, c.x(0), c.x(1))


def div(c: Context) -> Value:
    """Integers are cut off behind the point."""
    whole = not c.x().dtype.is_floating_point
    return c.call(torch.div, c.x(0), c.x(1), rounding_mode="trunc" if whole else None)


def mod(c: Context) -> Value:
    return c.call(torch.fmod if c.int("fmod") else torch.remainder, c.x(0), c.x(1))


def power(c: Context) -> Value:
    """An exponent that is one number is one."""
    exponent = c.x(1)
    if exponent.same() and exponent.tensors[0].numel() == 1 and exponent.rank == 0:
        return c.call(torch.pow, c.x(), exponent.tensors[0].item())
    return c.call(torch.pow, c.x(), exponent)


def mean(c: Context) -> Value:
    return c.call(torch.div, _all(torch.add)(c), len(c.inputs))


def cast(c: Context) -> Value:
    dtype = DTYPES.get(c.int("to"))
    if dtype is None:
        raise c.unsupported("a cast to a type that torch lacks")
    return _to(c, c.x(), dtype)


def _to(c: Context, x: Value, dtype: torch.dtype) -> Value:
    return x if x.dtype == dtype else c.call(Tensor.to, x, dtype)


def where(c: Context) -> Value:
    return c.call(torch.where, c.x(0), c.x(1), c.x(2))


def isinf(c: Context) -> Value:
    if not (c.int("detect_positive", 1) and c.int("detect_negative", 1)):
        raise c.unsupported("of one sign")
    return c.call(torch.isinf, c.x())


_UNARY: dict[str, Callable[..., Any]] = {
    **{"Abs": torch.abs, "Neg": torch.neg, "Exp": torch.exp, "Log": torch.log},
    **{"Sqrt": torch.sqrt, "Reciprocal": torch.reciprocal, "Sign": torch.sign},
    **{"Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round, "Erf": torch.erf},
    **{"Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan, "Asin": torch.asin},
    **{"Acos": torch.acos, "Atan": torch.atan, "Sinh": torch.sinh, "Cosh": torch.cosh},
    **{"Asinh": torch.asinh, "Acosh": torch.acosh, "Atanh": torch.atanh},
    **{"Not": torch.logical_not, "IsNaN": torch.isnan},
}
_BINARY: dict[str, Callable[..., Any]] = {
    **{"Sub": torch.sub, "Mul": torch.mul, "Equal": torch.eq, "Greater": torch.gt},
    **{"GreaterOrEqual": torch.ge, "Less": torch.lt, "LessOrEqual": torch.le},
    **{"And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor},
}
RULES: dict[str, Rule] = {
    **{name: _unary(function) for name, function in _UNARY.items()},
    **{name: _binary(function) for name, function in _BINARY.items()},
    "Add": add,
    "Div": div,
    "Mod": mod,
    "Pow": power,
    "Min": _all(torch.minimum),
    "Max": _all(torch.maximum),
    "Sum": _all(torch.add),
    "Mean": mean,
    "Cast": cast,
    "CastLike": lambda c: _to(c, c.x(), c.x(1).dtype),
    "Where": where,
    "IsInf": isinf,
}
