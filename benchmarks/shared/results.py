"""The files in benchmarks/results: all of one form, written and read here alone.

    {"benchmark":   module in benchmarks/,
     "command":     how it was run, folders by the names of the documents (DIR, VENVS),
     "environment": {"commit", "date", "machine", "cpu", "python", "packages"},
     "settings":    what was the same for all rows,
     "original":    what the network that all rows start from was measured at,
     "summary":     over all rows,
     "rows":        [{field: value, …}, …]}

settings, original and summary are left out where they are empty; the date where it is not known.
benchmarks/shared/fields.py lists all fields with their units.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.shared.common import ROOT, environment, replace_json
from benchmarks.shared.fields import TEXT, FieldError, Several, check_record

RESULTS = ROOT / "benchmarks" / "results"
Row = dict[str, Any]

_ENVIRONMENT = ("commit", "date", "machine", "cpu", "python", "packages")
_FOLDERS = {"--data": "DIR", "--venvs": "VENVS", "--out": "OUT", "-o": "OUT"}


class ResultError(Exception):
    """A result file, or what is to become one, that is not of the form; names file and field."""


@dataclass(frozen=True)
class Results:
    """What one file holds; the module's docstring says what each part is."""

    benchmark: str
    command: str
    environment: Row
    rows: list[Row]
    settings: Row = field(default_factory=dict)
    original: Row = field(default_factory=dict)
    summary: Row = field(default_factory=dict)

    def check(self) -> None:
        """Raises FieldError."""
        TEXT.check(self.benchmark, "benchmark")
        TEXT.check(self.command, "command")
        for name, value in self.environment.items():
            if name not in _ENVIRONMENT:
                raise FieldError(f"environment: {name} is none of {', '.join(_ENVIRONMENT)}")
            (Several(TEXT) if name == "packages" else TEXT).check(value, f"environment.{name}")
        for part in ("settings", "original", "summary"):
            check_record(getattr(self, part), part)
        for number, row in enumerate(self.rows):
            check_record(row, f"rows[{number}]")


def result_path(name: str) -> Path:
    """benchmarks/results/NAME.json."""
    return RESULTS / f"{name}.json"


def read(path: Path) -> Results:
    """Raises ResultError where the file is damaged or not of the form."""
    try:
        results = Results(**json.loads(path.read_text("utf-8")))
        results.check()
    except (OSError, ValueError, TypeError, FieldError) as error:
        raise ResultError(f"{path.name}: {error}") from error
    return results


def earlier_rows(path: Path) -> list[Row]:
    """The rows of earlier runs, to add to; none where there is no file yet."""
    return read(path).rows if path.exists() else []


def write(
    path: Path,
    benchmark: str,
    rows: Iterable[Row],
    packages: Sequence[str],
    *,
    settings: Mapping[str, Any] | None = None,
    original: Mapping[str, Any] | None = None,
    summary: Mapping[str, Any] | None = None,
) -> None:
    """Replace the file by these rows, measured here, now, with these packages.

    Raises ResultError, and leaves the file alone, where a field is unknown or has another unit: so
    it is where rows that were kept by an older benchmark go on.
    """
    results = Results(
        benchmark,
        command_line(benchmark, sys.argv[1:]),
        environment(*packages),
        list(rows),
        dict(settings or {}),
        dict(original or {}),
        dict(summary or {}),
    )
    try:
        results.check()
    except FieldError as error:
        raise ResultError(f"{path.name}: {error}") from error
    content = asdict(results)
    rows_last = {name: content[name] for name in content if name != "rows" and content[name]}
    replace_json(path, rows_last | {"rows": content["rows"]})


def command_line(benchmark: str, arguments: Sequence[str]) -> str:
    """The command, without the folders of this machine."""
    words = ["python -m", f"benchmarks.{benchmark}"]
    folder: str | None = None
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if folder is not None:
            words.append(folder)
        elif equals and name in _FOLDERS:
            words.append(f"{name}={_FOLDERS[name]}")
        else:
            words.append(argument)
        folder = _FOLDERS.get(argument) if folder is None else None
    return " ".join(words)
