"""A latency table with cliffs, for tests of pruning."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.table import OpEstimate


@dataclass
class Steps:
    """Work in tiles of `tile` output channels, a penalty where they are not full, values moved."""

    tile: int = 4
    target: str = "made up"

    def estimate(self, key: OpKey) -> OpEstimate:
        outputs = math.ceil(key.out_channels / self.tile) * self.tile
        work = key.macs * outputs / key.out_channels
        penalty = 0.3 * work if key.out_channels % self.tile else 0.0
        moved = key.input_elements + key.output_elements
        return OpEstimate((work + penalty + 4 * moved) / 1e6, "made up", False)

    def network_overhead_ms(self, precision: str) -> float:
        return 0.0

    def spread(self, precision: str, unlike_share: float) -> float | None:
        return None
