"""What the CSV files of a fitted table hold: model, coverage, validation."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from itertools import chain

from shrinkc.errors import TableError
from shrinkc.latency_tables.kernels.model import (
    EXTENTS,
    Coefficient,
    Coverage,
    Extents,
    FittedModel,
)
from shrinkc.latency_tables.key import PRECISIONS
from shrinkc.latency_tables.meta import ModelShape
from shrinkc.latency_tables.rows import (
    LARGEST,
    Row,
    csv_text,
    iterate_rows,
    limited_text,
    read_rows,
    table_error,
    unique,
)

MODEL_COLUMNS = ("precision", "feature", "unit", "coefficient", "floor", "prior")
COVERAGE_COLUMNS = (
    *("precision", "operator_class", "networks"),
    *chain.from_iterable((f"{name}_min", f"{name}_max") for name in EXTENTS),
)
UNLIKE = "unlike"
HELD_OUT = ("none", "network", "family", "operator", UNLIKE)
VALIDATION_COLUMNS = ("network", "precision", "measured_ms", "predicted_ms", "held_out")


@dataclass(frozen=True, slots=True)
class Validation:
    """A whole network, or one operator. `held_out` says what is behind `predicted_ms` had not
    seen: none, this network, its whole family, this operator; unlike: it is of a kind, or a source,
    that no part of the fit is of."""

    network: str
    precision: str
    measured_ms: float
    predicted_ms: float
    held_out: str

    @property
    def relative_error(self) -> float:
        return self.predicted_ms / self.measured_ms - 1


def read_models(
    model_path: Traversable, coverage_path: Traversable, shape: ModelShape
) -> dict[str, FittedModel]:
    """`model.csv` and `coverage.csv`, by precision. Raises TableError when a feature is unknown,
    missing, given twice or priced in another unit."""
    coefficients = _read_coefficients(model_path, shape)
    coverage = _read_coverage(coverage_path, shape)
    return {
        precision: FittedModel(
            shape.kernels, tiles, shape.caches, coefficients[precision], coverage[precision]
        )
        for precision, tiles in shape.tiles.items()
    }


def _read_coefficients(path: Traversable, shape: ModelShape) -> dict[str, dict[str, Coefficient]]:
    found: dict[str, dict[str, Coefficient]] = {precision: {} for precision in shape.tiles}
    features = shape.kernels.features
    keys: list[tuple[Row, tuple[str, str]]] = []
    for row in read_rows(path, MODEL_COLUMNS):
        precision = row.text("precision", tuple(shape.tiles))
        feature = row.text("feature", tuple(features))
        row.text("unit", (features[feature],))
        keys.append((row, (precision, feature)))
        value, floor, prior = (row.number(name) for name in ("coefficient", "floor", "prior"))
        found[precision][feature] = Coefficient(value, floor, prior)
    unique(keys, lambda key: f"{key[0]} {key[1]}")
    for precision, given in found.items():
        missing = [name for name in features if name not in given]
        if missing:
            raise TableError(
                f"{path}: {precision} has no row for {missing[0]}; fit the table again"
            )
    return found


def _read_coverage(path: Traversable, shape: ModelShape) -> dict[str, dict[str, Coverage]]:
    found: dict[str, dict[str, Coverage]] = {precision: {} for precision in shape.tiles}
    keys: list[tuple[Row, tuple[str, str]]] = []
    for row in read_rows(path, COVERAGE_COLUMNS):
        precision = row.text("precision", tuple(shape.tiles))
        name = row.text("operator_class")
        keys.append((row, (precision, name)))
        low, high = _extents(row, "min"), _extents(row, "max")
        if any(least > most for least, most in zip(low, high, strict=True)):
            raise row.error("a minimum exceeds its maximum; fit the table again")
        found[precision][name] = Coverage(row.count("networks"), low, high)
    unique(keys, lambda key: f"{key[0]} {key[1]}")
    return found


def _extents(row: Row, end: str) -> Extents:
    a, b, c, d = (row.count(f"{name}_{end}") for name in EXTENTS)
    return a, b, c, d


def model_text(models: Mapping[str, FittedModel]) -> str:
    return csv_text(
        MODEL_COLUMNS,
        (
            (
                *(precision, name, model.kernels.features[name]),
                *(f"{x:.6g}" for x in (c.value, c.floor, c.prior)),
            )
            for precision, model in models.items()
            for name, c in model.coefficients.items()
        ),
    )


def coverage_text(models: Mapping[str, FittedModel]) -> str:
    return csv_text(
        COVERAGE_COLUMNS,
        (
            (
                *(precision, name, seen.networks),
                *chain.from_iterable(zip(seen.low, seen.high, strict=True)),
            )
            for precision, model in models.items()
            for name, seen in model.coverage.items()
        ),
    )


def read_validation(path: Traversable) -> tuple[Validation, ...]:
    """`validation.csv`. Raises TableError for damaged rows and repeated ones."""
    found: dict[tuple[str, str, str], Validation] = {}
    for row in iterate_rows(path, VALIDATION_COLUMNS):
        one = Validation(
            row.text("network"),
            row.text("precision", PRECISIONS),
            row.positive("measured_ms"),
            row.number("predicted_ms"),
            row.text("held_out", HELD_OUT),
        )
        key = (one.network, one.precision, one.held_out)
        if key in found:
            line = list(found).index(key) + 2  # line 1 is the header
            raise row.error(f"{' '.join(key)} is already in line {line}; keep one of the two")
        found[key] = one
    return tuple(found.values())


def mean_errors_percent(path: Traversable) -> dict[tuple[str, str], float]:
    """What `validation.csv` comes to, by precision and what was held out: the mean of |predicted /
    measured − 1|, in percent. Nothing else of its rows is checked: a table that is used is read by
    `read_validation`. Raises TableError for numbers that are none."""
    sums: dict[tuple[str, str], tuple[float, int]] = {}
    try:
        rows = csv.reader(io.StringIO(limited_text(path)))
        next(rows, None)
        for _, precision, measured_ms, predicted_ms, held_out in rows:
            total, count = sums.get((precision, held_out), (0.0, 0))
            error = abs(float(predicted_ms) / float(measured_ms) - 1)
            if not error <= LARGEST:
                raise ValueError(f"{predicted_ms} predicted, {measured_ms} measured")
            sums[precision, held_out] = total + error, count + 1
    except (OSError, ValueError, ZeroDivisionError, csv.Error) as error:
        raise table_error(path, f"cannot be read: {error}") from None
    return {key: 100 * total / count for key, (total, count) in sums.items()}


def validation_text(rows: Iterable[Validation]) -> str:
    return csv_text(
        VALIDATION_COLUMNS,
        (
            (v.network, v.precision, f"{v.measured_ms:.4f}", f"{v.predicted_ms:.4f}", v.held_out)
            for v in rows
        ),
    )
