"""Max pooling that says where its maxima are, and its inverse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.lift import pair
from shrinkc.compiler.capture.rules.pool import max_pool2d
from shrinkc.passes import ir

LOWEST = torch.finfo(torch.float32).min


def with_indices(
    c: Context,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = True,
) -> list[fx.Node]:
    """(maxima, h · width + w of each). An argmax over the windows' positions, which are
    slices of the padded map beside each other; ties go to the first, as in PyTorch."""
    x = c.tensor(x)
    kernel, around, gap = pair(kernel_size), pair(padding), pair(dilation)
    step = pair(stride) if stride else kernel
    values = max_pool2d(c, x, kernel, step, around, gap, ceil_mode)
    if c.b.rank(x) != 4:
        raise c.unsupported("positions of maxima in something that is not (N, C, H, W)")
    size, out = c.b.shape(x)[2:], c.b.shape(values)[2:]
    padded = _reaching(c, x, kernel, step, around, gap)
    taps: list[fx.Node] = []
    for row in range(kernel[0]):
        rows = c.b.slice(padded, 2, *_run(row * gap[0], out[0], step[0]))
        for column in range(kernel[1]):
            tap = c.b.slice(rows, 3, *_run(column * gap[1], out[1], step[1]))
            taps.append(c.b.reshape(tap, [(*s[:2], 1, *s[2:]) for s in c.b.shapes(tap)]))
    tap = c.b.call(ir.argmax, c.b.call(torch.cat, tuple(taps), 2), 2, False)
    row = c.b.call(torch.floor, c.b.call(ir.div, c.b.call(ir.add, tap, 0.5), kernel[1]))
    column = c.b.call(ir.sub, tap, c.b.call(ir.mul, row, kernel[1]))
    inside = c.b.call(
        ir.add, c.b.call(ir.mul, row, gap[0] * size[1]), c.b.call(ir.mul, column, gap[1])
    )
    top, left = (torch.arange(out[i]) * step[i] - around[i] for i in (0, 1))
    corners = top[:, None] * size[1] + left
    return [values, c.b.call(ir.add, inside, c.tensor(Constant(corners)))]


Pair = tuple[int, int]


def _run(first: int, count: int, step: int) -> tuple[int, int, int]:
    return first, first + (count - 1) * step + 1, step


def _reaching(c: Context, x: fx.Node, kernel: Pair, step: Pair, around: Pair, gap: Pair) -> fx.Node:
    """The map with what windows meet beyond it, which never wins."""
    size, out = c.b.shape(x)[2:], c.out_shapes[0][2:]
    behind = [
        max((out[i] - 1) * step[i] + gap[i] * (kernel[i] - 1) + 1 - size[i] - around[i], 0)
        for i in (0, 1)
    ]
    amounts = (around[1], behind[1], around[0], behind[0])
    return c.b.call(F.pad, x, amounts, "constant", LOWEST) if any(amounts) else x


def adaptive_with_indices(
    c: Context, x: Any, output_size: Any, return_indices: bool = True
) -> list[Any]:
    """Positions where the windows are all alike."""
    x = c.tensor(x)
    size, out = c.b.shape(x)[-2:], c.out_shapes[0][-2:]
    if c.b.rank(x) == 4 and all(n % m == 0 for n, m in zip(size, out, strict=True)):
        return with_indices(c, x, (size[0] // out[0], size[1] // out[1]))
    return [c.activation(nn.AdaptiveMaxPool2d(out), x), None]


def adaptive(c: Context, x: Any, output_size: Any, return_indices: bool = False) -> Any:
    """ATen's returns positions always."""
    made = adaptive_with_indices(c, x, output_size)
    return made if c.aten or return_indices else made[0]


def max_unpool2d(
    c: Context,
    x: Any,
    indices: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> fx.Node:
    """Every number where its index says within its own window, zeros elsewhere: number and index
    repeated over the window, and compared with where they are."""
    x, indices = c.tensor(x), c.tensor(indices)
    size, out = c.b.shape(x)[2:], c.out_shapes[0][2:]
    if c.aten:  # which knows sizes alone
        kernel_size, stride, padding = _windows_of(c.node.args[1]) or (
            (out[0] // size[0], out[1] // size[1]),
            *(None, 0),
        )
    window = pair(kernel_size)
    if (pair(stride) if stride else window) != window or pair(padding) != (0, 0):
        raise c.unsupported("max unpooling whose windows overlap or are padded")
    whole = (size[0] * window[0], size[1] * window[1])
    if any(n < m for n, m in zip(out, whole, strict=True)):
        raise c.unsupported("max unpooling to less than its windows cover")
    places = torch.arange(out[0] * out[1]).reshape(out)[: whole[0], : whole[1]]
    wide, at = (
        c.b.new_module(f"{c.hint}_repeated", nn.Upsample(whole, mode="nearest"), y)
        for y in (x, indices)
    )
    here = c.b.call(ir.equal, at, c.tensor(Constant(places[None, None].contiguous())))
    y = c.b.call(ir.where, here, wide, 0.0)
    amounts = (0, out[1] - whole[1], 0, out[0] - whole[0])
    return c.b.call(F.pad, y, amounts, "constant", 0.0) if any(amounts) else y


def _windows_of(indices: Any) -> tuple[Any, Any, Any] | None:
    """Kernel, stride and padding of the pooling that raw `indices` come from."""
    source = indices.args[0] if indices.args else None
    if not isinstance(source, fx.Node) or "max_pool2d_with_indices" not in str(source.target):
        return None
    kernel, stride, padding = (*source.args[1:4], None, 0)[:3]
    return kernel, stride, padding or 0


RULES: dict[str, Callable[..., Any]] = {
    "max_pool2d_with_indices": with_indices,
    "adaptive_max_pool2d_with_indices": adaptive_with_indices,
    "adaptive_max_pool2d": adaptive,
    "max_unpool2d": max_unpool2d,
}
