"""Latency tables: what an operator costs on a target, and how the table knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from ..compiler.errors import TableError
from .files import Measurement, Validation
from .key import OpKey
from .meta import TableMeta
from .model import FittedModel

CACHED_ESTIMATES = 1 << 16


@dataclass(frozen=True, slots=True)
class OpEstimate:
    """Milliseconds of one operator. `source` says how they are known: "measured", "fitted", or
    "memory-bound" (a kind of operator the table knows nothing of, priced by the bytes it moves).
    `extrapolated`: outside what was measured or fitted."""

    ms: float
    source: str
    extrapolated: bool


@dataclass(frozen=True)
class LatencyTable:
    """One target's table. `models` are by precision; a measured table may have none."""

    target: str
    meta: TableMeta
    measured: Mapping[OpKey, Measurement] = field(default_factory=dict[OpKey, Measurement])
    models: Mapping[str, FittedModel] = field(default_factory=dict[str, FittedModel])
    validation: tuple[Validation, ...] = ()

    @property
    def precisions(self) -> tuple[str, ...]:
        return self.meta.precisions

    def estimate(self, key: OpKey) -> OpEstimate:
        """Measured if this very operator was, else by the table's model.

        Raises TableError for a precision the table lacks, and for an operator that was not
        measured when the table has no model.
        """
        return self._cached(key)

    def network_overhead_ms(self, precision: str) -> float:
        """What an inference costs besides its operators. Raises TableError like `estimate`."""
        self._check(precision)
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
        measured = self.measured.get(key)
        if measured is not None:
            return OpEstimate(measured.median_us / 1e3, "measured", False)
        model = self.models.get(key.precision)
        if model is None:
            raise TableError(
                f"target {self.target} has no measurement of {_described(key)} and no fitted "
                "model; measure this operator or choose another target"
            )
        source = "fitted" if model.knows(key) else "memory-bound"
        return OpEstimate(model.operator_us(key) / 1e3, source, not model.covers(key))

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
