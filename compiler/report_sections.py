"""Parts of a report that are lists."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerNoise:
    """One layer's signal to noise in dB when it alone is int8, behind fp32 inputs; and the
    precision it has in the files, fp32 where it was left out."""

    layer: str
    snr_db: float
    precision: str
