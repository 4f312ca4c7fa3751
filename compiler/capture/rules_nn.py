"""Normalisation, activations, pooling and resizing, lifted back into modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.lift import lift, pair, raise_to_map
from shrinkc.passes import ir

# --- normalisation -------------------------------------------------------------------------------


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
    channels, eps = c.b.shape(x)[1], float(given.get("eps", 1e-5))
    affine = tensors["weight"] is not None or tensors["bias"] is not None
    kind = nn.BatchNorm2d if c.b.rank(x) == 4 else nn.BatchNorm1d

    def make() -> nn.Module:
        return kind(channels, eps=eps, momentum=given.get("momentum", 0.1), affine=affine)

    return lift(c, x, make, tensors, ("batch_norm", eps))


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


# --- activations ---------------------------------------------------------------------------------


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


# --- pooling and resizing ------------------------------------------------------------------------


def max_pool2d(
    c: Context,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> fx.Node:
    if return_indices:
        raise c.unsupported("max pooling that returns indices")
    kernel = pair(kernel_size)
    pool = nn.MaxPool2d(
        *(kernel, pair(stride) if stride else kernel, pair(padding), pair(dilation)),
        ceil_mode=ceil_mode,
    )
    return c.activation(pool, x)


def avg_pool2d(
    c: Context,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> fx.Node:
    kernel = pair(kernel_size)
    pool = nn.AvgPool2d(
        *(kernel, pair(stride) if stride else kernel, pair(padding)),
        ceil_mode,
        count_include_pad,
        divisor_override,
    )
    return c.activation(pool, x)


def adaptive_avg_pool2d(c: Context, x: Any, output_size: Any) -> fx.Node:
    return c.activation(nn.AdaptiveAvgPool2d(c.out_shapes[0][-2:]), x)


def adaptive_max_pool2d(
    c: Context, x: Any, output_size: Any, return_indices: bool = False
) -> fx.Node:
    return c.activation(nn.AdaptiveMaxPool2d(c.out_shapes[0][-2:]), x)


def _over_map(rule: Callable[..., fx.Node]) -> Callable[..., Any]:
    """A 1-D pooling as the 2-D one over a map of height 1."""

    def one_dimensional(c: Context, x: Any, *args: Any) -> fx.Node:
        flat = raise_to_map(c, c.tensor(x))
        fill = (1, 1, 0, 1)  # kernel, stride, padding, dilation across the height
        spread = [
            (fill[i], pair(a)[1]) if not isinstance(a, bool) and a not in (None, (), []) else a
            for i, a in enumerate(args[:4])
        ]
        return c.reshape_out(rule(c, flat, *spread, *args[4:]))

    return one_dimensional


def adaptive_avg_pool1d(c: Context, x: Any, output_size: Any) -> fx.Node:
    flat = raise_to_map(c, c.tensor(x))
    pool = nn.AdaptiveAvgPool2d((1, c.out_shapes[0][-1]))
    return c.reshape_out(c.b.new_module(c.hint, pool, flat))


def interpolate(
    c: Context,
    x: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> fx.Node:
    if mode == "bicubic" and not antialias:
        return _bicubic(c, c.tensor(x), bool(align_corners))
    if mode not in ("nearest", "bilinear", "nearest-exact") or antialias:
        raise c.unsupported(f"resizing by {mode}{' with antialias' if antialias else ''}")
    height, width = c.out_shapes[0][-2:]
    x = c.tensor(x)
    if c.b.shape(x)[-2:] == (height, width):
        return x
    mode = "nearest" if mode == "nearest-exact" and _whole(c, x) else mode
    corners = align_corners if mode == "bilinear" else None
    return c.activation(nn.Upsample((height, width), mode=mode, align_corners=corners), x)


def _bicubic(c: Context, x: fx.Node, corners: bool) -> fx.Node:
    """Linear and separable: a matrix product along the width and one along the height, the
    matrices being what the unit vectors are resized to."""
    for dim in (3, 2):
        before, after = c.b.shape(x)[dim], c.out_shapes[0][dim]
        if before == after:
            continue
        unit = torch.eye(before)[None, :, None, :]
        matrix = F.interpolate(unit, (1, after), mode="bicubic", align_corners=corners)[0, :, 0]
        left = c.b.constant(Constant(matrix.T.contiguous() if dim == 2 else matrix), c.hint)
        x = c.b.call(torch.matmul, left, x) if dim == 2 else c.b.call(torch.matmul, x, left)
    return x


def _whole(c: Context, x: fx.Node) -> bool:
    """Enlarged by whole numbers: nearest and nearest-exact agree."""
    pairs = zip(c.out_shapes[0][-2:], c.b.shape(x)[-2:], strict=True)
    return all(after % before == 0 for after, before in pairs)


def upsample_nearest(c: Context, x: Any, *args: Any) -> fx.Node:
    return interpolate(c, x)


def upsample_bilinear(
    c: Context, x: Any, output_size: Any, align_corners: bool, *args: Any
) -> fx.Node:
    return interpolate(c, x, mode="bilinear", align_corners=align_corners)


def upsample_bicubic(
    c: Context, x: Any, output_size: Any, align_corners: bool, *args: Any
) -> fx.Node:
    return interpolate(c, x, mode="bicubic", align_corners=align_corners)


def pixel_shuffle(c: Context, x: Any, factor: int) -> fx.Node:
    return c.activation(nn.PixelShuffle(factor), x)


def pixel_unshuffle(c: Context, x: Any, factor: int) -> fx.Node:
    return c.activation(nn.PixelUnshuffle(factor), x)


RULES: dict[str, Callable[..., Any]] = {
    "batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": native_batch_norm,
    "instance_norm": instance_norm,
    "group_norm": group_norm,
    "layer_norm": layer_norm,
    "local_response_norm": local_response_norm,
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
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "adaptive_max_pool2d": adaptive_max_pool2d,
    "max_pool1d": _over_map(max_pool2d),
    "avg_pool1d": _over_map(avg_pool2d),
    "adaptive_avg_pool1d": adaptive_avg_pool1d,
    "interpolate": interpolate,
    "upsample_nearest2d": upsample_nearest,
    "upsample_bilinear2d": upsample_bilinear,
    "upsample_bicubic2d": upsample_bicubic,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
}
