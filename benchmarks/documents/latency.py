"""How well latency tables predict what they had not seen."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.documents.cells import Table, percent
from benchmarks.shared.results import Results
from shrinkc.latency_tables.table import LatencyTable
from shrinkc.latency_tables.tested.accuracy import Accuracy, accuracy


def operators(*tables: LatencyTable) -> Table:
    """Convolutions held out, of tables that differ in their batch."""
    batches = [str(table.meta.batch) for table in tables]
    lines: list[tuple[str, ...]] = []
    for precision in tables[0].precisions:
        errors = (_found(table, precision, "operator").mean_error_percent for table in tables)
        lines.append((precision, *(f"{error:.1f}%" for error in errors)))
    header = ("convolutions held out (a tenth)", f"batch {batches[0]}", *batches[1:])
    return header, lines


def networks(table: LatencyTable) -> Table:
    """In the fit, networks held out, families held out: mean and worst."""
    lines: list[tuple[str, ...]] = []
    for precision in table.precisions:
        fitted, network, family = _all(table, precision)
        held_out = (f"{one.mean_error_percent:.1f}%" for one in (fitted, network))
        lines.append(
            (
                *(precision, str(network.networks), *held_out, f"{network.worst_percent:.1f}%"),
                *(f"{family.mean_error_percent:.1f}%", f"{family.worst_percent:.1f}%"),
            )
        )
    first = ("", "networks", "in the fit", "network held out", "worst")
    return (*first, "family held out", "worst"), lines


def networks_ranked(table: LatencyTable) -> Table:
    """The same, with how many are near and in which order."""
    header, lines = networks(table)
    ranked: list[tuple[str, ...]] = []
    for line in lines:
        network = _found(table, line[0], "network")
        more = (f"{network.within_10_percent:.0f}%", f"{network.spearman:.4f}")
        ranked.append((*line[:5], *more, *line[5:]))
    return (*header[:5], "within 10%", "Spearman", *header[5:]), ranked


def figures(table: LatencyTable) -> Table:
    """Of a table that rests on a few figures."""
    lines: list[tuple[str, ...]] = []
    for precision in table.precisions:
        fitted, held_out, _ = _all(table, precision)
        errors = (fitted.mean_error_percent, held_out.mean_error_percent, held_out.worst_percent)
        lines.append((precision, str(held_out.networks), *(f"{error:.1f}%" for error in errors)))
    return ("", "figures", "in the fit", "figure held out", "worst"), lines


def blocks(results: Results) -> Table:
    """Errors by the weight of a block."""
    fields = {
        "network held out": ("network_held_out_error", 2),
        "family held out": ("family_held_out_error", 2),
        "blocks, in the fit": ("blocks_in_fit_error", 0),
    }
    return (
        (
            "weight of a block (a network is 1)",
            *(f"{row['weight']:g}" for row in results.rows),
        ),
        [
            (name, *(percent(row[field], digits) for row in results.rows))
            for name, (field, digits) in fields.items()
        ],
    )


def _all(table: LatencyTable, precision: str) -> tuple[Accuracy, Accuracy, Accuracy]:
    fitted, network, family = (
        _found(table, precision, held_out) for held_out in ("none", "network", "family")
    )
    return fitted, network, family


def _found(table: LatencyTable, precision: str, held_out: str) -> Accuracy:
    found = accuracy(table, precision, held_out)
    if found is None:
        raise ValueError(f"{table.target} states nothing of {precision}, {held_out} held out")
    return found


TABLES: tuple[Callable[..., Table], ...] = (
    operators,
    networks,
    networks_ranked,
    figures,
    blocks,
)
