"""Latency tables, on the console and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.support.text import counted
from shrinkc.errors import TableError
from shrinkc.latency_tables.files import HELD_OUT, Validation
from shrinkc.latency_tables.kernels.features import CLASSES
from shrinkc.latency_tables.kernels.model import MIN_NETWORKS
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.store import load_table, read_statement, resolve
from shrinkc.latency_tables.table import NETWORK, LatencyTable

HEADERS = ("target", "for", "error", "9 of 10", "dated")


NAME_WIDTH = 24  # of targets that are not broken, however narrow the console
DATED_FROM = 76  # columns; narrower consoles leave the date to `tables show`


def listed(rows: Sequence[Mapping[str, Any]], width: int) -> Table:
    """Every table in at most `width` columns: devices wrap beside the lines of their precisions."""
    headers = HEADERS if width >= DATED_FROM else HEADERS[:-1]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    longest = max((len(row["target"]) for row in rows if not row["stands_for"]), default=0)
    table.add_column(headers[0], overflow="fold", min_width=min(longest, NAME_WIDTH))
    table.add_column(headers[1], overflow="fold")
    for header in headers[2:]:
        table.add_column(header, no_wrap=True)
    for row in rows:
        if "error" in row:
            table.add_row(escape(row["target"]), f"damaged: {escape(row['error'])}")
        elif not row["stands_for"]:
            table.add_row(*map(escape, _cells(row)[: len(headers)]))
    return table


def short_names(rows: Sequence[Mapping[str, Any]], width: int) -> str:
    """Lines that break between names only."""
    pairs = (f"{row['target']} = {row['stands_for']}" for row in rows if row["stands_for"])
    unbroken = ", ".join(pair.replace(" ", _NO_BREAK) for pair in pairs)
    text = textwrap.fill(
        f"short names: {unbroken}", width, subsequent_indent="  ", break_on_hyphens=False
    )
    return text.replace(_NO_BREAK, " ")


_NO_BREAK = "\u00a0"


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One of each of HEADERS, a precision a line."""
    threads, batch = row["threads"], row["batch"]
    place = row["device"] if row["cliffs"] == "gpu" else f"{row['device']}, {threads}T"
    where = place if batch == 1 else f"{place}, batch {batch}"
    errors = [f"{p} {row['errors'][p]:.1f}%" for p in row["precisions"] if p in row["errors"]]
    within = [
        "–" if row["interval"][p] is None else f"±{100 * (row['interval'][p] - 1):.0f}%"
        for p in row["precisions"]
    ]
    return (
        row["target"],
        where,
        "\n".join(errors) or "not stated",
        "\n".join(within),
        row["date"][:7],
    )


def line(name: str) -> dict[str, Any]:
    if resolve(name) != name:
        return {"target": name, "stands_for": resolve(name)}
    try:
        meta, errors = read_statement(name)
    except TableError as error:  # one damaged table of the user's must not hide the others
        return {"target": name, "stands_for": None, "error": str(error)}
    return {
        "target": name,
        "stands_for": None,
        "device": meta.device,
        "runtime": f"{meta.runtime} {meta.runtime_version}",
        "threads": meta.threads,
        "batch": meta.batch,
        "cliffs": meta.cliffs,
        "kind": meta.kind,
        "precisions": list(meta.precisions),
        "date": meta.date,
        "stated_error": _stated(meta.precisions, errors),
        "errors": _hardest(meta.precisions, errors),
        "interval": _intervals(name, meta.precisions, errors),
    }


def _intervals(
    name: str, precisions: Sequence[str], errors: Mapping[tuple[str, str], float]
) -> dict[str, float | None]:
    """By precision, of networks like those that it was tested on; None where there were none."""
    if not any(held_out in ("network", "family") for _, held_out in errors):
        return dict.fromkeys(precisions)
    table = load_table(name)
    return {precision: table.spread(precision, 0.0) for precision in precisions}


def _hardest(
    precisions: Sequence[str], errors: Mapping[tuple[str, str], float]
) -> dict[str, float]:
    tests = ("network", "operator", "none")
    found = {p: next((errors[p, h] for h in tests if (p, h) in errors), None) for p in precisions}
    return {p: error for p, error in found.items() if error is not None}


def _stated(precisions: Sequence[str], errors: Mapping[tuple[str, str], float]) -> str:
    """By the hardest test that the table states."""
    for held_out in ("network", "operator", "none"):
        found = {p: errors.get((p, held_out)) for p in precisions}
        known = [f"{p} {error:.1f}%" for p, error in found.items() if error is not None]
        if known:
            return f"{', '.join(known)} ({_HELD_OUT[held_out]})"
    return "not stated"


_HELD_OUT = {
    "none": "fitted to them",
    "network": "networks held out",
    "family": "families held out",
    "operator": "operators held out",
    "unlike": "in no fit, unlike it",
}


def describe(table: LatencyTable) -> dict[str, Any]:
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
        "interval": {p: table.spread(p, 0.0) for p in table.precisions},
        "never_tried": {p: _never_tried(table, p) for p in table.models},
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


def _never_tried(table: LatencyTable, precision: str) -> list[str]:
    """Operator classes that the fit has seen in fewer networks than tell their price."""
    seen = table.models[precision].coverage
    return sorted(
        name
        for name in CLASSES
        if not any(c.networks >= MIN_NETWORKS for n, c in seen.items() if n == name)
    )


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


def errors(rows: list[dict[str, Any]]) -> Table:
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


def coverage(rows: list[dict[str, Any]]) -> Table:
    title = "covers (outside, estimates say extrapolated)"
    shown = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for header in ("", "operators", "known by", "in", "out", "pixels", "kernels"):
        shown.add_column(header, overflow="fold")
    for row in rows:
        ranges = (
            "–".join(map(str, row[name])) for name in ("in_channels", "out_channels", "pixels")
        )
        measured = row["known_by"] == "measured"
        known = f"{row['count']} measured" if measured else counted(row["count"], "network")
        kernels = ", ".join(map(str, dict.fromkeys(row["kernels"])))
        shown.add_row(row["precision"], row["operators"], known, *ranges, kernels)
    return shown
