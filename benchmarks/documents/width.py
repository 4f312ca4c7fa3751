"""Less width, without training and with it."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

from benchmarks.documents.cells import (
    Row,
    Table,
    percent,
    points,
    spread,
    the_one,
    those,
    times,
)
from benchmarks.shared.results import Results

LATENCIES = (0.9, 0.85, 0.8, 0.7)
_CRITERIA = {
    "he": "He 2017",
    "cap": "CaP",
    "group-fisher": "Group Fisher",
    "dropnet": "DropNet",
    "hrank": "HRank",
    "random": "random",
    "l2": "L2",
    "l1": "L1",
    "ssl": "SSL (norms alone)",
    "torch-pruning l1": "Torch-Pruning 1.6.1, L1",
    "torch-pruning group-norm": "Torch-Pruning 1.6.1, group norm",
}
_NAMES = {
    ("ours", "he"): "He 2017",
    ("ours", "he measured"): "He 2017, measured",
    ("ours", "group-fisher fitted measured"): "Group Fisher, compensated, measured",
    ("ours", "group-fisher fitted"): "Group Fisher, compensated",
    ("ours", "ssl"): "SSL, norms alone",
    ("ours", "ssl penalty"): "SSL, its penalty in the ten epochs",
    ("ours", "slimming penalty"): "Network Slimming, its penalty in the ten epochs",
    ("ours", "l1 fitted"): "L1, compensated",
    ("ours", "l1"): "L1",
    ("ours", "dropnet"): "DropNet",
    ("ours", "cap"): "CaP",
    ("ours", "hrank"): "HRank",
    ("ours", "random"): "random",
    ("torch-pruning", "l1"): "Torch-Pruning 1.6.1, L1",
    ("torch-pruning", "group-norm"): "Torch-Pruning 1.6.1, group norm",
}


def untrained(results: Results) -> Table:
    """Top-1 at each latency, as pruned and compensated."""

    def cell(criterion: str, mode: str) -> str:
        rows = those(results.rows, criterion=criterion, mode=mode)
        found = (the_one(rows, asked_latency=latency) for latency in LATENCIES if rows)
        return " · ".join(points(row["top1"], 1) for row in found)

    return (
        ("criterion", "as it is", "readers compensated by least squares"),
        [(name, cell(c, "plain"), cell(c, "fitted")) for c, name in _CRITERIA.items()],
    )


def distilled(results: Results) -> Table:
    """He's criterion, groups measured, with distillation behind it."""
    rows = those(results.rows, criterion="he:measured", mode="distilled")
    found = [the_one(rows, asked_latency=latency) for latency in LATENCIES]
    return (
        ("He 2017, measured, distilled", "took", "top-1", "agrees"),
        [
            (
                f"asked for {row['asked_latency']:g}",
                f"{row['latency']:.3f}",
                percent(row["top1"]),
                percent(row["agreement"], 1),
            )
            for row in found
        ],
    )


def half_the_macs(results: Results) -> Table:
    return (
        ("half the MACs", "MACs", "before tuning", "top-1"),
        [(name, _macs(rows), _before(rows), _top1(rows)) for name, rows in _goal(results, "macs")],
    )


def measured_speedup(results: Results) -> Table:
    lines: list[tuple[str, ...]] = []
    for name, rows in _goal(results, "speed"):
        speedup = times(mean(row["speedup"] for row in rows))
        seeds = ", three seeds" if len(rows) == 3 else ""
        name = name.replace(" 1.6.1", "")
        lines.append((f"{name}{seeds}", speedup, _macs(rows), _before(rows), _top1(rows)))
    return ("asked for a measured 1.5×", "measured", "MACs", "before tuning", "top-1"), lines


def _goal(results: Results, goal: str) -> list[tuple[str, list[Row]]]:
    """Best first, over all seeds; without what was not tuned, and the control from scratch."""
    found: list[tuple[str, list[Row]]] = []
    for (by, criterion), name in _NAMES.items():
        rows = those(results.rows, goal=goal, by=by, criterion=criterion)
        rows = [row for row in rows if "top1" in row]
        if rows:
            found.append((name, rows))
    return sorted(found, key=lambda one: -mean(row["top1"] for row in one[1]))


def _macs(rows: list[Row]) -> str:
    return f"{mean(row['macs'] for row in rows):.3f}"


def _before(rows: list[Row]) -> str:
    return points(mean(row["untrained_top1"] for row in rows))


def _top1(rows: list[Row]) -> str:
    return spread([row["top1"] for row in rows], 2)


TABLES: tuple[Callable[..., Table], ...] = (
    untrained,
    distilled,
    half_the_macs,
    measured_speedup,
)
