"""Normalisation, lifted back into modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.lift import lift
from shrinkc.passes import ir


def batch_norm(c: Context, x: Any, *args: Any, **kwargs: Any) -> fx.Node:
    given = _norm_arguments(c, args, kwargs, "training")
    if given.get("training") or given.get("running_mean") is None:
        raise c.unsupported("batch norm on the statistics of the batch")
    return _batch_norm(c, x, given)


def native_batch_norm(c: Context, x: Any, *args: Any) -> tuple[fx.Node, None, None]:
    """(x, weight, bias, mean, variance, momentum, eps): what exporting without writes calls it."""
    names = ("weight", "bias", "running_mean", "running_var", "momentum", "eps")
    return _batch_norm(c, x, dict(zip(names, args, strict=True))), None, None


def instance_norm(c: Context, x: Any, *args: Any, **kwargs: Any) -> fx.Node:
    given = _norm_arguments(c, args, kwargs, "use_input_stats")
    if not given.get("use_input_stats", True):
        return _batch_norm(c, x, given)
    channels = c.b.shape(c.tensor(x))[1]
    eps = float(given.get("eps", 1e-5))
    return group_norm(c, x, channels, given.get("weight"), given.get("bias"), eps)


def _norm_arguments(
    c: Context, args: tuple[Any, ...], kwargs: dict[str, Any], mode: str
) -> dict[str, Any]:
    """By name: ATen has weight and bias first, torch.nn.functional the running statistics."""
    affine, statistics = ("weight", "bias"), ("running_mean", "running_var")
    first = (*affine, *statistics) if c.aten else (*statistics, *affine)
    names = (*first, mode, "momentum", "eps", "cudnn_enabled")
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _batch_norm(c: Context, x: Any, given: dict[str, Any]) -> fx.Node:
    names = ("running_mean", "running_var", "weight", "bias")
    tensors = {n: c.parameter(given.get(n), n) for n in names}
    x = c.tensor(x)
    if c.b.rank(x) == 5:  # (N, C, D, H, W): a map of (D, H·W)
        x = c.b.reshape(x, [(*s[:3], math.prod(s[3:])) for s in c.b.shapes(x)])
    channels, eps = c.b.shape(x)[1], float(given.get("eps", 1e-5))
    affine = tensors["weight"] is not None or tensors["bias"] is not None
    kind = nn.BatchNorm2d if c.b.rank(x) == 4 else nn.BatchNorm1d

    def make() -> nn.Module:
        return kind(channels, eps=eps, momentum=given.get("momentum", 0.1), affine=affine)

    return c.reshape_out(lift(c, x, make, tensors, ("batch_norm", eps)))


def group_norm(
    c: Context,
    x: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> fx.Node:
    x = c.tensor(x)
    channels = c.b.shape(x)[1]
    tensors = {"weight": c.parameter(weight, "weight"), "bias": c.parameter(bias, "bias")}

    def make() -> nn.Module:
        return nn.GroupNorm(num_groups, channels, eps=eps, affine=tensors["weight"] is not None)

    return lift(c, x, make, tensors, ("group_norm", num_groups, eps))


def layer_norm(
    c: Context,
    x: Any,
    normalized_shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> fx.Node:
    tensors = {"weight": c.parameter(weight, "weight"), "bias": c.parameter(bias, "bias")}

    def make() -> nn.Module:
        affine, with_bias = tensors["weight"] is not None, tensors["bias"] is not None
        return nn.LayerNorm(list(normalized_shape), eps, affine, bias=with_bias)

    return lift(c, c.tensor(x), make, tensors, ("layer_norm", tuple(normalized_shape), eps))


def rms_norm(
    c: Context,
    x: Any,
    normalized_shape: Sequence[int],
    weight: Any = None,
    eps: float | None = None,
) -> fx.Node:
    """x / √(mean(x²) + ε) · weight"""
    x = c.tensor(x)
    rank = c.b.rank(x)
    dims = tuple(range(rank - len(normalized_shape), rank))
    power = c.b.call(ir.mean, c.b.call(ir.pow_, x, 2), dims, True)
    least = torch.finfo(torch.float32).eps if eps is None else eps
    y = c.b.call(ir.mul, x, c.b.call(torch.rsqrt, c.b.call(ir.add, power, least)))
    return y if weight is None else c.b.call(ir.mul, y, c.tensor(weight))


def local_response_norm(
    c: Context, x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> fx.Node:
    """x / (k + α · mean of x² over `size` neighbouring channels)^β"""
    x = c.tensor(x)
    shapes = c.b.shapes(x)
    squares = c.b.call(ir.pow_, x, 2)
    flat = c.b.reshape(squares, [(s[0], 1, s[1], math.prod(s[2:])) for s in shapes])
    padded = c.b.call(F.pad, flat, (0, 0, size // 2, (size - 1) // 2), "constant", 0.0)
    means = c.b.new_module(f"{c.hint}_mean", nn.AvgPool2d((size, 1), stride=1), padded)
    scaled = c.b.call(ir.mul, c.b.reshape(means, shapes), alpha)
    divisor = c.b.call(ir.pow_, c.b.call(ir.add, scaled, k), beta)
    return c.b.call(ir.div, x, divisor)


RULES: dict[str, Callable[..., Any]] = {
    "batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": native_batch_norm,
    "instance_norm": instance_norm,
    "group_norm": group_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "local_response_norm": local_response_norm,
}
