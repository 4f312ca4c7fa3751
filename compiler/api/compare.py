"""Two folders that shrinkc wrote, read and their files timed in turn."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any, cast

from shrinkc.compiler.formats.registry import FORMATS, open_runner
from shrinkc.compiler.formats.runner import random_inputs
from shrinkc.compiler.measure.bench import bench
from shrinkc.compiler.support.difference import relative_error
from shrinkc.errors import InputError, LoadError

MAX_BYTES = 64 << 20  # of a report.json
FILES = tuple(one.file for one in FORMATS)


def _report(folder: Path) -> dict[str, Any]:
    path = folder / "report.json"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LoadError(f"{path}: larger than {MAX_BYTES >> 20} MB; no report of shrinkc's")
        report: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(f"{path}: not a report of shrinkc's; give the folder it wrote") from error
    if not isinstance(report, dict) or "artefacts" not in report:
        raise LoadError(f"{path}: not a report of shrinkc's; give the folder it wrote")
    return cast("dict[str, Any]", report)


def _timed(first: Path, second: Path, threads: int, runs: int) -> dict[str, Any]:
    """Medians in ms, in turns, and the median of the ratios; how far apart their outputs are on
    random inputs, as a share of the first's range."""
    pair = [open_runner(path, threads) for path in (first, second)]
    if pair[0].input_shapes != pair[1].input_shapes:
        raise InputError(f"{first} and {second} read inputs of other shapes")
    inputs = random_inputs(pair[0])
    outputs = [runner.run(inputs) for runner in pair]
    same = len(outputs[0]) == len(outputs[1])
    found: dict[str, Any] = {
        "difference": max(
            (relative_error(b, a) for a, b in zip(*outputs, strict=True)), default=0.0
        )
        if same
        else None
    }
    if runs:
        a, b = bench(pair, runs=runs)
        ratios = [x / y for x, y in zip(a.times_ms, b.times_ms, strict=True)]
        found |= {"first_ms": a.median_ms, "second_ms": b.median_ms, "speedup": median(ratios)}
    return found


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    keys = ("model", "target", "precision", "predicted_ms_after", "after", "artefacts")
    return {key: report.get(key) for key in keys}
