"""Latency tables: what an operator costs on a target, and how the table knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from math import isfinite, prod

from shrinkc.errors import TableError
from shrinkc.latency_tables.columns import OpColumns
from shrinkc.latency_tables.correct import Corrections
from shrinkc.latency_tables.files import Validation
from shrinkc.latency_tables.interpolate import CLIFFS, Interpolator
from shrinkc.latency_tables.kernels.model import FittedModel
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.measured import LazyOps, MeasuredOps, Measurement
from shrinkc.latency_tables.meta import TableMeta
from shrinkc.latency_tables.tested.interval import spread

CACHED_ESTIMATES = 1 << 16
MIN_MEASURED = 5  # operators of a kind; from fewer nothing is interpolated
NETWORK = "network"  # the operator that stands for what an inference costs besides the others


@dataclass(frozen=True, slots=True)
class OpEstimate:
    """Milliseconds of one operator. `source` says how they are known: "measured", "interpolated"
    (from measured operators like it), "fitted" (by a model of whole networks), "priced as a 1×1
    convolution" (of the same shape: a product of a kind that was not measured), or "memory-bound"
    (any other kind the table knows nothing of, priced by the bytes it moves). `extrapolated`:
    outside what was measured or fitted."""

    ms: float
    source: str
    extrapolated: bool


@dataclass(frozen=True, repr=False)
class LatencyTable:
    """One target's table. `models` are by precision; a measured table may have none.
    `corrections`, by precision, were fitted to networks on the user's own device."""

    target: str
    meta: TableMeta
    measured: Mapping[OpKey, Measurement] = field(default_factory=dict[OpKey, Measurement])
    models: Mapping[str, FittedModel] = field(default_factory=dict[str, FittedModel])
    validation: tuple[Validation, ...] = ()
    corrections: Mapping[str, Corrections] = field(default_factory=dict[str, Corrections])

    def __repr__(self) -> str:
        meta = self.meta
        return f"LatencyTable({self.target}: {meta.device}, {meta.runtime}, {meta.kind})"

    @property
    def precisions(self) -> tuple[str, ...]:
        return self.meta.precisions

    def estimate(self, key: OpKey) -> OpEstimate:
        """Measured if this very operator was; else from measured operators of its kind; else by
        the table's model.

        Raises TableError for a precision the table lacks, and when the table can say nothing.
        """
        return self._cached(key)

    def network_overhead_ms(self, precision: str) -> float:
        """What an inference costs besides its operators. Raises TableError like `estimate`."""
        self._check(precision)
        measured = self.measured.get(OpKey(NETWORK, 1, 1, precision=precision))
        if measured is not None:
            return measured.median_us / 1e3
        model = self.models.get(precision)
        return model.network_us() / 1e3 if model else 0.0

    def mean_error_percent(self, precision: str, held_out: str = "network") -> float | None:
        """Mean absolute relative error of `validation`; None where it has no such rows."""
        rows = [v for v in self.validation if (v.precision, v.held_out) == (precision, held_out)]
        return 100 * sum(abs(v.relative_error) for v in rows) / len(rows) if rows else None

    def spread(self, precision: str, unlike_share: float) -> float | None:
        """The factor by which a network may be slower or faster than predicted; see `interval`."""
        return spread(self.validation, precision, unlike_share)

    @cached_property
    def _cached(self) -> Callable[[OpKey], OpEstimate]:
        return lru_cache(CACHED_ESTIMATES)(self._estimate)

    def _estimate(self, key: OpKey) -> OpEstimate:
        self._check(key.precision)
        found, corrections = self._known(key), self.corrections.get(key.precision)
        if corrections is None:
            return found
        return replace(found, ms=corrections.apply(key, found.ms * 1e3) / 1e3)

    def _known(self, key: OpKey) -> OpEstimate:
        near, model = self._interpolator(key.op, key.precision), self.models.get(key.precision)
        measured = self.measured.get(key)
        if measured is not None and (measured.repeated or near is None or near.bears_out(key)):
            return OpEstimate(measured.median_us / 1e3, "measured", False)
        if near is not None and near.includes(key):
            return self._interpolated(key, near)
        if model is not None:
            source = "fitted" if model.knows(key) else "memory-bound"
            return OpEstimate(model.operator_us(key) / 1e3, source, not model.covers(key))
        return self._outside(key, near)

    def _outside(self, key: OpKey, near: Interpolator | None) -> OpEstimate:
        """Of operators beyond all that was measured. Products are never cheaper than the same
        arithmetic in a 1×1 convolution: of other kinds only few may have been measured."""
        found: list[OpEstimate] = []
        alike = _as_pointwise(key)
        if alike is not None and self._interpolator(alike.op, alike.precision) is not None:
            found.append(OpEstimate(self._known(alike).ms, "priced as a 1×1 convolution", True))
        if near is not None:
            found.append(self._interpolated(key, near))
        return max(found, key=lambda one: one.ms) if found else self._by_bytes(key)

    def _interpolated(self, key: OpKey, near: Interpolator) -> OpEstimate:
        us = max(near.latency_us(key), self._least_us(key))
        return OpEstimate(us / 1e3, "interpolated", not near.includes(key))

    def _least_us(self, key: OpKey) -> float:
        """At the fastest rates that were measured, of any kind: of bytes, unless a stride skips
        some, and of multiply-accumulates, with such a kernel if it was measured. 0 where no
        operator tells."""
        kinds, taps, least = self._kinds(key.precision), prod(key.kernel), 0.0
        per_byte = min(kind.per_byte for kind in kinds)
        if taps >= prod(key.stride) and isfinite(per_byte):
            least = per_byte * self._bytes(key)
        per_mac = [kind.per_mac[taps] for kind in kinds if taps in kind.per_mac]
        per_mac = per_mac or [rate for kind in kinds for rate in kind.per_mac.values()]
        return max(least, min(per_mac, default=0.0) * key.macs * self.meta.batch)

    def _by_bytes(self, key: OpKey) -> OpEstimate:
        """Like the measured kind that moves so many bytes fastest."""
        prices = [near.moving_us(self._bytes(key)) for near in self._kinds(key.precision)]
        if not prices:
            raise TableError(
                f"target {self.target} has no measurement of {_described(key)} and no fitted "
                "model; measure this operator or choose another target"
            )
        us = max(min(prices), self._least_us(key))
        return OpEstimate(us / 1e3, "memory-bound", True)

    def _bytes(self, key: OpKey) -> float:
        """That an inference of the table's batch moves."""
        return float(OpColumns.of((key,)).bytes(self.meta.batch)[0])

    def _kinds(self, precision: str) -> list[Interpolator]:
        """Of every kind that has enough measured operators."""
        if precision not in self._all_kinds:
            ops = self._part(precision)
            names = (op for op in (ops.kinds if ops else ()) if op != NETWORK)
            kinds = (self._interpolator(op, precision) for op in names)
            self._all_kinds[precision] = [near for near in kinds if near is not None]
        return self._all_kinds[precision]

    def _part(self, precision: str) -> MeasuredOps | None:
        if isinstance(self.measured, LazyOps):
            return self.measured.part(precision)
        return self._ops

    def _interpolator(self, op: str, precision: str) -> Interpolator | None:
        if (op, precision) not in self._interpolators:
            ops = self._part(precision)
            found = ops.kind(op, precision) if ops else None
            self._interpolators[op, precision] = (
                Interpolator(*found, CLIFFS[self.meta.cliffs], self.meta.batch)
                if found is not None and len(found[1]) >= MIN_MEASURED
                else None
            )
        return self._interpolators[op, precision]

    @cached_property
    def _ops(self) -> MeasuredOps:
        return MeasuredOps.of(self.measured)

    @cached_property
    def _interpolators(self) -> dict[tuple[str, str], Interpolator | None]:
        return {}

    @cached_property
    def _all_kinds(self) -> dict[str, list[Interpolator]]:
        return {}

    def _check(self, precision: str) -> None:
        if precision not in self.precisions:
            raise TableError(
                f"target {self.target} has no figures for {precision}; "
                f"it has {', '.join(self.precisions)}"
            )


def _as_pointwise(key: OpKey) -> OpKey | None:
    """The 1×1 convolution that does the multiply-accumulates of a product: of its rows, or of a
    transposed convolution's input pixels, whose every tap is an output channel."""
    taps = prod(key.kernel) if key.op == "conv_transpose2d" else 1
    if key.op not in ("linear", "matmul", "conv_transpose2d"):
        return None
    size = key.in_size if key.op == "conv_transpose2d" else key.out_size
    return replace(
        key,
        op="conv2d",
        out_channels=key.out_channels * taps,
        in_size=size,
        out_size=size,
        **dict.fromkeys(("kernel", "stride", "dilation"), (1, 1)),
    )


def _described(key: OpKey) -> str:
    height, width = key.in_size
    return (
        f"{key.op} {key.in_channels}→{key.out_channels} kernel {key.kernel[0]}×{key.kernel[1]} "
        f"on {height}×{width} in {key.precision}"
    )
