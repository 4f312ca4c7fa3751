"""Operators that were not measured, from those like them that were.

The logarithm of an operator's latency is a smooth trend plus what its neighbours have in common:

    log t(x) = log b(x) + z(x),      b(x) = c₀ + c₁ · bytes + Σ c_i · work_i,  c ≥ 0

work_i is the work with extents rounded up to the runtime's i-th tile, work₀ as it is. b is fitted
to all measured operators of the kind in relative errors; z is kriging over the nearest measured
operators, without those that none of their neighbours bears out (`smooth.kriging`). Where operators
are near each other is measured in channels, sizes, kernel, stride *and* in what makes latency jump:
the number of matrix tiles, and whether channels fill the kernel's vectors. So the cliffs that were
measured survive between the measured points.

Over the width, latency is a curve. One is drawn around every power of two, from half of it to its
double, through one set of neighbours; noise in which a wider operator is the cheaper one is
levelled (`smooth.nearly_isotonic`); a width between two powers of two gets a mean of both curves.
So a planner finds a wider operator cheaper only where that repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import exp, log2
from typing import Any

import numpy as np

from shrinkc.latency_tables.columns import NUMBERS, FloatArray, OpColumns
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.smooth.kriging import Kriging
from shrinkc.latency_tables.smooth.nearly_isotonic import nearly_isotonic

NEIGHBOURS = 48
LEVELLED = 0.1  # what a fall costs: λ of the regression, in logarithms
GRID, FINEST = 16, 8  # a curve's points: at 16ths of its power of two, 8 channels apart at least
CACHED_CURVES = 1 << 14
SATURATING = 10.0  # times as long as what an operator costs besides its work


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
        width = key.out_channels
        low = 1 << width.bit_length() - 1
        value, share = self._log_us(key, low), log2(width / low)
        if share > 0:
            value += share * (self._log_us(key, 2 * low) - value)
        return exp(value)

    def bears_out(self, key: OpKey) -> bool:
        """Whether the timing of this very operator agrees with those of operators like it."""
        at = coordinates(OpColumns.of((key,)), self.cliffs, self.batch)[0]
        return bool((self._near(at).points == at).all(1).any())

    def moving_us(self, moved: float) -> float:
        """Of an operator of another kind that moves so many bytes, if it takes for them what those
        of this kind take for theirs; never faster than the fastest of them."""
        constant, per_byte, least = self._moving
        return max(constant + per_byte * moved, least * moved)

    def includes(self, key: OpKey) -> bool:
        """Whether the operator lies within what was measured: channels, size, kernel and so on."""
        one = _extents(OpColumns.of((key,)))[0]
        low, high = self._range
        return bool(np.all(low <= one) and np.all(one <= high))

    @cached_property
    def trend(self) -> FloatArray:
        """c of the module's equation: µs, µs per byte, µs per unit of work."""
        return _prices(self._amounts(self.columns), self.medians_us)

    @cached_property
    def per_mac(self) -> dict[int, float]:
        """Kernel area → the fewest µs per multiply-accumulate, of operators that saturate the
        machine."""
        if not self.columns.multiplies:
            return {}
        saturating = self.medians_us > SATURATING * self.trend[0]
        area = self.columns.area("kernel")
        per_mac = self.medians_us / (self.columns.work * self.batch)
        return {
            int(taps): float(per_mac[saturating & (area == taps)].min())
            for taps in np.unique(area[saturating])
        }

    @cached_property
    def per_byte(self) -> float:
        """The fewest µs per byte, of operators that read all of their input and saturate the
        machine; infinite where none does."""
        moved, taken = self._read_whole
        saturating = taken > SATURATING * self.trend[0]
        return float((taken / moved)[saturating].min(initial=np.inf))

    @cached_property
    def _moving(self) -> tuple[float, float, float]:
        """µs, µs per byte, and the fewest µs per byte of all."""
        moved, taken = self._read_whole
        constant, per_byte = _prices(np.stack([np.ones(len(moved)), moved], 1), taken)
        return float(constant), float(per_byte), float((taken / moved).min())

    @cached_property
    def _read_whole(self) -> tuple[FloatArray, FloatArray]:
        """Bytes and µs of the operators that read all of their input; of all where none does."""
        whole = self.columns.area("kernel") >= self.columns.area("stride")
        whole = whole if whole.any() else ~whole
        return self.columns.bytes(self.batch)[whole], self.medians_us[whole]

    def _log_us(self, key: OpKey, around: int) -> float:
        """The logarithm of the latency on the curve around a width."""
        curve, width = (
            self._curve(replace(key, **dict.fromkeys(_varying(key), 1)), around),
            key.out_channels,
        )
        at = int(np.searchsorted(curve.widths, width))
        if at < len(curve.widths) and curve.widths[at] == width:
            return float(curve.level[at])
        between = np.insert(curve.values, at, self._values(key, (width,), curve.near)[0])
        return float(nearly_isotonic(between, LEVELLED)[at])

    @cached_property
    def _curve(self) -> Callable[[OpKey, int], _Curve]:
        return lru_cache(CACHED_CURVES)(self._drawn)

    def _drawn(self, key: OpKey, around: int) -> _Curve:
        near = self._near(coordinates(_widths(key, (around,)), self.cliffs, self.batch)[0])
        step = max(FINEST, around // GRID)
        first = max(around // 2 // step, 1) * step
        widths = tuple(range(first, 2 * around + 1, step))
        values = self._values(key, widths, near)
        return _Curve(near, widths, values, nearly_isotonic(values, LEVELLED))

    def _near(self, at: FloatArray) -> Kriging:
        count = min(NEIGHBOURS, len(self.medians_us))
        index = self._tree.query(at, k=list(range(1, count + 1)))[1]
        return Kriging.of(self._at[index], self._residual[index])

    def _values(self, key: OpKey, widths: Sequence[int], near: Kriging) -> FloatArray:
        columns = _widths(key, widths)
        return near.at(coordinates(columns, self.cliffs, self.batch)) + np.log(self._trend(columns))

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


@dataclass(frozen=True, eq=False)
class _Curve:
    """Logarithms of latencies at `widths`: `values`, and `level` without the noise."""

    near: Kriging
    widths: tuple[int, ...]
    values: FloatArray
    level: FloatArray


def _widths(key: OpKey, widths: Sequence[int]) -> OpColumns:
    """The operator at every width."""
    one = OpColumns.of((key,))
    table = np.repeat(one.table, len(widths), 0)
    for name in _varying(key):
        table[:, NUMBERS.index(name)] = widths
    return replace(one, table=table, fused=np.repeat(one.fused, len(widths)))


def _varying(key: OpKey) -> tuple[str, ...]:
    """What changes with the width: the channels of the input, too, where the result has as many."""
    if key.op == "depthwise_conv2d":
        return "out_channels", "in_channels", "groups"
    keeps = key.macs == 0 and key.in_channels == key.out_channels
    return ("out_channels", "in_channels") if keeps else ("out_channels",)


def _prices(amounts: FloatArray, taken_us: FloatArray) -> FloatArray:
    """Non-negative prices (features,) of `amounts` (operators, features), by relative errors."""
    from scipy.optimize import nnls  # takes longer to import than tables to load

    relative = amounts / taken_us[:, None]
    scale = np.maximum(np.abs(relative).max(axis=0), 1e-30)
    q, r = np.linalg.qr(relative / scale)
    solved, _ = nnls(r, q.T @ np.ones(len(relative)))
    return solved / scale


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


def _extents(columns: OpColumns) -> FloatArray:
    return np.stack(
        [
            *(columns.column("in_channels"), columns.column("out_channels")),
            *(columns.area("in"), columns.area("kernel")),
            *(columns.column("stride_h"), columns.column("dilation_h"), columns.column("groups")),
        ],
        1,
    )
