"""Latency tables: what an operator costs on a target, and how the table knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from shrinkc.errors import TableError
from shrinkc.latency_tables.correct import Corrections
from shrinkc.latency_tables.files import Validation
from shrinkc.latency_tables.interpolate import CLIFFS, Interpolator
from shrinkc.latency_tables.kernels.model import FittedModel
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.measured import LazyOps, MeasuredOps, Measurement
from shrinkc.latency_tables.meta import TableMeta

CACHED_ESTIMATES = 1 << 16
MIN_MEASURED = 5  # operators of a kind; from fewer nothing is interpolated
NETWORK = "network"  # the operator that stands for what an inference costs besides the others


@dataclass(frozen=True, slots=True)
class OpEstimate:
    """Milliseconds of one operator. `source` says how they are known: "measured", "interpolated"
    (from measured operators like it), "fitted" (by a model of whole networks), or "memory-bound"
    (a kind of operator the table knows nothing of, priced by the bytes it moves). `extrapolated`:
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
        measured = self.measured.get(key)
        if measured is not None:
            return OpEstimate(measured.median_us / 1e3, "measured", False)
        near, model = self._interpolator(key.op, key.precision), self.models.get(key.precision)
        if near is not None and (model is None or near.includes(key)):
            return OpEstimate(near.latency_us(key) / 1e3, "interpolated", not near.includes(key))
        if model is not None:
            source = "fitted" if model.knows(key) else "memory-bound"
            return OpEstimate(model.operator_us(key) / 1e3, source, not model.covers(key))
        return self._by_bytes(key)

    def _by_bytes(self, key: OpKey) -> OpEstimate:
        """Like the measured kind that moves bytes fastest, without its work."""
        ops = self._part(key.precision)
        kinds = (
            self._interpolator(op, key.precision)
            for op in (ops.kinds if ops else ())
            if op != NETWORK
        )
        prices = [near.bytes_us(key) for near in kinds if near is not None]
        if not prices:
            raise TableError(
                f"target {self.target} has no measurement of {_described(key)} and no fitted "
                "model; measure this operator or choose another target"
            )
        return OpEstimate(min(prices) / 1e3, "memory-bound", True)

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

    def _check(self, precision: str) -> None:
        if precision not in self.precisions:
            raise TableError(
                f"target {self.target} has no figures for {precision}; "
                f"it has {', '.join(self.precisions)}"
            )


def _described(key: OpKey) -> str:
    height, width = key.in_size
    return (
        f"{key.op} {key.in_channels}→{key.out_channels} kernel {key.kernel[0]}×{key.kernel[1]} "
        f"on {height}×{width} in {key.precision}"
    )
