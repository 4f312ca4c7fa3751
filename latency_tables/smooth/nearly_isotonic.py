"""Sequences that should not fall: small falls are levelled, large ones stay.

Nearly-isotonic regression (Tibshirani, Hoefling & Tibshirani 2011, Technometrics 53) minimises

    ½ Σ (yᵢ − βᵢ)²  +  λ Σ max(βᵢ − βᵢ₊₁, 0)

Rises cost nothing, so a staircase is given back as it is.
"""

from __future__ import annotations

import numpy as np

from shrinkc.latency_tables.columns import FloatArray


def nearly_isotonic(values: FloatArray, penalty: float) -> FloatArray:
    """β for y = `values` (n,) and λ = `penalty`, exactly: neighbours that have met stay together
    as λ grows from 0, and between two meetings every block moves at its own constant speed."""
    level, size, rest = values.astype(np.float64), np.ones(len(values)), penalty
    while rest > 0 and (level[:-1] > level[1:]).any():
        falls = np.concatenate([[0.0], level[:-1] > level[1:], [0.0]])
        speed = (falls[:-1] - falls[1:]) / size
        closing, gap = np.diff(speed), -np.diff(level)
        meets = (gap * closing > 0) | ((gap == 0) & (closing < 0))
        after = np.where(meets, gap / np.where(meets, closing, 1.0), np.inf)
        at = int(after.argmin())
        step = min(float(after[at]), rest)
        level, rest = level + step * speed, rest - step
        if step == after[at]:
            both = size[at] + size[at + 1]
            level[at] = (level[at] * size[at] + level[at + 1] * size[at + 1]) / both
            size[at] = both
            level, size = np.delete(level, at + 1), np.delete(size, at + 1)
    return np.repeat(level, size.astype(np.int64))
