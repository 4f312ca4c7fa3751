"""Activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from shrinkc.compiler.load.onnx.build import Value
from shrinkc.compiler.load.onnx.context import Context, Rule


def _plain(function: Callable[..., Any]) -> Rule:
    return lambda c: c.call(function, c.x())


def clip(c: Context) -> Value:
    """Limits are attributes before opset 11."""
    x = c.x()
    if c.opset < 11:
        limits = [c.attribute("min"), c.attribute("max")]
    else:
        limits = [c.maybe(1), c.maybe(2)]
        if any(one is not None and not one.known for one in limits):
            return c.call(torch.clamp, x, *limits)
        limits = [None if one is None else one.tensors[0].item() for one in limits]
    low, high = limits
    if low is None and high is None:
        return x
    if (low, high) == (0, 6) and x.dtype.is_floating_point:
        return c.call(F.relu6, x)
    if (low, high) == (0, None) and x.dtype.is_floating_point:
        return c.call(F.relu, x)
    return c.call(torch.clamp, x, low, high)


def hard_sigmoid(c: Context) -> Value:
    """max(0, min(1, α x + β))"""
    alpha, beta = c.float("alpha", 0.2), c.float("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-7 and beta == 0.5:
        return c.call(F.hardsigmoid, c.x())
    scaled = c.call(torch.add, c.call(torch.mul, c.x(), alpha), beta)
    return c.call(torch.clamp, scaled, 0.0, 1.0)


def selu(c: Context) -> Value:
    """γ · ELU(x, α)"""
    alpha, gamma = c.float("alpha", 1.67326319217681884765625), c.float("gamma", 1.05070102214813)
    return c.call(torch.mul, c.call(F.elu, c.x(), alpha), gamma)


def gelu(c: Context) -> Value:
    return c.call(F.gelu, c.x(), approximate=c.text("approximate", "none"))


def swish(c: Context) -> Value:
    alpha = c.float("alpha", 1.0)
    if alpha == 1:
        return c.call(F.silu, c.x())
    return c.call(torch.mul, c.x(), c.call(torch.sigmoid, c.call(torch.mul, c.x(), alpha)))


def prelu(c: Context) -> Value:
    """A slope for all, or for each channel, is a layer; others are written out."""
    x, slope = c.x(), c.x(1)
    numbers = 1
    for n in slope.shape:
        numbers *= n
    by_channel = slope.shape[:1] == x.shape[1:2] and slope.rank == x.rank - 1
    if slope.same() and (numbers == 1 or (by_channel and numbers == slope.shape[0])):
        flat = c.reshape(slope, [(numbers,)] * len(slope.tensors))
        return c.layer(nn.PReLU(numbers), {"weight": flat}, x)
    below = c.call(torch.clamp, x, None, 0.0)
    return c.call(torch.add, c.call(F.relu, x), c.call(torch.mul, slope, below))


def shrink(c: Context) -> Value:
    """x + bias below −λ, x − bias above λ, else 0"""
    x, bias, limit = c.x(), c.float("bias", 0.0), c.float("lambd", 0.5)
    if bias == 0:
        return c.call(F.hardshrink, x, limit)
    if bias == limit:
        return c.call(F.softshrink, x, limit)
    above = c.call(torch.where, c.call(torch.gt, x, limit), c.call(torch.sub, x, bias), 0.0)
    return c.call(torch.where, c.call(torch.lt, x, -limit), c.call(torch.add, x, bias), above)


def _softmax(function: Callable[..., Any]) -> Rule:
    """Before opset 13 over all dimensions from `axis` on at once."""

    def rule(c: Context) -> Value:
        x = c.x()
        axis = c.axis(-1 if c.opset >= 13 else 1)
        if c.opset >= 13 or all(n == 1 for n in x.shape[axis + 1 :]):
            return c.call(function, x, axis)
        flat = c.reshape(x, [(*s[:axis], _product(s[axis:])) for s in x.shapes])
        return c.reshape(c.call(function, flat, axis), x.shapes)

    return rule


def _product(sizes: tuple[int, ...]) -> int:
    total = 1
    for n in sizes:
        total *= n
    return total


RULES: dict[str, Rule] = {
    "Relu": _plain(F.relu),
    "Sigmoid": _plain(torch.sigmoid),
    "Tanh": _plain(torch.tanh),
    "HardSwish": _plain(F.hardswish),
    "Mish": _plain(F.mish),
    "Softplus": _plain(F.softplus),
    "Softsign": _plain(F.softsign),
    "LeakyRelu": lambda c: c.call(F.leaky_relu, c.x(), c.float("alpha", 0.01)),
    "Elu": lambda c: c.call(F.elu, c.x(), c.float("alpha", 1.0)),
    "Celu": lambda c: c.call(F.celu, c.x(), c.float("alpha", 1.0)),
    "ThresholdedRelu": lambda c: c.call(F.threshold, c.x(), c.float("alpha", 1.0), 0.0),
    "Clip": clip,
    "HardSigmoid": hard_sigmoid,
    "Selu": selu,
    "Gelu": gelu,
    "Swish": swish,
    "PRelu": prelu,
    "Shrink": shrink,
    "Softmax": _softmax(F.softmax),
    "LogSoftmax": _softmax(F.log_softmax),
}
