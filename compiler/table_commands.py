"""`shrinkc tables` and `calibrate`: what tables there are, what they know, how to correct one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..latency_tables.devices.jobs import Setup
from ..latency_tables.devices.parse import parse_device
from ..latency_tables.files import HELD_OUT, Validation
from ..latency_tables.key import OpKey
from ..latency_tables.store import known_targets, load_table, resolve, user_tables, write_table
from ..latency_tables.table import NETWORK, LatencyTable
from ..latency_tables.target import Target
from .cli import print_json
from .commands import progress
from .errors import InputError, TableError
from .reference_networks import REFERENCE_NETWORKS
from .whole_networks import PASSES, calibrate_table


def run_tables(as_json: bool) -> None:
    """All targets, each with its stated error."""
    rows = [_line(name) for name in known_targets()]
    if as_json:
        print_json({"tables": rows})
        return
    shown = Table(title="latency tables", title_justify="left")
    for header in ("target", "device", "batch", "known by", "error"):
        shown.add_column(header, overflow="fold")
    for row in rows:
        if "error" in row:
            shown.add_row(escape(row["target"]), f"damaged: {escape(row['error'])}")
        elif not row["stands_for"]:
            shown.add_row(*(escape(str(row[name])) for name in _SHOWN))
    console = Console()
    console.print(shown)
    short = (f"{r['target']} = {r['stands_for']}" for r in rows if r["stands_for"])
    console.print(f"short names: {escape(', '.join(short))}")
    console.print("host: this machine, measured when asked")


_SHOWN = ("target", "device", "batch", "kind", "stated_error")


def _line(name: str) -> dict[str, Any]:
    if resolve(name) != name:
        return {"target": name, "stands_for": resolve(name)}
    try:
        table = load_table(name)
    except TableError as error:  # one damaged table of the user's must not hide the others
        return {"target": name, "stands_for": None, "error": str(error)}
    meta = table.meta
    return {
        "target": name,
        "stands_for": None,
        "device": meta.device,
        "runtime": f"{meta.runtime} {meta.runtime_version}",
        "threads": meta.threads,
        "batch": meta.batch,
        "kind": meta.kind,
        "precisions": list(meta.precisions),
        "stated_error": _stated(table),
    }


def _stated(table: LatencyTable) -> str:
    """By the hardest test that the table states."""
    for held_out in ("network", "operator", "none"):
        errors = {p: table.mean_error_percent(p, held_out) for p in table.precisions}
        known = [f"{p} {error:.1f}%" for p, error in errors.items() if error is not None]
        if known:
            return f"{', '.join(known)} ({_HELD_OUT[held_out]})"
    return "not stated"


_HELD_OUT = {
    "none": "fitted to them",
    "network": "networks held out",
    "family": "families held out",
    "operator": "operators held out",
}


def run_show(target: str, plot: Path | None, as_json: bool) -> None:
    """One table: where it comes from, what it covers, how wrong it is; a picture if asked."""
    table = load_table(target)
    described = _describe(table)
    if plot is not None:
        from .plots import predicted_against_measured

        predicted_against_measured(table.target, table.validation, plot)
        described["plot"] = str(plot)
    if as_json:
        print_json(described)
        return
    console = Console()
    for name, value in described["provenance"].items():
        console.print(f"{name}: {escape(str(value))}")
    console.print(_errors(described["errors"]))
    console.print(_coverage(described["coverage"]))
    if plot is not None:
        console.print(f"{escape(str(plot))}: predicted against measured")


def _describe(table: LatencyTable) -> dict[str, Any]:
    provenance = asdict(table.meta)
    provenance.pop("model")
    return {
        "target": table.target,
        "provenance": {"target": table.target, **provenance},
        "errors": [
            error
            for precision in table.precisions
            for held_out in HELD_OUT
            if (error := _error(table.validation, precision, held_out))
        ],
        "coverage": _measured_coverage(table) + _fitted_coverage(table),
        "corrected": sorted(table.corrections),
    }


def _error(rows: tuple[Validation, ...], precision: str, held_out: str) -> dict[str, Any] | None:
    errors = [
        abs(row.relative_error)
        for row in rows
        if (row.precision, row.held_out) == (precision, held_out)
    ]
    if not errors:
        return None
    return {
        "precision": precision,
        "held_out": held_out,
        "count": len(errors),
        "mean_percent": 100 * sum(errors) / len(errors),
        "worst_percent": 100 * max(errors),
        "within_10_percent": 100 * sum(e <= 0.1 for e in errors) / len(errors),
    }


def _measured_coverage(table: LatencyTable) -> list[dict[str, Any]]:
    keys: dict[tuple[str, str], list[OpKey]] = {}
    for key in table.measured:
        if key.op != NETWORK:
            keys.setdefault((key.precision, key.op), []).append(key)
    return [
        {
            "precision": precision,
            "operators": op,
            "known_by": "measured",
            "count": len(found),
            "in_channels": _range(key.in_channels for key in found),
            "out_channels": _range(key.out_channels for key in found),
            "pixels": _range(key.in_size[0] * key.in_size[1] for key in found),
            "kernels": sorted({max(key.kernel) for key in found}),
        }
        for (precision, op), found in keys.items()
    ]


def _range(values: Iterable[int]) -> list[int]:
    found = list(values)
    return [min(found), max(found)]


def _fitted_coverage(table: LatencyTable) -> list[dict[str, Any]]:
    return [
        {
            "precision": precision,
            "operators": name,
            "known_by": "fitted",
            "count": seen.networks,
            "in_channels": [seen.low[0], seen.high[0]],
            "out_channels": [seen.low[1], seen.high[1]],
            "pixels": [seen.low[2], seen.high[2]],
            "kernels": [seen.low[3], seen.high[3]],
        }
        for precision, model in table.models.items()
        for name, seen in model.coverage.items()
    ]


def run_calibrate(
    target: str,
    on: str,
    runtime: str | None,
    threads: int | None,
    precision: str | None,
    benchmark_model: str | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Correct a table by whole networks on the user's device; it becomes the user's own."""
    table = load_table(target)
    device = parse_device(on, benchmark_model)
    chosen = runtime or next(iter(device.runtimes))
    if chosen not in device.runtimes:
        raise InputError(f"--runtime {chosen}: {on} has {', '.join(device.runtimes)}")
    precisions = _precisions(table, device.runtimes[chosen], precision)
    saved = Target.parse(name or table.target)
    setup = Setup(chosen, threads or table.meta.threads)
    total = len(REFERENCE_NETWORKS) * len(precisions) * PASSES
    with progress(as_json).task(f"Timing networks on {on}", total) as done:
        calibrated = calibrate_table(table, device, setup, precisions, done)
    folder = user_tables().joinpath(*saved.folders)
    write_table(replace(calibrated.table, target=str(saved)), folder)
    result = {
        "target": str(saved),
        "folder": str(folder),
        "networks": len(REFERENCE_NETWORKS),
        "error_before_percent": calibrated.before_percent,
        "error_after_percent": calibrated.after_percent,
    }
    if as_json:
        print_json(result)
        return
    console = Console()
    for one in precisions:
        console.print(
            f"{one}: {calibrated.before_percent[one]:.1f}% mean error before, "
            f"{calibrated.after_percent[one]:.1f}% after (networks held out)"
        )
    console.print(f"{escape(str(folder))}: {escape(str(saved))} now means this table")


def _precisions(
    table: LatencyTable, of_device: tuple[str, ...], wanted: str | None
) -> tuple[str, ...]:
    both = tuple(p for p in table.precisions if p in of_device and wanted in (None, p))
    if not both:
        raise InputError(
            f"--precision {wanted}: the table has {', '.join(table.precisions)}, "
            f"the device {', '.join(of_device)}"
        )
    return both


def _errors(rows: list[dict[str, Any]]) -> Table:
    shown = Table(title="stated error", title_justify="left")
    for header in ("precision", "predicted from", "count", "mean", "worst", "within 10%"):
        shown.add_column(header, justify="left" if header.startswith("p") else "right")
    for row in rows:
        shares = (row["mean_percent"], row["worst_percent"], row["within_10_percent"])
        shown.add_row(
            *(row["precision"], _HELD_OUT[row["held_out"]], str(row["count"])),
            *(f"{share:.1f}%" for share in shares),
        )
    return shown


def _coverage(rows: list[dict[str, Any]]) -> Table:
    shown = Table(title="covers (outside, estimates say extrapolated)", title_justify="left")
    for header in ("", "operators", "known by", "in", "out", "pixels", "kernels"):
        shown.add_column(header, overflow="fold")
    for row in rows:
        ranges = (
            "–".join(map(str, row[name])) for name in ("in_channels", "out_channels", "pixels")
        )
        known = f"{row['count']} {'measured' if row['known_by'] == 'measured' else 'networks'}"
        kernels = ", ".join(map(str, dict.fromkeys(row["kernels"])))
        shown.add_row(row["precision"], row["operators"], known, *ranges, kernels)
    return shown
