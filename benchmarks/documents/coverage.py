"""How many public architectures compile, and how many can be pruned."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.coverage_one import STAGES
from benchmarks.deployed import summary
from benchmarks.documents.cells import Row, Table, part, those
from benchmarks.prune_coverage_one import STAGES as PRUNE_STAGES
from benchmarks.shared.results import Results

LIBRARIES = ("pytorchcv", "timm", "transformers")


def compiled(results: Results) -> Table:
    lines: list[tuple[str, ...]] = []
    for name, rows in _libraries(results):
        passed = (str(sum(row[stage] for row in rows)) for stage in STAGES)
        every = sum(all(row[stage] for stage in STAGES) for row in rows)
        lines.append((name, str(len(rows)), *passed, part(every, len(rows))))
    stages = ("captured", "folded", "ONNX equal", "TFLite equal", "all four")
    return ("library", "run", *stages), lines


def pruned(results: Results) -> Table:
    known = [row for row in results.rows if "captured" not in row["errors"]]
    lines: list[tuple[str, ...]] = []
    for name, rows in (*_libraries(results), ("those that capture knows", known)):
        every = sum(all(row[stage] for stage in PRUNE_STAGES) for row in rows)
        theirs = sum(row["peer"]["pruned"] for row in rows)
        cells = (part(every, len(rows)), part(theirs, len(rows)))
        lines.append((name, str(len(rows)), *cells))
    return (
        ("library", "run", "all stages", "Torch-Pruning 1.6.1: the smaller network runs"),
        lines,
    )


def deployed(results: Results) -> Table:
    header = ("family", "networks", "captured", "ONNX equal", "TFLite equal", "pruned and equal")
    planned = ("planned",) if any("planned" in row for row in results.rows) else ()
    return (*header, "all four", *planned), summary(results.rows)


def _libraries(results: Results) -> list[tuple[str, list[Row]]]:
    found = [(name, those(results.rows, library=name)) for name in LIBRARIES]
    return [*found, ("all", list(results.rows))]


TABLES: tuple[Callable[..., Table], ...] = (compiled, pruned, deployed)
