"""Measured operators: `ops.csv`, or one `ops.PRECISION.csv.gz` each where there are many.

They are kept as columns, so that a hundred thousand load in the time that few take.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources.abc import Traversable
from itertools import chain
from typing import IO, Literal

import numpy as np

from shrinkc.latency_tables.columns import NUMBERS, FloatArray, IntArray, OpColumns, numbers
from shrinkc.latency_tables.key import PRECISIONS, OpKey
from shrinkc.latency_tables.rows import (
    LARGEST,
    LEAST,
    MAX_BYTES,
    MAX_DIGITS,
    Readable,
    Row,
    csv_text,
    is_plain,
    limited_text,
    read_rows,
    table_error,
    unique,
)

OPS_COLUMNS = ("op", *NUMBERS, "activation", "precision", "median_us", "iqr_us", "runs")
ACTIVATIONS = ("none", "relu", "relu6")


@dataclass(frozen=True, slots=True)
class Measurement:
    """Median and interquartile range of `runs` timings, microseconds; None: not stated."""

    median_us: float
    iqr_us: float | None = None
    runs: int | None = None

    @property
    def repeated(self) -> bool:
        """Whether several timings stand behind it."""
        return (self.runs or 1) > 1


_Index = tuple[str | int, ...]


def _index_of(key: OpKey) -> _Index:
    return (key.op, key.activation, key.precision, *numbers(key))


@dataclass(frozen=True, eq=False)
class MeasuredOps(Mapping[OpKey, Measurement]):
    """Operator → measurement. `names` (operators, 3) are op, activation, precision; `table`
    (operators, NUMBERS); iqr_us is NaN and runs 0 where they are not stated."""

    names: tuple[tuple[str, str, str], ...]
    table: IntArray
    median_us: FloatArray
    iqr_us: FloatArray
    runs: IntArray

    @classmethod
    def of(cls, measured: Mapping[OpKey, Measurement]) -> MeasuredOps:
        if isinstance(measured, MeasuredOps):
            return measured
        values = list(measured.values())
        return cls(
            tuple((key.op, key.activation, key.precision) for key in measured),
            np.array([numbers(key) for key in measured], np.int64).reshape(-1, len(NUMBERS)),
            np.array([m.median_us for m in values], np.float64),
            np.array([np.nan if m.iqr_us is None else m.iqr_us for m in values], np.float64),
            np.array([m.runs or 0 for m in values], np.int64),
        )

    def __getitem__(self, key: OpKey) -> Measurement:
        return self._measurement(self._rows[_index_of(key)])

    def __iter__(self) -> Iterator[OpKey]:
        for (op, activation, precision), values in zip(
            self.names, self.table.tolist(), strict=True
        ):
            inside, out, kh, kw, sh, sw, dh, dw, ih, iw, oh, ow, groups = values
            yield OpKey(
                *(op, inside, out, (kh, kw), (sh, sw), (dh, dw), groups, (ih, iw), (oh, ow)),
                activation=activation,
                precision=precision,
            )

    def __len__(self) -> int:
        return len(self.names)

    def kind(self, op: str, precision: str) -> tuple[OpColumns, FloatArray] | None:
        """All operators of one kind, and their medians in µs; None without any."""
        index = self._kinds.get((op, precision))
        if index is None:
            return None
        fused = np.array([self.names[i][1] != "none" for i in index])
        return OpColumns(op, precision, self.table[index], fused), self.median_us[index]

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(op for op, _, _ in self.names))

    @cached_property
    def precisions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(precision for _, _, precision in self.names))

    def of_precision(self, precision: str) -> MeasuredOps:
        index = [i for i, (_, _, p) in enumerate(self.names) if p == precision]
        names = tuple(self.names[i] for i in index)
        rest = (self.median_us[index], self.iqr_us[index], self.runs[index])
        return MeasuredOps(names, self.table[index], *rest)

    @property
    def distinct(self) -> bool:
        """No operator stands there twice."""
        return len(self._rows) == len(self)

    @cached_property
    def _kinds(self) -> dict[tuple[str, str], list[int]]:
        kinds: dict[tuple[str, str], list[int]] = {}
        for i, (op, _, precision) in enumerate(self.names):
            kinds.setdefault((op, precision), []).append(i)
        return kinds

    @cached_property
    def _rows(self) -> dict[_Index, int]:
        keys = zip(self.names, self.table.tolist(), strict=True)
        return {(*names, *values): i for i, (names, values) in enumerate(keys)}

    def _measurement(self, i: int) -> Measurement:
        iqr, runs = float(self.iqr_us[i]), int(self.runs[i])
        return Measurement(float(self.median_us[i]), None if np.isnan(iqr) else iqr, runs or None)


# --- files ---------------------------------------------------------------------------------------


def read_ops(path: Traversable) -> MeasuredOps:
    """Raises TableError for damaged rows and for an operator that stands there twice."""
    file = Unpacked(path) if path.name.endswith(".gz") else path
    ops = _read_at_once(file)
    return ops if ops is not None else _read_row_by_row(file)


def _read_at_once(path: Readable) -> MeasuredOps | None:
    """None for a file with anything wrong; reading it row by row tells what."""
    try:
        header, *lines = csv.reader(io.StringIO(limited_text(path)), strict=True)
        columns: dict[str, tuple[str, ...]]
        columns = dict(zip(header, zip(*lines, strict=True), strict=True))
        digits = [columns[name] for name in NUMBERS]
        runs = [text or "0" for text in columns["runs"]]
        if tuple(header) != OPS_COLUMNS or not all("".join(d).isdecimal() for d in (*digits, runs)):
            return None
        written = (*digits, runs, columns["median_us"], columns["iqr_us"])
        if not all(is_plain("".join(column)) for column in written):
            return None
        if any(len(text) > MAX_DIGITS for column in (*digits, runs) for text in column):
            return None
        ops = MeasuredOps(
            tuple(zip(*(columns[n] for n in ("op", "activation", "precision")), strict=True)),
            np.array([[int(text) for text in column] for column in digits], np.int64).T.copy(),
            np.array([float(text) for text in columns["median_us"]]),
            np.array([float(text or "nan") for text in columns["iqr_us"]]),
            np.array([int(text) for text in runs], np.int64),
        )
    except (OSError, UnicodeDecodeError, ValueError, KeyError, csv.Error):
        return None
    return ops if _sound(ops, columns) else None


def _sound(ops: MeasuredOps, columns: Mapping[str, tuple[str, ...]]) -> bool:
    iqr = ops.iqr_us[[bool(text) for text in columns["iqr_us"]]]
    return (
        set(columns["activation"]) <= set(ACTIVATIONS)
        and set(columns["precision"]) <= set(PRECISIONS)
        and all(columns["op"])
        and bool((ops.table >= 1).all())
        and bool(((ops.median_us >= LEAST) & (ops.median_us <= LARGEST)).all())
        and bool(((iqr == 0) | (iqr >= LEAST) & (iqr <= LARGEST)).all())
        and all(ops.runs[[bool(text) for text in columns["runs"]]] >= 1)
        and ops.distinct
    )


def _read_row_by_row(path: Readable) -> MeasuredOps:
    rows = [(row, op_key(row)) for row in read_rows(path, OPS_COLUMNS)]
    unique(rows, lambda key: f"the same {key.op}")
    return MeasuredOps.of({key: _measurement(row) for row, key in rows})


def _measurement(row: Row) -> Measurement:
    iqr = row.number("iqr_us") if row.values["iqr_us"] else None
    runs = row.count("runs") if row.values["runs"] else None
    return Measurement(row.positive("median_us"), iqr, runs)


def op_key(row: Row) -> OpKey:
    """Of a row that has the columns of `OPS_COLUMNS` up to `precision`."""
    names = ("kernel", "stride", "dilation", "in", "out")
    pairs = {name: (row.count(f"{name}_h"), row.count(f"{name}_w")) for name in names}
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
        activation=row.text("activation", ACTIVATIONS),
        precision=row.text("precision", PRECISIONS),
    )


def ops_text(ops: MeasuredOps) -> str:
    def values(i: int) -> Iterable[object]:
        op, activation, precision = ops.names[i]
        iqr, runs = float(ops.iqr_us[i]), int(ops.runs[i])
        yield from (op, *ops.table[i].tolist(), activation, precision, float(ops.median_us[i]))
        yield from ("" if np.isnan(iqr) else iqr, runs or "")

    return csv_text(OPS_COLUMNS, (values(i) for i in range(len(ops))))


@dataclass(frozen=True)
class Unpacked:
    """A packed file, read like a plain one."""

    path: Traversable

    def __str__(self) -> str:
        return str(self.path)

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        try:
            with self.path.open("rb") as packed, gzip.open(packed) as stream:
                return io.BytesIO(stream.read(MAX_BYTES + 1))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise table_error(self.path, f"not a whole gzip file: {error}") from None


@dataclass(frozen=True, eq=False)
class LazyOps(Mapping[OpKey, Measurement]):
    """One file for each precision, read when that precision is first asked for."""

    read: Mapping[str, Callable[[], MeasuredOps]]

    def part(self, precision: str) -> MeasuredOps | None:
        if precision not in self.read:
            return None
        if precision not in self._parts:
            self._parts[precision] = self.read[precision]()
        return self._parts[precision]

    @cached_property
    def _parts(self) -> dict[str, MeasuredOps]:
        return {}

    def __getitem__(self, key: OpKey) -> Measurement:
        part = self.part(key.precision)
        if part is None:
            raise KeyError(key)
        return part[key]

    def __iter__(self) -> Iterator[OpKey]:
        return chain.from_iterable(self.part(precision) or () for precision in self.read)

    def __len__(self) -> int:
        return sum(len(self.part(precision) or ()) for precision in self.read)
