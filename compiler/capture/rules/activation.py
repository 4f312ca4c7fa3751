"""Activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.lift import lift
from shrinkc.passes import ir


def _activation(make: Callable[[], nn.Module]) -> Callable[..., Any]:
    def rule(c: Context, x: Any, inplace: bool = False) -> fx.Node:
        return c.activation(make(), x)

    return rule


def leaky_relu(c: Context, x: Any, negative_slope: float = 0.01, inplace: bool = False) -> fx.Node:
    return c.activation(nn.LeakyReLU(negative_slope), x)


def elu(
    c: Context,
    x: Any,
    alpha: float = 1.0,
    scale: float = 1.0,
    input_scale: float = 1.0,
    inplace: bool = False,
) -> fx.Node:
    y = c.activation(nn.ELU(alpha), x)
    return y if scale in (1, True, False) else c.b.call(ir.mul, y, scale)


def celu(c: Context, x: Any, alpha: float = 1.0, inplace: bool = False) -> fx.Node:
    """max(0, x) + min(0, α (exp(x/α) − 1))"""
    if alpha == 1:
        return c.activation(nn.ELU(), x)
    unit = c.activation(nn.ELU(), c.b.call(ir.div, c.tensor(x), alpha))
    return c.b.call(ir.mul, unit, alpha)


def selu(c: Context, x: Any, inplace: bool = False) -> fx.Node:
    return elu(c, x, 1.6732632423543772848, 1.0507009873554804934)


def hardtanh(
    c: Context, x: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> fx.Node:
    is_relu6 = (min_val, max_val) == (0, 6)
    return c.activation(nn.ReLU6() if is_relu6 else nn.Hardtanh(min_val, max_val), x)


def gelu(c: Context, x: Any, approximate: str = "none") -> fx.Node:
    return c.activation(nn.GELU(approximate), x)


def softplus(c: Context, x: Any, beta: float = 1.0, threshold: float = 20.0) -> fx.Node:
    return c.activation(nn.Softplus(beta, threshold), x)


def logsigmoid(c: Context, x: Any) -> fx.Node:
    """ln σ(x) = −ln(1 + exp(−x))"""
    return c.b.call(ir.neg, softplus(c, c.b.call(ir.neg, c.tensor(x))))


def softsign(c: Context, x: Any) -> fx.Node:
    x = c.tensor(x)
    return c.b.call(ir.div, x, c.b.call(ir.add, c.b.call(torch.abs, x), 1))


def tanhshrink(c: Context, x: Any) -> fx.Node:
    x = c.tensor(x)
    return c.b.call(ir.sub, x, c.activation(nn.Tanh(), x))


def hardshrink(c: Context, x: Any, lambd: float = 0.5) -> fx.Node:
    """x where |x| > λ, else 0"""
    x = c.tensor(x)
    return c.b.call(ir.mul, x, c.b.call(ir.greater, c.b.call(torch.abs, x), lambd))


def softshrink(c: Context, x: Any, lambd: float = 0.5) -> fx.Node:
    """x without what lies within ±λ"""
    x = c.tensor(x)
    return c.b.call(ir.sub, x, c.b.call(ir.clamp, x, -lambd, lambd))


def threshold(c: Context, x: Any, threshold: float, value: float, inplace: bool = False) -> fx.Node:
    """x where it is above the threshold, else the value"""
    x = c.tensor(x)
    return c.b.call(ir.where, c.b.call(ir.greater, x, threshold), x, value)


def rrelu(
    c: Context,
    x: Any,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> fx.Node:
    """In inference the slope is the middle one."""
    if training:
        raise c.unsupported("random slopes")
    return c.activation(nn.LeakyReLU((lower + upper) / 2), x)


def prelu(c: Context, x: Any, weight: Any) -> fx.Node:
    slope = c.parameter(weight, "slope")
    if slope is None:
        raise c.unsupported("a slope is needed")
    count = slope.tensor.numel()
    flat = Constant(slope.tensor.reshape(-1), slope.path) if slope.tensor.ndim != 1 else slope
    return lift(c, c.tensor(x), lambda: nn.PReLU(count), {"weight": flat}, ("prelu",))


def softmax(c: Context, x: Any, dim: Any = None, *args: Any, **kwargs: Any) -> fx.Node:
    return _along(nn.Softmax, c, x, dim)


def log_softmax(c: Context, x: Any, dim: Any = None, *args: Any, **kwargs: Any) -> fx.Node:
    return _along(nn.LogSoftmax, c, x, dim)


def softmin(c: Context, x: Any, dim: Any = None, *args: Any, **kwargs: Any) -> fx.Node:
    return softmax(c, c.b.call(ir.neg, c.tensor(x)), dim)


def _along(kind: Callable[[int], nn.Module], c: Context, x: Any, dim: int | None) -> fx.Node:
    """Where no dimension is given, PyTorch takes the first of 0, 1 and 3 dimensions, else the
    second."""
    x = c.tensor(x)
    rank = c.b.rank(x)
    implied = 0 if rank in (0, 1, 3) else 1
    return c.activation(kind((implied if dim is None else dim) % rank), x)


def glu(c: Context, x: Any, dim: int = -1) -> fx.Node:
    x = c.tensor(x)
    dim = dim % c.b.rank(x)
    half = c.b.shape(x)[dim] // 2
    gate = c.activation(nn.Sigmoid(), c.b.slice(x, dim, half, 2 * half))
    return c.b.call(ir.mul, c.b.slice(x, dim, 0, half), gate)


RULES: dict[str, Callable[..., Any]] = {
    "relu": _activation(nn.ReLU),
    "relu6": _activation(nn.ReLU6),
    "sigmoid": _activation(nn.Sigmoid),
    "tanh": _activation(nn.Tanh),
    "hardsigmoid": _activation(nn.Hardsigmoid),
    "hardswish": _activation(nn.Hardswish),
    "silu": _activation(nn.SiLU),
    "mish": _activation(nn.Mish),
    "leaky_relu": leaky_relu,
    "elu": elu,
    "selu": selu,
    "hardtanh": hardtanh,
    "gelu": gelu,
    "softplus": softplus,
    "prelu": prelu,
    "_prelu_kernel": prelu,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "softmin": softmin,
    "celu": celu,
    "logsigmoid": logsigmoid,
    "log_sigmoid": logsigmoid,
    "softsign": softsign,
    "tanhshrink": tanhshrink,
    "hardshrink": hardshrink,
    "softshrink": softshrink,
    "threshold": threshold,
    "_threshold": threshold,
    "rrelu": rrelu,
    "glu": glu,
}
