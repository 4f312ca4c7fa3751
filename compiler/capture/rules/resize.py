"""Resizing, and pixels that become channels or channels pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.lift import raise_to_map
from shrinkc.passes import ir

# What two dimensions call it: every mode works on each dimension alone.
_MODES = {
    **dict.fromkeys(("linear", "bilinear", "trilinear"), "bilinear"),
    **{"nearest": "nearest", "nearest-exact": "nearest-exact", "bicubic": "bicubic"},
}


@dataclass(frozen=True)
class _Resampling:
    """Of one dimension: what PyTorch itself does to unit vectors. `scale` is None where the sizes
    say it."""

    before: int
    after: int
    mode: str
    corners: bool | None
    scale: float | None
    antialias: bool

    def matrix(self) -> Tensor:
        """(before, after)"""
        how = {"scale_factor": (1.0, self.scale)} if self.scale else {"size": (1, self.after)}
        unit, options = torch.eye(self.before)[None, :, None, :], {"align_corners": self.corners}
        exact = F.interpolate(unit, mode=self.mode, antialias=self.antialias, **how, **options)
        return exact[0, :, 0]

    def is_plain(self) -> bool:
        """Runtimes have it as an operator."""
        if self.antialias or self.mode == "bicubic":
            return False
        mode = "nearest" if self.mode == "nearest-exact" else self.mode
        plain = _Resampling(self.before, self.after, mode, self.corners, None, False)
        return torch.allclose(self.matrix(), plain.matrix(), rtol=0, atol=1e-6)

    def changes_nothing(self) -> bool:
        same = self.before == self.after
        return same and torch.equal(self.matrix(), torch.eye(self.before))


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
    x = c.tensor(x)
    before, after = c.b.shape(x)[2:], c.out_shapes[0][2:]
    if mode == "area" and len(after) == 2:
        return c.activation(nn.AdaptiveAvgPool2d(after), x)
    if mode not in _MODES:
        raise c.unsupported(f"resizing by {mode}")
    scales = _scales(None if recompute_scale_factor else scale_factor, before, after)
    plain = _MODES[mode]
    corners = bool(align_corners) if plain in ("bilinear", "bicubic") else None
    dims = [
        _Resampling(size_before, size_after, plain, corners, scale, antialias)
        for size_before, size_after, scale in zip(before, after, scales, strict=True)
    ]
    if all(dim.changes_nothing() for dim in dims):
        return x
    if len(dims) < 3 and all(dim.is_plain() for dim in dims):
        image = x if len(dims) == 2 else raise_to_map(c, x)
        target = tuple(after) if len(dims) == 2 else (1, *after)
        plain = "nearest" if corners is None else "bilinear"
        return c.reshape_out(
            c.activation(nn.Upsample(target, mode=plain, align_corners=corners), image)
        )
    for dim, resampling in enumerate(dims, 2):
        if not resampling.changes_nothing():
            x = _resampled(c, x, dim, resampling)
    return x


def _scales(given: Any, before: Sequence[int], after: Sequence[int]) -> tuple[float | None, ...]:
    """The factors that PyTorch steps by, where it does not take those of the sizes."""
    if given is None:
        return (None,) * len(before)
    several = isinstance(given, (tuple, list))
    factors: Sequence[Any] = cast(Any, given) if several else (given,) * len(before)
    sizes = zip(factors, before, after, strict=True)
    return tuple(
        float(factor) if factor and int(n * float(factor)) == out else None
        for factor, n, out in sizes
    )


def _resampled(c: Context, x: fx.Node, dim: int, resampling: _Resampling) -> fx.Node:
    """One dimension: its slices picked, or multiplied with a matrix."""
    matrix = resampling.matrix()
    if resampling.mode.startswith("nearest"):
        return c.b.call(ir.take, x, dim, tuple(int(i) for i in matrix.argmax(0)))
    if dim == c.b.rank(x) - 1:
        return c.b.call(torch.matmul, x, c.b.constant(Constant(matrix), c.hint))
    shapes = c.b.shapes(x)
    rows = c.b.reshape(x, [(*s[: dim + 1], s[dim + 1 :].numel()) for s in map(torch.Size, shapes)])
    left = c.b.constant(Constant(matrix.T.contiguous()), c.hint)
    y = c.b.call(torch.matmul, left, rows)
    return c.b.reshape(y, [(*s[:dim], resampling.after, *s[dim + 1 :]) for s in shapes])


def upsample(c: Context, x: Any, module: nn.Upsample) -> fx.Node:
    recompute = bool(module.recompute_scale_factor)
    rest = (module.scale_factor, module.mode, module.align_corners, recompute)
    return interpolate(c, x, module.size, *rest)


def _aten_nearest(mode: str) -> Callable[..., Any]:
    """(x, size, factors or a factor for each dimension)"""

    def rule(c: Context, x: Any, output_size: Any = None, *scales: Any) -> fx.Node:
        return interpolate(c, x, None, _factors(scales), mode)

    return rule


def _aten_linear(mode: str, antialias: bool = False) -> Callable[..., Any]:
    """(x, size, align corners, factors or a factor for each dimension)"""

    def rule(c: Context, x: Any, output_size: Any, align_corners: bool, *scales: Any) -> fx.Node:
        rest = (mode, align_corners, None, antialias)
        return interpolate(c, x, None, _factors(scales), *rest)

    return rule


def _factors(scales: Sequence[Any]) -> Any:
    several = bool(scales) and isinstance(scales[0], (tuple, list))
    given: Sequence[Any] = cast(Any, scales[0]) if several else scales
    return given if any(scale is not None for scale in given) else None


def pixel_shuffle(c: Context, x: Any, factor: int) -> fx.Node:
    return c.activation(nn.PixelShuffle(factor), x)


def pixel_unshuffle(c: Context, x: Any, factor: int) -> fx.Node:
    return c.activation(nn.PixelUnshuffle(factor), x)


RULES: dict[str, Callable[..., Any]] = {
    "interpolate": interpolate,
    **{f"upsample_nearest{n}d": _aten_nearest("nearest") for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": _aten_nearest("nearest-exact") for n in (1, 2, 3)},
    "upsample_linear1d": _aten_linear("linear"),
    "upsample_bilinear2d": _aten_linear("bilinear"),
    "upsample_trilinear3d": _aten_linear("trilinear"),
    "upsample_bicubic2d": _aten_linear("bicubic"),
    "_upsample_bilinear2d_aa": _aten_linear("bilinear", antialias=True),
    "_upsample_bicubic2d_aa": _aten_linear("bicubic", antialias=True),
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
}
