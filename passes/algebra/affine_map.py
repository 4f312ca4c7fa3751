"""The numbers of linear window maps: kernels compose and add, and the constant part is exact.

    y = K ⋆ x + B,   K (out, in/groups, kh, kw),   B (out, 1, 1) or, where it differs from position
                                                   to position, (out, h, w)

B is what the maps give for zero input. A bias in front of a zero-padded convolution is missing at
the border, so B is a map there (for a 3×3 kernel with padding 1: nine distinct vectors). All
tensors are float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from shrinkc.passes.algebra.window import Pair, Window, add, compose, pointwise, reads_padding, taps

# A constant map that varies less than this, relative to its size, is a rounded vector.
_UNIFORM = 1e-13


@dataclass(frozen=True, eq=False)
class AffineMap:
    """y = K ⋆ x + B from a map of `size` (height, width) to one of `out_size`."""

    window: Window
    weight: Tensor
    constant: Tensor
    size: Pair
    out_size: Pair

    @property
    def uniform(self) -> bool:
        """The constant part is one vector."""
        return self.constant.shape[1:] == (1, 1)


def identity(channels: int, size: Pair) -> AffineMap:
    return AffineMap(
        pointwise(channels),
        torch.ones(channels, 1, 1, 1, dtype=torch.float64),
        torch.zeros(channels, 1, 1, dtype=torch.float64),
        *(size, size),
    )


def apply(
    window: Window, weight: Tensor, shift: Tensor, out_size: Pair, first: AffineMap
) -> AffineMap:
    """`weight` ⋆ first(x) + `shift`, the constant part exact at the borders.

    `window.reads_beyond_padding` must be false for the two. `shift` is (out, 1, 1) or (out, h, w).
    """
    constant = convolve_constant(window, weight, first.constant, first.out_size, out_size) + shift
    return AffineMap(
        compose(first.window, window),
        compose_weights(first.window, first.weight, window, weight),
        collapse(constant),
        *(first.size, out_size),
    )


def sum_maps(a: AffineMap, b: AffineMap) -> AffineMap:
    """a(x) + b(x). Raises ValueError when the strides differ."""
    window = add(a.window, b.window)
    weight = torch.zeros(window.weight_shape, dtype=torch.float64)
    for part in (a, b):
        rows, columns = (taps(*axes) for axes in zip(part.window.axes, window.axes, strict=True))
        weight[:, :, rows, columns] += regroup(part.weight, part.window.groups, window.groups)
    return AffineMap(window, weight, collapse(a.constant + b.constant), a.size, a.out_size)


# --- kernels -------------------------------------------------------------------------------------


def compose_weights(first: Window, inner: Tensor, second: Window, outer: Tensor) -> Tensor:
    """The kernel of `second(first(x))`.

    K[o, c, t] = Σ_m Σ_{u₁+u₂=t} outer[o, m, u₂]·inner[m, c, u₁], offsets in input positions.
    `inner` (m, c/g₁, …), `outer` (o, m/g₂, …); the result (o, c/g, …) with g = gcd(g₁, g₂).
    """
    window = compose(first, second)
    left, right, shape = _paired_groups(first, inner, second, outer, window.groups)
    kernel = torch.zeros(*window.kernel, *shape, dtype=torch.float64)
    for i, j in _positions(outer):
        for p, q in _positions(inner):
            row, column = (
                (u2 * b.dilation * a.stride + u1 * a.dilation) // w.dilation
                for u1, u2, a, b, w in zip(
                    (p, q), (i, j), first.axes, second.axes, window.axes, strict=True
                )
            )
            kernel[row, column] += left[i, j] @ right[p, q]
    return _from_pairs(kernel, first, second, window)


def regroup(weight: Tensor, groups: int, fewer: int) -> Tensor:
    """The same kernel with `fewer` groups, a divisor of `groups`: zeros where nothing connected.

    (out, in/groups, kh, kw) → (out, in/fewer, kh, kw)
    """
    if groups == fewer:
        return weight
    outputs, inputs, kh, kw = weight.shape
    ratio = groups // fewer
    blocks = weight.reshape(fewer, ratio, outputs // groups, inputs, kh, kw)
    dense = weight.new_zeros(fewer, ratio, outputs // groups, ratio, inputs, kh, kw)
    index = torch.arange(ratio)
    dense[:, index, :, index] = blocks.transpose(0, 1)
    return dense.reshape(outputs, ratio * inputs, kh, kw)


def _positions(kernel: Tensor) -> list[Pair]:
    return [(i, j) for i in range(kernel.shape[2]) for j in range(kernel.shape[3])]


def _paired_groups(
    first: Window, inner: Tensor, second: Window, outer: Tensor, groups: int
) -> tuple[Tensor, Tensor, tuple[int, int, int]]:
    """Both kernels as (kh, kw, batch, rows, columns), so that their product runs over the finer
    of the two groupings and no depthwise kernel is ever made dense in the sum; and the shape of
    the products."""
    middle, inputs, outputs = first.out_channels, first.in_channels, second.out_channels
    fine = max(first.groups, second.groups)
    if first.groups >= second.groups:
        outer = regroup(outer, second.groups, groups)
        left = outer.reshape(groups, outputs // groups, fine // groups, middle // fine, *_kk(outer))
        left = left.transpose(1, 2).reshape(fine, outputs // groups, middle // fine, *_kk(outer))
        right = inner.reshape(fine, middle // fine, inputs // fine, *_kk(inner))
        shape = (fine, outputs // groups, inputs // fine)
    else:
        inner = regroup(inner, first.groups, groups)
        left = outer.reshape(fine, outputs // fine, middle // fine, *_kk(outer))
        right = inner.reshape(fine, middle // fine, inputs // groups, *_kk(inner))
        shape = (fine, outputs // fine, inputs // groups)
    order = (3, 4, 0, 1, 2)
    return left.permute(order).contiguous(), right.permute(order).contiguous(), shape


def _from_pairs(kernel: Tensor, first: Window, second: Window, window: Window) -> Tensor:
    """(kh, kw, batch, rows, columns) → (out, in/groups, kh, kw)"""
    kernel = kernel.permute(2, 3, 4, 0, 1)
    if first.groups >= second.groups:
        batch, rows, columns, *kk = kernel.shape
        ratio = batch // window.groups
        kernel = kernel.reshape(window.groups, ratio, rows, columns, *kk).transpose(1, 2)
    return kernel.reshape(window.weight_shape)


def _kk(kernel: Tensor) -> Pair:
    return kernel.shape[2], kernel.shape[3]


# --- constants -----------------------------------------------------------------------------------


def convolve_constant(
    window: Window, weight: Tensor, constant: Tensor, size: Pair, out_size: Pair
) -> Tensor:
    """`weight` ⋆ `constant`, zeros outside the borders.

    `constant` is (in, 1, 1), the same at every position of a map of `size`, or (in, h, w). The
    result is (out, 1, 1) where it is the same everywhere, else (out, h', w').
    """
    if not bool(constant.any()):
        return constant.new_zeros(window.out_channels, 1, 1)
    spread = constant.expand(-1, *size)
    if constant.shape[1:] == (1, 1) and not reads_padding(window, size, out_size):
        spread = constant.expand(-1, *(axis.extent for axis in window.axes))
        return _correlate(spread, weight, window, stride=(1, 1))
    (rows, columns), (height, width), (tall, wide) = window.axes, size, out_size
    around = (
        *(columns.pad, columns.pad_after(width, wide)),
        *(rows.pad, rows.pad_after(height, tall)),
    )
    return _correlate(F.pad(spread, around), weight, window, window.stride)


def collapse(constant: Tensor) -> Tensor:
    """One vector where the map is uniform up to rounding."""
    if constant.shape[1:] == (1, 1):
        return constant
    middle = constant[:, constant.shape[1] // 2, constant.shape[2] // 2, None, None]
    spread = float((constant - middle).abs().max())
    return middle.clone() if spread <= _UNIFORM * float(constant.abs().max()) else constant


def _correlate(x: Tensor, weight: Tensor, window: Window, stride: Pair) -> Tensor:
    return F.conv2d(x[None], weight, None, stride, 0, window.dilation, window.groups)[0]
