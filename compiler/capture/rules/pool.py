"""Pooling over windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.lift import pair, raise_to_map
from shrinkc.passes import ir


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
    c.refuse_indices(return_indices)
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


def _adaptive_1d(kind: Callable[[tuple[int, int]], nn.Module]) -> Callable[..., Any]:
    def rule(c: Context, x: Any, output_size: Any, return_indices: bool = False) -> fx.Node:
        c.refuse_indices(return_indices)
        pool = kind((1, c.out_shapes[0][-1]))
        return c.reshape_out(c.b.new_module(c.hint, pool, raise_to_map(c, c.tensor(x))))

    return rule


def lp_pool1d(
    c: Context,
    x: Any,
    norm_type: float,
    kernel_size: Any,
    stride: Any = None,
    ceil_mode: bool = False,
) -> fx.Node:
    """(k · mean of x^p over a window of k)^(1/p)"""
    powers = c.b.call(ir.pow_, c.tensor(x), norm_type)
    means = RULES["avg_pool1d"](c, powers, kernel_size, stride or kernel_size, 0, ceil_mode)
    return c.b.call(ir.pow_, c.b.call(ir.mul, means, pair(kernel_size)[1]), 1 / norm_type)


RULES: dict[str, Callable[..., Any]] = {
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "max_pool1d": _over_map(max_pool2d),
    "avg_pool1d": _over_map(avg_pool2d),
    "lp_pool1d": lp_pool1d,
    "adaptive_avg_pool1d": _adaptive_1d(nn.AdaptiveAvgPool2d),
    "adaptive_max_pool1d": _adaptive_1d(nn.AdaptiveMaxPool2d),
}
