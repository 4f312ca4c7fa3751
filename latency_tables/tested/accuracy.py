"""How well a table predicts networks that its fit had not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shrinkc.latency_tables.files import UNLIKE, Validation
from shrinkc.latency_tables.table import LatencyTable


@dataclass(frozen=True)
class Accuracy:
    """Of `networks` predictions: mean and largest absolute relative error, the share of errors
    within 10%, all in percent, and Spearman's rank correlation of predicted and measured."""

    target: str
    precision: str
    held_out: str
    networks: int
    mean_error_percent: float
    worst_percent: float
    within_10_percent: float
    spearman: float

    def __str__(self) -> str:
        return (
            f"{self.target} {self.precision}, {_HELD_OUT[self.held_out]}: "
            f"{self.mean_error_percent:.1f}% mean error, worst {self.worst_percent:.1f}%, "
            f"{self.within_10_percent:.0f}% within 10%, Spearman {self.spearman:.4f}, "
            f"{self.networks} networks"
        )


_HELD_OUT = {
    **{"none": "in the fit", "network": "network held out", "family": "family held out"},
    UNLIKE: "unlike the fit's",
}


def accuracy(table: LatencyTable, precision: str, held_out: str = "network") -> Accuracy | None:
    """From the table's `validation`; None where it has fewer than two such rows."""
    rows = [v for v in table.validation if (v.precision, v.held_out) == (precision, held_out)]
    if len(rows) < 2:
        return None
    errors = [100 * abs(row.relative_error) for row in rows]
    return Accuracy(
        *(table.target, precision, held_out, len(rows)),
        mean_error_percent=sum(errors) / len(errors),
        worst_percent=max(errors),
        within_10_percent=100 * sum(error <= 10 for error in errors) / len(errors),
        spearman=_spearman(rows),
    )


def summary(table: LatencyTable) -> tuple[Accuracy, ...]:
    """Every precision: in the fit, networks held out, families held out."""
    found = (accuracy(table, p, h) for p in table.precisions for h in _HELD_OUT)
    return tuple(one for one in found if one is not None)


def _spearman(rows: Sequence[Validation]) -> float:
    predicted = _ranks([row.predicted_ms for row in rows])
    measured = _ranks([row.measured_ms for row in rows])
    return float(np.corrcoef(predicted, measured)[0, 1])


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Equal values share the mean of their ranks."""
    array = np.array(values)
    below = (array[:, None] > array).sum(axis=1)
    return below + ((array[:, None] == array).sum(axis=1) - 1) / 2
