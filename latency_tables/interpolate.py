"""Operators that were not measured, from those like them that were.

The logarithm of an operator's latency is a smooth trend plus what its neighbours have in common:

    log t(x) = log b(x) + z(x),      b(x) = c₀ + c₁ · bytes + Σ c_i · work_i,  c ≥ 0

work_i is the work with extents rounded up to the runtime's i-th tile, work₀ as it is. b is fitted
to all measured operators of the kind in relative errors; z is ordinary kriging (Cressie
1993, §3.2) over the nearest measured operators with a Matérn-3/2 covariance. Where operators are
near each other is measured in channels, sizes, kernel, stride *and* in what makes latency jump:
the number of matrix tiles, and whether channels fill the kernel's vectors. So the cliffs that were
measured survive between the measured points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from shrinkc.latency_tables.columns import FloatArray, OpColumns
from shrinkc.latency_tables.key import OpKey

NEIGHBOURS = 32
NUGGET = 4e-3  # of the covariance: what two measurements of one operator differ by


@dataclass(frozen=True, slots=True)
class Cliffs:
    """Where a runtime's latency jumps. `tiles`: (rows, columns) of matrix product that one kernel
    call or thread block computes, (pixels, output channels); `multiples`: of channels that fill
    its vectors."""

    tiles: tuple[tuple[int, int], ...]
    in_multiples: tuple[int, ...]
    out_multiples: tuple[int, ...]


CLIFFS = {
    "cpu": Cliffs(tiles=((4, 8), (4, 16)), in_multiples=(4, 8), out_multiples=(4, 8, 16)),
    "gpu": Cliffs(tiles=((128, 128), (64, 64)), in_multiples=(32, 64), out_multiples=(64,)),
}

# Distances are divided by these: how far one has to go for latency to change alike. Tuned on a
# split of the V100 fp16 convolutions other than the one whose error is stated.
_CHANNELS_IN, _CHANNELS_OUT, _SIZE, _KERNEL, _STRIDE = 4.3, 1.5, 1.5, 0.25, 0.6
_FUSED, _TILES, _WORK, _BYTES, _MULTIPLE, _OTHER = 4.2, 4.8, 17.0, 10.0, 5.5, 1.0


@dataclass(frozen=True)
class Interpolator:
    """Measured operators of one kind and precision; `medians_us` is (operators,)."""

    columns: OpColumns
    medians_us: FloatArray
    cliffs: Cliffs
    batch: int

    def latency_us(self, key: OpKey) -> float:
        """Of an operator of this kind."""
        one = OpColumns.of((key,))
        at = coordinates(one, self.cliffs, self.batch)[0]
        count = min(NEIGHBOURS, len(self.medians_us))
        distance: FloatArray
        distance, index = self._tree.query(at, k=list(range(1, count + 1)))
        near = self._at[index]
        between = np.sqrt(np.square(near[:, None] - near[None]).sum(-1))
        covariance = _matern(between) + NUGGET * np.eye(count)
        solved = np.linalg.solve(covariance, np.stack([_matern(distance), np.ones(count)], 1))
        z = self._residual[index]
        mean = solved[:, 1] @ z / solved[:, 1].sum()
        value = mean + solved[:, 0] @ (z - mean)
        return float(self._trend(one)[0] * np.exp(np.clip(value, z.min() - 0.5, z.max() + 0.5)))

    def bytes_us(self, key: OpKey) -> float:
        """Of an operator of another kind, if it only moved its bytes like those of this kind."""
        moved = OpColumns.of((key,)).bytes(self.batch)[0]
        return float(self.trend[0] + self.trend[1] * moved)

    def includes(self, key: OpKey) -> bool:
        """Whether the operator lies within what was measured: channels, size, kernel."""
        one = _extents(OpColumns.of((key,)))[0]
        low, high = self._range
        return bool(np.all(low <= one) and np.all(one <= high))

    @cached_property
    def trend(self) -> FloatArray:
        """c of the module's equation: µs, µs per byte, µs per unit of work."""
        from scipy.optimize import nnls  # takes longer to import than tables to load

        amounts = self._amounts(self.columns) / self.medians_us[:, None]
        scale = np.maximum(np.abs(amounts).max(axis=0), 1e-30)
        q, r = np.linalg.qr(amounts / scale)
        solved, _ = nnls(r, q.T @ np.ones(len(amounts)))
        return solved / scale

    def _trend(self, columns: OpColumns) -> FloatArray:
        return np.maximum(self._amounts(columns) @ self.trend, 1e-3)

    def _amounts(self, columns: OpColumns) -> FloatArray:
        work = columns.work * self.batch
        pixels, out = self.batch * columns.area("out"), columns.column("out_channels")
        padded = [
            work * (np.ceil(pixels / rows) * rows / pixels) * (np.ceil(out / width) * width / out)
            for rows, width in self.cliffs.tiles
        ]
        return np.stack([np.ones(len(out)), columns.bytes(self.batch), work, *padded], 1)

    @cached_property
    def _at(self) -> FloatArray:
        return coordinates(self.columns, self.cliffs, self.batch)

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(self._at)

    @cached_property
    def _residual(self) -> FloatArray:
        return np.log(self.medians_us / self._trend(self.columns))

    @cached_property
    def _range(self) -> tuple[FloatArray, FloatArray]:
        extents = _extents(self.columns)
        return extents.min(axis=0), extents.max(axis=0)


def coordinates(columns: OpColumns, cliffs: Cliffs, batch: int) -> FloatArray:
    """Where operators lie, (operators, dimensions), in units of their length scales."""
    out, pixels = columns.column("out_channels"), batch * columns.area("out")
    inside = columns.column("in_channels") / columns.column("groups")
    dense = columns.op not in ("depthwise_conv2d",)
    parts = [
        np.log2(columns.column("in_channels")) / _CHANNELS_IN,
        np.log2(out) / _CHANNELS_OUT if dense else np.zeros(len(out)),
        np.log2(columns.area("out")) / 2 / _SIZE,
        np.log2(columns.area("kernel")) / 2 / _KERNEL,
        np.log2(columns.column("stride_h")) / _STRIDE,
        np.log2(columns.column("dilation_h")) / _OTHER,
        np.log2(columns.column("groups")) / _OTHER if dense else np.zeros(len(out)),
        columns.fused / _FUSED,
        np.log2(columns.work * batch) / _WORK,
        np.log2(columns.bytes(batch)) / _BYTES,
    ]
    for rows, width in cliffs.tiles:
        parts.append(np.log2(np.ceil(pixels / rows) * np.ceil(out / width)) / _TILES)
    parts += [(inside % m > 0) / _MULTIPLE for m in cliffs.in_multiples]
    parts += [(out % m > 0) / _MULTIPLE for m in cliffs.out_multiples]
    return np.stack(parts, axis=1).astype(np.float64)


def _matern(distance: FloatArray) -> FloatArray:
    scaled = np.sqrt(3.0) * distance
    return (1 + scaled) * np.exp(-scaled)


def _extents(columns: OpColumns) -> FloatArray:
    return np.stack(
        [
            *(columns.column("in_channels"), columns.column("out_channels")),
            *(columns.area("in"), columns.area("kernel")),
        ],
        1,
    )
