"""Less depth, without training and with it."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

from benchmarks.documents.cells import Table, asked, percent, spread, those, times
from benchmarks.shared.results import Results

_METHODS = {
    "closed-form": "closed form",
    "uniform-width": "uniform width",
    "layer-pruning": "layer pruning",
    "layermerge": "LayerMerge",
    "two-stage-dp": "two-stage DP",
    "depthshrinker": "DepthShrinker",
}


def closed_form(results: Results) -> Table:
    """Speeds in both precisions, measured and predicted; accuracy in PyTorch and of the file."""
    before = percent(results.rows[0]["original_top1"])
    (int8,) = {percent(row["original_int8"]["top1"]) for row in results.rows[1:5]}
    lines: list[tuple[str, ...]] = []
    for row in results.rows:
        measured, predicted = row["measured"], row["predicted_speedups"]
        devices = (
            f"{times(predicted[f'{device}/int8'])}, {times(predicted[f'{device}/fp32'])}"
            for device in ("rpi4", "pixel4")
        )
        lines.append(
            (
                asked(row["asked_speedup"]),
                *(times(measured[precision]["speedup"]) for precision in ("int8", "fp32")),
                *devices,
                *(percent(row[judged]["top1"]) for judged in ("distilled", "int8")),
                percent(row["distilled"]["agreement"], 1),
                f"{row['seconds']:.0f}",
            )
        )
    header = ("asked", "int8 file", "fp32 file", "predicted rpi4 int8, fp32", "pixel4 int8, fp32")
    judged = (f"top-1 in PyTorch ({before})", f"int8 file ({int8})", "agrees", "s")
    return (*header, *judged), lines


def trained(results: Results) -> Table:
    """Every method at every speedup, int8 files."""
    speedups = sorted({row["asked_speedup"] for row in results.rows})
    lines: list[tuple[str, ...]] = []
    for method, name in _METHODS.items():
        cells: list[str] = []
        for speedup in speedups:
            rows = those(results.rows, method=method, asked_speedup=speedup)
            if any("failure" in row for row in rows):
                cells.append("out of reach")
                continue
            measured = mean(row["speedup"] for row in rows)
            cells.append(f"{spread([row['top1'] for row in rows])} ({times(measured)})")
        lines.append((name, *cells))
    return ("", *map(asked, speedups)), lines


TABLES: tuple[Callable[..., Table], ...] = (closed_form, trained)
