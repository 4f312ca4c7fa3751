"""Resizing: torch's own where it computes the same, else by a matrix for each dimension.

ONNX says for every output place which place of the input it is (`coordinate_transformation_mode`),
and how that is read between pixels (`mode`). Both work on every dimension alone, so that one matrix
(out, in) for each says all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from shrinkc.compiler.load.onnx.build import FollowsBatch, Value
from shrinkc.compiler.load.onnx.context import Context, Rule

MOST_PIXELS = 1 << 15  # of a side


@dataclass(frozen=True)
class _How:
    mode: str
    place: str
    nearest: str
    cubic: float
    outside: bool  # weights of what lies outside are left out


def resize(c: Context) -> Value:
    """Of opset 10, by scales; since 11 by scales or sizes."""
    if c.opset < 11:
        return upsample(c)
    how = _How(
        c.text("mode", "nearest"),
        c.text("coordinate_transformation_mode", "half_pixel"),
        c.text("nearest_mode", "round_prefer_floor"),
        c.float("cubic_coeff_a", -0.75),
        bool(c.int("exclude_outside")),
    )
    policy = c.text("keep_aspect_ratio_policy", "stretch")
    if how.place not in _PLACES:
        raise c.unsupported(f"resizing by {how.place}")
    if c.int("antialias") or policy != "stretch":
        raise c.unsupported("resizing with antialias or to an aspect ratio")
    rank = c.x().rank
    axes = [c.normal(a, rank) for a in c.ints("axes", tuple(range(rank))) or ()]
    scales = tuple(float(s) for s in c.tensor(2).reshape(-1)) if c.has(2) else ()
    given = c.numbers(3) if c.has(3) else None
    if not scales and given is None:
        raise c.unsupported("neither scales nor sizes")
    by_axis: dict[int, tuple[int, float]] = {}
    for at, axis in enumerate(axes):
        before = c.x().shape[axis]
        if scales:
            by_axis[axis] = math.floor(before * scales[at]), scales[at]
        else:
            sizes = [one[at] for one in given or ()]
            if all(n == s[axis] for n, s in zip(sizes, c.x().shapes, strict=True)):
                continue
            if len({s[axis] for s in c.x().shapes}) > 1 or len(set(sizes)) > 1:
                raise FollowsBatch("a size follows the batch size")
            by_axis[axis] = sizes[0], sizes[0] / before
    return _resized(c, how, by_axis)


def upsample(c: Context) -> Value:
    """Up to opset 10: asymmetric, and nearest to below."""
    mode = c.text("mode", "nearest")
    scales = c.attribute("scales")
    scales = [float(s) for s in (c.tensor(1).reshape(-1) if scales is None else scales)]
    sizes = zip(c.x().shape, scales, strict=True)
    by_axis = {axis: (math.floor(n * s), s) for axis, (n, s) in enumerate(sizes)}
    return _resized(c, _How(mode, "asymmetric", "floor", -0.75, False), by_axis)


def _resized(c: Context, how: _How, by_axis: dict[int, tuple[int, float]]) -> Value:
    x = c.x()
    matrices: dict[int, Tensor] = {}
    for axis, (after, scale) in by_axis.items():
        if after == x.shape[axis] and scale == 1:
            continue
        if axis < 2:
            raise c.unsupported("resizing the batch or the channels")
        if not (0 < after <= MOST_PIXELS and scale > 0):
            raise c.unsupported(f"resizing {x.shape[axis]:,} pixels to {after:,}")
        matrices[axis] = _matrix(how, x.shape[axis], after, scale)
    if not matrices:
        return x
    plain = _torchs(x, how, matrices)
    if plain is not None:
        mode, corners, size = plain
        return c.call(F.interpolate, x, size=size, mode=mode, align_corners=corners)
    for axis, matrix in matrices.items():
        x = _along(c, x, axis, matrix)
    return x


def _torchs(
    x: Value, how: _How, matrices: dict[int, Tensor]
) -> tuple[str, bool | None, tuple[int, ...]] | None:
    """torch's mode that does the same, if there is one."""
    if how.mode == "cubic":
        modes, known = [("bicubic", False), ("bicubic", True)], x.rank == 4
    else:
        known = x.rank in (3, 4, 5)
        mode = ("linear", "bilinear", "trilinear")[x.rank - 3] if known else ""
        modes = [("nearest", None), ("nearest-exact", None)]
        if how.mode == "linear":
            modes = [(mode, False), (mode, True)]
    if not known:
        return None
    size = tuple(matrices[d].shape[0] if d in matrices else x.shape[d] for d in range(2, x.rank))
    for mode, corners in modes:
        if all(_same(matrix, mode, corners) for matrix in matrices.values()):
            return mode, corners, size
    return None


def _same(matrix: Tensor, mode: str, corners: bool | None) -> bool:
    """Whether torch's resizing of unit vectors is this matrix."""
    after, before = matrix.shape
    flat = {"linear": "bilinear", "trilinear": "bilinear"}.get(mode, mode)
    unit: Any = torch.eye(before)[None, :, None, :]
    made = F.interpolate(unit, size=(1, after), mode=flat, align_corners=corners)[0, :, 0].T
    return torch.allclose(made, matrix, rtol=0, atol=2e-6)


def _along(c: Context, x: Value, axis: int, matrix: Tensor) -> Value:
    if bool(((matrix == 0) | (matrix == 1)).all()) and bool((matrix.sum(1) == 1).all()):
        return c.call(torch.index_select, x, axis, c.constant(matrix.argmax(1)))
    if axis == x.rank - 1:
        return c.call(torch.matmul, x, c.constant(matrix.T.contiguous()))
    if axis == x.rank - 2:
        return c.call(torch.matmul, c.constant(matrix), x)
    raise c.unsupported("resizing the depth of a volume in a way that torch does not")


def _matrix(how: _How, before: int, after: int, scale: float) -> Tensor:
    """(after, before)"""
    matrix = torch.zeros(after, before, dtype=torch.float64)
    for i in range(after):
        place = _PLACES[how.place](i, before, after, scale)
        for index, weight in _weights(how, place, before):
            matrix[i, min(max(index, 0), before - 1)] += weight
    return matrix.float()


def _half_pixel(i: int, before: int, after: int, scale: float) -> float:
    return (i + 0.5) / scale - 0.5


def _symmetric(i: int, before: int, after: int, scale: float) -> float:
    adjusted = after / (scale * before)
    centre = before / 2
    return centre * (1 - adjusted) + (i + 0.5) / scale - 0.5


def _pytorch(i: int, before: int, after: int, scale: float) -> float:
    return _half_pixel(i, before, after, scale) if after > 1 else 0.0


def _corners(i: int, before: int, after: int, scale: float) -> float:
    return i * (before - 1) / (after - 1) if after > 1 else 0.0


def _asymmetric(i: int, before: int, after: int, scale: float) -> float:
    return i / scale


def _half_down(place: float) -> int:
    return math.ceil(place - 0.5)


def _half_up(place: float) -> int:
    return math.floor(place + 0.5)


_PLACES: dict[str, Callable[[int, int, int, float], float]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": _pytorch,
    "align_corners": _corners,
    "asymmetric": _asymmetric,
}
_ROUND: dict[str, Callable[[float], int]] = {
    "round_prefer_floor": _half_down,
    "round_prefer_ceil": _half_up,
    "floor": math.floor,
    "ceil": math.ceil,
}


def _weights(how: _How, place: float, before: int) -> Sequence[tuple[int, float]]:
    """What is read of which pixels."""
    if how.mode == "nearest":
        return [(_ROUND[how.nearest](round(place, 9)), 1.0)]
    if how.mode == "linear":
        place = min(max(place, 0.0), before - 1.0)
        low = math.floor(place)
        return [(low, 1 - (place - low)), (low + 1, place - low)]
    low = math.floor(place)
    found = [(low + k, _cubic(abs(place - low - k), how.cubic)) for k in (-1, 0, 1, 2)]
    if how.outside:
        found = [(index, w) for index, w in found if 0 <= index < before]
        total = sum(w for _, w in found)
        found = [(index, w / total) for index, w in found]
    return found


def _cubic(distance: float, a: float) -> float:
    """Keys' kernel, https://doi.org/10.1109/TASSP.1981.1163711, equation 15 with a free a."""
    d = distance
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


RULES: dict[str, Rule] = {"Resize": resize, "Upsample": upsample}
