"""A table for tests: time is proportional to multiply-accumulates."""

from __future__ import annotations

from dataclasses import dataclass

from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.table import OpEstimate


@dataclass(frozen=True)
class ByMacs:
    """A microsecond for every thousand multiply-accumulates, and one for every operator."""

    target: str = "macs"

    def estimate(self, key: OpKey) -> OpEstimate:
        return OpEstimate(1e-3 + key.macs * 1e-6, "measured", False)

    def network_overhead_ms(self, precision: str) -> float:
        return 0.01

    def spread(self, precision: str, unlike_share: float) -> float | None:
        return None
