"""How far a network's measured latency may lie from its prediction.

Nine of ten lie within a factor of it, which follows from the networks that the table was tested on
(split conformal prediction: Lei 2018, "Distribution-Free Predictive Inference"): of n errors |log
(measured / predicted)| the ⌈0.9 (n + 1)⌉-th; the largest and half of it more where there are too
few. Where only part of a network's time is in operators like those of the fit, the rest is as
uncertain as networks unlike the fit's were, or as a factor of two where none was measured. So is
everything where fewer than four networks were tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp, log

from shrinkc.latency_tables.files import UNLIKE, Validation

LEVEL = 0.9
UNTRIED = log(2.0)
FEWEST = 4  # networks that tell how wrong the table is of such
TOO_FEW = 1.5
_HARDEST_FIRST = ("family", "network", "operator")  # that a table may have been tested by


def spread(validation: Sequence[Validation], precision: str, unlike_share: float) -> float | None:
    """The factor, at least 1; None for a table that was never tested. `unlike_share` is the part of
    the predicted time that is in operators unlike those of the fit."""
    errors: dict[str, list[float]] = {}
    for row in validation:
        if row.precision == precision and row.predicted_ms > 0:
            found = abs(log(row.measured_ms / row.predicted_ms))
            errors.setdefault(row.held_out, []).append(found)
    tested = next((errors[name] for name in _HARDEST_FIRST if name in errors), None)
    if tested is None:
        return None
    alike, others = _quantile(tested), errors.get(UNLIKE, [])
    unlike = _quantile(others) if len(others) >= FEWEST else UNTRIED
    share = unlike_share if len(tested) >= FEWEST else 1.0
    return exp(alike + share * max(0.0, unlike - alike))


def _quantile(errors: Sequence[float]) -> float:
    ordered, rank = sorted(errors), ceil(LEVEL * (len(errors) + 1))
    return ordered[rank - 1] if rank <= len(ordered) else TOO_FEW * ordered[-1]
