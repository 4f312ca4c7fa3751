"""What each CSV file of a table holds: ops, model, coverage, validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from itertools import chain

from ..compiler.errors import TableError
from .key import PRECISIONS, OpKey
from .meta import ModelShape
from .model import EXTENTS, Coefficient, Coverage, Extents, FittedModel
from .rows import Row, csv_text, read_rows, unique

_PAIRS = ("kernel", "stride", "dilation", "in", "out")
OPS_COLUMNS = (
    *("op", "in_channels", "out_channels"),
    *chain.from_iterable((f"{name}_h", f"{name}_w") for name in _PAIRS),
    *("groups", "activation", "precision", "median_us", "iqr_us", "runs"),
)
MODEL_COLUMNS = ("precision", "feature", "unit", "coefficient", "floor", "prior")
COVERAGE_COLUMNS = (
    *("precision", "operator_class", "networks"),
    *chain.from_iterable((f"{name}_min", f"{name}_max") for name in EXTENTS),
)
HELD_OUT = ("none", "network", "family")
VALIDATION_COLUMNS = ("network", "precision", "measured_ms", "predicted_ms", "held_out")


@dataclass(frozen=True, slots=True)
class Measurement:
    """Median and interquartile range of `runs` timings, microseconds."""

    median_us: float
    iqr_us: float
    runs: int


@dataclass(frozen=True, slots=True)
class Validation:
    """A whole network. `held_out` says what the fit behind `predicted_ms` had not seen: none,
    this network, or its whole family."""

    network: str
    precision: str
    measured_ms: float
    predicted_ms: float
    held_out: str

    @property
    def relative_error(self) -> float:
        return self.predicted_ms / self.measured_ms - 1


def read_ops(path: Traversable) -> dict[OpKey, Measurement]:
    """`ops.csv`. Raises TableError for damaged rows and for a key that stands there twice."""
    rows = [(row, _op_key(row)) for row in read_rows(path, OPS_COLUMNS)]
    unique(rows, lambda key: f"the same {key.op}")
    return {
        key: Measurement(row.positive("median_us"), row.number("iqr_us"), row.count("runs"))
        for row, key in rows
    }


def _op_key(row: Row) -> OpKey:
    pairs = {name: (row.count(f"{name}_h"), row.count(f"{name}_w")) for name in _PAIRS}
    return OpKey(
        op=row.text("op"),
        in_channels=row.count("in_channels"),
        out_channels=row.count("out_channels"),
        kernel=pairs["kernel"],
        stride=pairs["stride"],
        dilation=pairs["dilation"],
        groups=row.count("groups"),
        in_size=pairs["in"],
        out_size=pairs["out"],
        activation=row.text("activation", ("none", "relu", "relu6")),
        precision=row.text("precision", PRECISIONS),
    )


def ops_text(measured: Mapping[OpKey, Measurement]) -> str:
    def values(key: OpKey, m: Measurement) -> Iterable[object]:
        pairs = (key.kernel, key.stride, key.dilation, key.in_size, key.out_size)
        yield from (key.op, key.in_channels, key.out_channels, *chain.from_iterable(pairs))
        yield from (key.groups, key.activation, key.precision, m.median_us, m.iqr_us, m.runs)

    return csv_text(OPS_COLUMNS, (values(key, m) for key, m in measured.items()))


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
    rows = read_rows(path, VALIDATION_COLUMNS)
    parsed = [
        Validation(
            row.text("network"),
            row.text("precision", PRECISIONS),
            row.positive("measured_ms"),
            row.number("predicted_ms"),
            row.text("held_out", HELD_OUT),
        )
        for row in rows
    ]
    keys = ((v.network, v.precision, v.held_out) for v in parsed)
    unique(zip(rows, keys, strict=True), lambda key: " ".join(key))
    return tuple(parsed)


def validation_text(rows: Iterable[Validation]) -> str:
    return csv_text(
        VALIDATION_COLUMNS,
        (
            (v.network, v.precision, f"{v.measured_ms:.4f}", f"{v.predicted_ms:.4f}", v.held_out)
            for v in rows
        ),
    )
