"""How far outputs are apart."""

from __future__ import annotations

import numpy as np

from shrinkc.compiler.formats.runner import Array


def relative_error(got: Array, want: Array) -> float:
    """Largest absolute difference over the range of `want`; infinite for another shape or NaN."""
    if got.shape != want.shape:
        return float("inf")
    want64 = want.astype(np.float64)
    spread = float(want64.max() - want64.min()) or float(np.abs(want64).max()) or 1.0
    difference = float(np.abs(got.astype(np.float64) - want64).max())
    return difference / spread if difference == difference else float("inf")
