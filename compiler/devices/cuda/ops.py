"""Operators as PyTorch computes them, for timing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from shrinkc.latency_tables.key import OpKey

Run = Callable[[], Tensor]


def torch_operator(key: OpKey, device: str) -> Run:
    """A function that computes the operator on random inputs of its own, batch 1; 16-bit images
    lie channels last, as tensor cores want them. Raises NotImplementedError for kinds without."""
    dtype = {"fp32": torch.float32, "fp16": torch.float16}[key.precision]
    make = _MAKERS.get(key.op)
    if make is None and key.op not in _UNARY:
        raise NotImplementedError(f"PyTorch operator for {key.op}")

    def tensor(*shape: int) -> Tensor:
        made = torch.randn(shape, device=device, dtype=dtype)
        last = dtype == torch.float16 and len(shape) == 4
        return made.to(memory_format=torch.channels_last) if last else made

    x = tensor(1, key.in_channels, *key.in_size)
    if make is None:
        function = _UNARY[key.op]
        return lambda: function(x)
    return _fused(make(key, x, tensor), key.activation)


def _fused(run: Run, activation: str) -> Run:
    """PyTorch runs an activation as a kernel of its own, on what the operator just wrote."""
    if activation == "relu":
        return lambda: run().relu_()
    if activation == "relu6":
        return lambda: F.hardtanh_(run(), 0.0, 6.0)
    return run


Make = Callable[[OpKey, Tensor, Callable[..., Tensor]], Run]


def _conv(key: OpKey, x: Tensor, tensor: Callable[..., Tensor]) -> Run:
    weight = tensor(key.out_channels, key.in_channels // key.groups, *key.kernel)
    bias, padding = tensor(key.out_channels), _padding(key)
    padded = F.pad(x, padding) if padding[0] != padding[1] or padding[2] != padding[3] else x
    inside = (padding[2], padding[0]) if padded is x else (0, 0)
    rest = (key.stride, inside, key.dilation, key.groups)
    return lambda: F.conv2d(padded, weight, bias, *rest)


def _conv_transpose(key: OpKey, x: Tensor, tensor: Callable[..., Tensor]) -> Run:
    weight = tensor(key.in_channels, key.out_channels // key.groups, *key.kernel)
    bias = tensor(key.out_channels)
    cut = [
        (size - 1) * s + d * (k - 1) + 1 - out
        for size, out, k, s, d in zip(
            *(key.in_size, key.out_size, key.kernel, key.stride, key.dilation), strict=True
        )
    ]
    padding, extra = [(max(c, 0) + 1) // 2 for c in cut], [0, 0]
    for axis, c in enumerate(cut):
        extra[axis] = 2 * padding[axis] - c
    rest = (key.stride, padding, extra, key.groups, key.dilation)
    return lambda: F.conv_transpose2d(x, weight, bias, *rest)


def _padding(key: OpKey) -> tuple[int, int, int, int]:
    """(left, right, top, bottom), as the sizes imply."""
    found: list[int] = []
    for axis in (1, 0):
        reach = key.dilation[axis] * (key.kernel[axis] - 1) + 1
        total = max((key.out_size[axis] - 1) * key.stride[axis] + reach - key.in_size[axis], 0)
        found += [total // 2, total - total // 2]
    return found[0], found[1], found[2], found[3]


def _linear(key: OpKey, x: Tensor, tensor: Callable[..., Tensor]) -> Run:
    rows = tensor(key.in_size[0], key.in_channels)
    weight, bias = tensor(key.out_channels, key.in_channels), tensor(key.out_channels)
    return lambda: F.linear(rows, weight, bias)


def _matmul(key: OpKey, x: Tensor, tensor: Callable[..., Tensor]) -> Run:
    a, b = tensor(key.in_size[0], key.in_channels), tensor(key.in_channels, key.out_channels)
    return lambda: a @ b


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Make:
    def make(key: OpKey, x: Tensor, tensor: Callable[..., Tensor]) -> Run:
        gate = key.op == "mul" and key.in_size != (1, 1)
        other = tensor(1, key.in_channels, 1, 1) if gate else torch.randn_like(x)
        return lambda: function(x, other)

    return make


def _pool(function: Callable[..., Tensor]) -> Make:
    def make(key: OpKey, x: Tensor, tensor: Callable[..., Tensor]) -> Run:
        padded = F.pad(x, _padding(key))
        return lambda: function(padded, key.kernel, key.stride)

    return make


def _reduce(function: Callable[..., Tensor]) -> Make:
    return lambda key, x, tensor: lambda: function(x, (2, 3), keepdim=True)


def _concat(key: OpKey, x: Tensor, tensor: Callable[..., Tensor]) -> Run:
    half = max(key.out_channels // 2, 1)
    parts = [tensor(1, n, *key.out_size) for n in (half, key.out_channels - half) if n]
    return lambda: torch.cat(parts, 1)


def _layer_norm(key: OpKey, x: Tensor, tensor: Callable[..., Tensor]) -> Run:
    rows, weight = tensor(key.in_size[0], key.in_channels), tensor(key.in_channels)
    return lambda: F.layer_norm(rows, (key.in_channels,), weight, weight)


def _resize(key: OpKey, x: Tensor, tensor: Callable[..., Tensor]) -> Run:
    return lambda: F.interpolate(x, key.out_size, mode="bilinear")


def _depth_to_space(key: OpKey, x: Tensor, tensor: Callable[..., Tensor]) -> Run:
    return lambda: F.pixel_shuffle(x, key.out_size[0] // key.in_size[0])


_torch: Any = torch
_MAKERS: dict[str, Make] = {
    **{"conv2d": _conv, "depthwise_conv2d": _conv, "conv_transpose2d": _conv_transpose},
    **{"linear": _linear, "matmul": _matmul, "concat": _concat, "layer_norm": _layer_norm},
    **{"add": _binary(_torch.add), "sub": _binary(_torch.sub), "mul": _binary(_torch.mul)},
    **{"div": _binary(_torch.div), "maximum": _binary(_torch.maximum)},
    **{"minimum": _binary(_torch.minimum)},
    **{"max_pool": _pool(F.max_pool2d), "avg_pool": _pool(F.avg_pool2d)},
    **{"mean": _reduce(_torch.mean), "sum": _reduce(_torch.sum), "max": _reduce(_torch.amax)},
    **{"resize": _resize, "depth_to_space": _depth_to_space},
}
_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    **{"relu": F.relu, "relu6": F.relu6, "leaky_relu": F.leaky_relu, "elu": F.elu},
    **{"sigmoid": _torch.sigmoid, "tanh": _torch.tanh, "hard_sigmoid": F.hardsigmoid},
    **{"hard_swish": F.hardswish, "silu": F.silu, "mish": F.mish, "softplus": F.softplus},
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "clip": lambda x: torch.clamp(x, -1.0, 1.0),
    "softmax": lambda x: torch.softmax(x, 1),
    **{"sqrt": _torch.sqrt, "rsqrt": _torch.rsqrt, "exp": _torch.exp, "log": _torch.log},
    **{"abs": _torch.abs, "neg": _torch.neg, "erf": _torch.erf},
}
