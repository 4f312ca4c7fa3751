"""What data sets cost by their size."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.documents.cells import Table
from benchmarks.shared.results import Results


def data_sets(results: Results) -> Table:
    header = ("images", "listed in", "an image", "peak memory")
    return header, [
        (
            f"{row['images']:,}",
            f"{row['stage_seconds']['listing']:.1f} s",
            f"{1e6 * row['stage_seconds']['listing'] / row['images']:.0f} µs",
            f"{row['peak_mb']:.0f} MB",
        )
        for row in results.rows
    ]


TABLES: tuple[Callable[..., Table], ...] = (data_sets,)
