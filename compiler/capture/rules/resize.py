"""Resizing, and pixels that become channels or channels pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context


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
    "interpolate": interpolate,
    "upsample_nearest2d": upsample_nearest,
    "upsample_bilinear2d": upsample_bilinear,
    "upsample_bicubic2d": upsample_bicubic,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
}
