"""Correct a table by whole networks measured on one's own device.

Every operator class gets a scale s and an offset o (µs an operator), which minimise

    Σ_networks (Σ_classes (s_c · T_c + o_c · N_c) + overhead) / measured − 1)²
        + PULL · Σ_classes ((s_c / s − 1)² + (o_c / o)²),        s_c ≥ LEAST · s, o_c ≥ 0

T_c, N_c: the class's predicted µs and number of operators in a network; s: the median of measured
over predicted; o: a hundredth of the mean operator. The pull decides where the networks do not:
few networks move all classes together, many tell them apart. Its weight is (σ_network / σ_scale)²,
for networks predicted within 5% and classes that differ by half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable

import numpy as np

from shrinkc.errors import TableError
from shrinkc.latency_tables.columns import FloatArray
from shrinkc.latency_tables.files import Validation
from shrinkc.latency_tables.kernels.features import operator_class
from shrinkc.latency_tables.key import PRECISIONS, OpKey
from shrinkc.latency_tables.rows import LEAST as NUMBER
from shrinkc.latency_tables.rows import Row, csv_text, read_rows, unique

PULL = (0.05 / 0.5) ** 2
LEAST = 0.2  # no class is five times faster than all others say
COLUMNS = ("precision", "operator_class", "scale", "offset_us")
ALL = "all"  # the class that stands for those that no network had


@dataclass(frozen=True, slots=True)
class Correction:
    """An operator's latency t becomes `scale` · t + `offset_us`."""

    scale: float
    offset_us: float


@dataclass(frozen=True)
class Corrections:
    """By operator class, for one precision."""

    by_class: Mapping[str, Correction]

    def apply(self, key: OpKey, us: float) -> float:
        found = self.by_class.get(operator_class(key)) or self.by_class[ALL]
        return found.scale * us + found.offset_us


@dataclass(frozen=True)
class Run:
    """A network on the device: its operators with their predicted µs, and what it took."""

    network: str
    predicted_us: Sequence[tuple[OpKey, float]]
    overhead_us: float
    measured_us: float


def fit(runs: Sequence[Run]) -> Corrections:
    """Raises TableError without runs."""
    from scipy.optimize import nnls  # takes longer to import than tables to load

    if not runs:
        raise TableError("a correction needs at least one measured network")
    classes = sorted({operator_class(key) for run in runs for key, _ in run.predicted_us})
    totals, counts = _sums(runs, classes)
    measured = np.array([run.measured_us for run in runs])
    overhead = np.array([run.overhead_us for run in runs])
    scale = float(np.median((measured - overhead).clip(1e-3) / totals.sum(1)))
    offset = 0.01 * scale * float(totals.sum() / counts.sum())
    system = np.vstack(
        [
            np.hstack([totals * scale, counts * offset]) / measured[:, None],
            np.sqrt(PULL) * np.eye(2 * len(classes)),
        ]
    )
    least = np.repeat([LEAST, 0.0], len(classes))
    expected = np.repeat([1.0, 0.0], len(classes))
    wanted = np.concatenate([1 - overhead / measured, np.sqrt(PULL) * expected]) - system @ least
    solved = nnls(system, wanted)[0] + least
    values = zip(classes, solved[: len(classes)], solved[len(classes) :], strict=True)
    found = {name: Correction(float(s * scale), float(o * offset)) for name, s, o in values}
    return Corrections({**found, ALL: Correction(scale, 0.0)})


def validate(runs: Sequence[Run], precision: str) -> tuple[Validation, ...]:
    """Every network by a correction fitted to all others."""
    rows: list[Validation] = []
    for run in runs:
        others = fit([other for other in runs if other is not run])
        predicted = predict(run, others)
        ms = run.measured_us / 1e3
        rows.append(Validation(run.network, precision, ms, predicted / 1e3, "network"))
    return tuple(rows)


def predict(run: Run, corrections: Corrections) -> float:
    """Microseconds."""
    return run.overhead_us + sum(corrections.apply(key, us) for key, us in run.predicted_us)


def _sums(runs: Sequence[Run], classes: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    totals, counts = np.zeros((len(runs), len(classes))), np.zeros((len(runs), len(classes)))
    at = {name: i for i, name in enumerate(classes)}
    for row, run in enumerate(runs):
        for key, us in run.predicted_us:
            totals[row, at[operator_class(key)]] += us
            counts[row, at[operator_class(key)]] += 1
    return totals, counts


# --- the file ------------------------------------------------------------------------------------


def read_corrections(path: Traversable) -> dict[str, Corrections]:
    """`corrections.csv`, by precision. Raises TableError for damaged or repeated rows and for a
    precision without the row of all other classes."""
    rows = read_rows(path, COLUMNS)
    keys = [(row, (row.text("precision", PRECISIONS), row.text("operator_class"))) for row in rows]
    unique(keys, lambda key: " ".join(key))
    found: dict[str, dict[str, Correction]] = {}
    for row, (precision, name) in keys:
        found.setdefault(precision, {})[name] = _correction(row)
    for precision, classes in found.items():
        if ALL not in classes:
            raise TableError(f"{path}: {precision} has no row '{ALL}'; calibrate the table again")
    return {precision: Corrections(classes) for precision, classes in found.items()}


def _correction(row: Row) -> Correction:
    return Correction(row.number("scale"), row.number("offset_us"))


def corrections_text(corrections: Mapping[str, Corrections]) -> str:
    return csv_text(
        COLUMNS,
        (
            (precision, name, _told(c.scale), _told(c.offset_us))
            for precision, of_precision in corrections.items()
            for name, c in of_precision.by_class.items()
        ),
    )


def _told(value: float) -> str:
    """What is left of 0 by rounding is 0."""
    return f"{value if value >= NUMBER else 0.0:.6g}"
