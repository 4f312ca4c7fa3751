"""Pooling over windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from shrinkc.compiler.load.onnx.build import Value
from shrinkc.compiler.load.onnx.context import Context, Rule
from shrinkc.compiler.load.onnx.rules.conv import Pads, padded, pads_of

_MAX: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _windows(c: Context) -> tuple[tuple[int, ...], tuple[int, ...], Pads]:
    """Kernel, strides, padding."""
    kernel = c.ints("kernel_shape") or ()
    rank = len(kernel)
    if rank not in _MAX or c.x().rank != rank + 2:
        raise c.unsupported(f"pooling over {rank} dimensions")
    return kernel, c.ints("strides", (1,) * rank) or (), pads_of(c, c.x().shape[2:], kernel)


def _is_torch(kernel: Sequence[int], pads: Pads) -> bool:
    """Padding that torch's pooling does itself."""
    return pads[0] == pads[1] and all(p <= k // 2 for p, k in zip(pads[0], kernel, strict=True))


def max_pool(c: Context) -> Value:
    if len(c.node.output) > 1 and c.node.output[1]:
        raise c.unsupported("it returns indices; export the network without max unpooling")
    kernel, strides, pads = _windows(c)
    rank, x = len(kernel), c.x()
    dilations, ceil = c.ints("dilations", (1,) * rank) or (), bool(c.int("ceil_mode"))
    inside = pads[0]
    if not _is_torch(kernel, pads):
        x, inside = padded(c, x, pads, -math.inf), (0,) * rank
    return c.call(_MAX[rank], x, kernel, strides, inside, dilations, ceil)


def average_pool(c: Context) -> Value:
    kernel, strides, pads = _windows(c)
    rank, x, ceil = len(kernel), c.x(), bool(c.int("ceil_mode"))
    counted = bool(c.int("count_include_pad"))
    if any(d != 1 for d in c.ints("dilations", (1,) * rank) or ()):
        raise c.unsupported("an average over windows with gaps")
    pool: Any = _AVERAGE[rank]
    if _is_torch(kernel, pads):
        return c.call(pool, x, kernel, strides, pads[0], ceil, counted)
    y = c.call(pool, padded(c, x, pads), kernel, strides, 0, ceil, True)
    if counted:
        return y
    inside = torch.ones(1, 1, *x.shape[2:])
    share = c.call(pool, padded(c, c.constant(inside), pads), kernel, strides, 0, ceil, True)
    return c.call(torch.mul, y, c.call(torch.reciprocal, share))


def _whole(pool: Any, over: Any) -> Rule:
    """Over all of an image at once."""

    def rule(c: Context) -> Value:
        x = c.x()
        if x.rank == 4:
            return c.call(pool, x, 1)
        return c.call(over, x, tuple(range(2, x.rank)), True)

    return rule


RULES: dict[str, Rule] = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": _whole(F.adaptive_avg_pool2d, torch.mean),
    "GlobalMaxPool": _whole(F.adaptive_max_pool2d, torch.amax),
}
