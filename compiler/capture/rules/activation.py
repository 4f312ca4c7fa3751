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


def prelu(c: Context, x: Any, weight: Any) -> fx.Node:
    slope = c.parameter(weight, "slope")
    if slope is None:
        raise c.unsupported("a slope is needed")
    count = slope.tensor.numel()
    flat = Constant(slope.tensor.reshape(-1), slope.path) if slope.tensor.ndim != 1 else slope
    return lift(c, c.tensor(x), lambda: nn.PReLU(count), {"weight": flat}, ("prelu",))


def softmax(c: Context, x: Any, dim: Any = -1, *args: Any, **kwargs: Any) -> fx.Node:
    x = c.tensor(x)
    return c.activation(nn.Softmax((-1 if dim is None else dim) % c.b.rank(x)), x)


def log_softmax(c: Context, x: Any, dim: Any = -1, *args: Any, **kwargs: Any) -> fx.Node:
    return c.b.call(torch.log, softmax(c, x, dim))


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
    "glu": glu,
}
