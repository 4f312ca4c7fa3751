"""What the scripts that make the shipped fitted tables share."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from shrinkc.errors import TableError
from shrinkc.latency_tables.files import UNLIKE, Validation
from shrinkc.latency_tables.makers.fit import Fit, Sample
from shrinkc.latency_tables.meta import TableMeta
from shrinkc.latency_tables.store import write_table
from shrinkc.latency_tables.table import LatencyTable
from shrinkc.latency_tables.target import Target
from shrinkc.latency_tables.tested.accuracy import summary

SHIPPED = Path(__file__).parent.parent / "data"
PLAUSIBLE = 3.0  # a measurement further from what all others say is not of that network


def run(
    target: str, build: Callable[[Path], LatencyTable], arguments: Sequence[str] | None
) -> None:
    """A script that reads `--data`, writes `--out` (the shipped folder) and prints the errors."""
    parser = _parser(target)
    parser.add_argument("--data", type=Path, required=True, help="folder of the measurements")
    options = parser.parse_args(arguments)
    _write(lambda: build(options.data), options.out)


def run_all(
    targets: Iterable[str],
    build: Callable[[Path, str], LatencyTable],
    arguments: Sequence[str] | None,
) -> None:
    """A script that reads `--data` and makes several tables, in the folder `--out`."""
    parser = argparse.ArgumentParser(description=f"Fit the tables {', '.join(targets)}.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the measurements")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder of the tables")
    options = parser.parse_args(arguments)
    for target in targets:
        folder = options.out.joinpath(*Target.parse(target).folders)
        _write(lambda target=target: build(options.data, target), folder)


def _parser(target: str) -> argparse.ArgumentParser:
    shipped = SHIPPED.joinpath(*Target.parse(target).folders)
    parser = argparse.ArgumentParser(description=f"Fit the latency table {target}.")
    parser.add_argument("--out", type=Path, default=shipped, help="folder of the table")
    return parser


def _write(build: Callable[[], LatencyTable], out: Path) -> None:
    try:
        table = build()
        write_table(table, out)
    except TableError as error:
        sys.exit(str(error))
    for line in summary(table):
        print(line)


def fitted(
    target: str,
    meta: TableMeta,
    fits: Mapping[str, Fit],
    samples: Iterable[Sample],
    unlike: Iterable[Sample] = (),
) -> LatencyTable:
    """Fit each precision on its own; what it says of the networks `unlike` those of the fit is
    stated. Raises TableError for implausible samples."""
    known = tuple(samples)
    groups = {p: tuple(s for s in known if s.precision == p) for p in meta.precisions}
    validation = tuple(v for p, group in groups.items() for v in fits[p].validate(group))
    check(validation)
    models = {p: fits[p].model(group) for p, group in groups.items()}
    others = tuple(
        Validation(
            s.network, s.precision, s.measured_ms, models[s.precision].total_ms(s.ops), UNLIKE
        )
        for s in unlike
    )
    return LatencyTable(target, meta, models=models, validation=(*validation, *others))


def check(validation: Iterable[Validation]) -> None:
    """Raises TableError when a measurement is far from what the other networks predict, as it is
    when its unit is wrong or the network is another one than its name says."""
    rows = [row for row in validation if row.held_out == "network"]
    worst = max(rows, key=_factor, default=None)
    if worst is not None and _factor(worst) > PLAUSIBLE:
        raise TableError(
            f"{worst.network} ({worst.precision}): {worst.measured_ms:g} ms measured, but the "
            f"other networks say {worst.predicted_ms:.3g} ms: check the unit and the operators"
        )


def _factor(row: Validation) -> float:
    ratio = row.predicted_ms / row.measured_ms
    return max(ratio, 1 / ratio) if ratio > 0 else float("inf")


def read_csv(path: Path, what: str) -> list[dict[str, str]]:
    """The rows of a results file. Raises TableError when it cannot be read."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise TableError(f"{path}: not a list of {what}: {error!r}") from error
