"""How far outputs are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def relative_error(got: NDArray[Any], want: NDArray[Any]) -> float:
    """Largest absolute difference over the range of `want`; infinite for another shape or NaN."""
    if got.shape != want.shape:
        return float("inf")
    want64 = np.asarray(want, np.float64)
    spread = float(want64.max() - want64.min()) or float(np.abs(want64).max()) or 1.0
    difference = float(np.abs(np.asarray(got, np.float64) - want64).max())
    return difference / spread if difference == difference else float("inf")
