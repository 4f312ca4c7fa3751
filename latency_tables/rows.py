"""The CSV files of a table, read strictly and written so that reading gives the same back."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Literal, Protocol, TypeVar

from shrinkc.errors import TableError

T = TypeVar("T")
MAX_DIGITS = 12
MAX_SAID = 500  # letters of what is wrong
MAX_BYTES = 256 << 20  # of one file, unpacked
LARGEST, LEAST = 1e15, 1e-9  # number that is a time, a share or a count, and that is not 0


def told(value: str) -> str:
    """A value of unknown length, quoted."""
    return f"'{value}'" if len(value) <= 60 else f"'{value[:60]}…'"


def table_error(where: object, problem: str) -> TableError:
    """In a line that can be read, whatever was found."""
    shortened = problem if len(problem) <= MAX_SAID else f"{problem[:MAX_SAID]}…"
    return TableError(f"{where}: {shortened}")


def is_plain(text: str) -> bool:
    """Python reads digits of every script as numbers, and underscores between them."""
    return text.isascii() and "_" not in text


class Readable(Protocol):
    """A file whose name its `str` is; opened for bytes."""

    def open(self, mode: Literal["rb"], /) -> IO[bytes]: ...


def limited_text(path: Readable, most: int | None = None) -> str:
    """Of a file of at most so many bytes, else MAX_BYTES. Raises TableError, and OSError,
    ValueError for what is no text."""
    most = MAX_BYTES if most is None else most
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise TableError(f"{path}: more than {most >> 20} MB")
    return content.decode("utf-8")


@dataclass(frozen=True)
class Row:
    """One line, by column. The readers raise TableError naming file, line and column."""

    path: Readable
    line: int
    values: dict[str, str]

    def text(self, column: str, allowed: Iterable[str] = ()) -> str:
        value = self.values[column]
        if not value:
            raise self.error(f"{column} is empty; fill it in or delete the row")
        if allowed and value not in allowed:
            raise self.error(f"{column} is {told(value)}; use one of {', '.join(allowed)}")
        return value

    def count(self, column: str, least: int = 1) -> int:
        value = self.values[column]
        digits = value.isascii() and value.isdecimal() and len(value) <= MAX_DIGITS
        if not digits or int(value) < least:
            raise self.error(
                f"{column} is {told(value)}; it must be an integer of at least {least}"
            )
        return int(value)

    def positive(self, column: str) -> float:
        value = self.number(column)
        if value == 0:
            raise self.error(f"{column} is 0; it must be above 0: measure again or delete the row")
        return value

    def number(self, column: str) -> float:
        """Finite, not negative, and of a size that it can have."""
        text = self.values[column]
        try:
            value = float(text)
        except ValueError:
            value = None
        if value is None or not is_plain(text):
            raise self.error(f"{column} is {told(text)}, not a number; correct it")
        if not math.isfinite(value) or value < 0:
            raise self.error(
                f"{column} is {text[:60]}; it must be finite and not negative: "
                "measure again or delete the row"
            )
        if value > LARGEST or 0 < value < LEAST:
            raise self.error(
                f"{column} is {told(text)}; it must be 0, or from {LEAST:g} to {LARGEST:g}"
            )
        return value

    def error(self, problem: str) -> TableError:
        return table_error(f"{self.path} line {self.line}", problem)


def read_rows(path: Readable, columns: Sequence[str]) -> list[Row]:
    """Every row of a file that has exactly these columns. Raises TableError."""
    return list(iterate_rows(path, columns))


def iterate_rows(path: Readable, columns: Sequence[str]) -> Iterator[Row]:
    """The same, one after the other: nothing is kept of a row that was read."""
    try:
        lines = csv.reader(io.StringIO(limited_text(path)), strict=True)
        header = next(lines, list[str]())
        if header != list(columns):
            raise table_error(f"{path} line 1", _header_problem(header, columns))
        for number, values in enumerate(lines, 2):
            if len(values) != len(columns):
                raise TableError(
                    f"{path} line {number}: {len(values)} values for {len(columns)} columns; "
                    "complete or delete the row"
                )
            yield Row(path, number, dict(zip(columns, values, strict=True)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise table_error(path, f"cannot be read: {error}") from None


def _header_problem(header: Sequence[str], columns: Sequence[str]) -> str:
    unknown = [name for name in header if name not in columns]
    missing = [name for name in columns if name not in header]
    expected = f"the columns are {','.join(columns)} (units are part of the names)"
    if unknown:
        return f"unknown column {told(unknown[0])}; {expected}"
    if missing:
        return f"column '{missing[0]}' is missing; {expected}"
    return f"columns repeated or out of order; {expected}"


def unique(rows: Iterable[tuple[Row, T]], named: Callable[[T], str]) -> None:
    """Raise TableError at the second row with the same key."""
    lines: dict[T, int] = {}
    for row, key in rows:
        if key in lines:
            raise row.error(f"{named(key)} is already in line {lines[key]}; keep one of the two")
        lines[key] = row.line


def csv_text(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """The file's text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()
