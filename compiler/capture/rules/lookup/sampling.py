"""Images read between their pixels: grids of places, and samples there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context
from shrinkc.passes import ir

_MODES: Sequence[str] = ("bilinear", "nearest", "bicubic")  # as ATen numbers them
_PADDINGS: Sequence[str] = ("zeros", "border", "reflection")


def grid_sample(
    c: Context,
    x: Any,
    grid: Any,
    mode: Any = "bilinear",
    padding_mode: Any = "zeros",
    align_corners: bool | None = None,
) -> fx.Node:
    x, grid = c.tensor(x), c.tensor(grid)
    if c.b.rank(x) != 4:
        raise c.unsupported("samples of a volume; only images, (N, C, H, W), are known")
    how: str = mode if isinstance(mode, str) else _MODES[int(mode)]
    padding: str = padding_mode if isinstance(padding_mode, str) else _PADDINGS[int(padding_mode)]
    if c.b.shapes(x)[-1][0] < c.b.shapes(grid)[-1][0]:
        x = c.b.call(ir.batch_expand, x, grid)
    elif c.b.shapes(grid)[-1][0] < c.b.shapes(x)[-1][0]:
        grid = c.b.call(ir.batch_expand, grid, x)
    return c.b.call(ir.grid_sample, x, grid, how, padding, bool(align_corners))


def affine_grid(c: Context, theta: Any, size: Sequence[Any], align_corners: Any = None) -> fx.Node:
    """Every place (x, y, 1) of the result times θᵀ"""
    theta = c.tensor(theta)
    sizes = c.out_shapes[0][1:-1]
    lines = [_places(n, bool(align_corners)) for n in sizes]
    axes = torch.meshgrid(*lines, indexing="ij")[::-1]
    places = torch.stack((*axes, torch.ones(sizes)), -1).reshape(math.prod(sizes), -1)
    known = c.tensor(Constant(places[None]))
    return c.reshape_out(c.b.call(torch.matmul, known, c.b.permute(theta, (0, 2, 1))))


def _places(count: int, corners: bool) -> Tensor:
    """From −1 to 1, or from pixel centre to pixel centre."""
    if count == 1:
        return torch.zeros(1)
    line = torch.linspace(-1, 1, count)
    return line if corners else line * (count - 1) / count


RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("grid_sample", "grid_sampler", "grid_sampler_2d"), grid_sample),
    **dict.fromkeys(("affine_grid", "affine_grid_generator"), affine_grid),
}
