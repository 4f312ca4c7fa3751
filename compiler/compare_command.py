"""`shrinkc compare A B`: two folders that shrinkc wrote, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any, cast

from rich.markup import escape
from rich.table import Table

from . import show
from .bench import bench
from .cli import print_json
from .errors import InputError, LoadError
from .runtimes import OnnxRunner, Runner, TfliteRunner, random_inputs
from .verify import relative_error

MAX_BYTES = 64 << 20  # of a report.json
FILES = ("model.tflite", "model.onnx")


def run_compare(first: Path, second: Path, threads: int, runs: int, as_json: bool) -> None:
    """Print both, and how many times as fast the second is."""
    reports = [_report(folder) for folder in (first, second)]
    timed = {
        name: _timed(first / name, second / name, threads, runs)
        for name in FILES
        if (first / name).is_file() and (second / name).is_file()
    }
    if not timed:
        raise InputError(f"{first} and {second} have no file of the same format; compile both")
    if as_json:
        print_json(
            {
                "first": _summary(reports[0]),
                "second": _summary(reports[1]),
                "files": timed,
            }
        )
        return
    _show((first, second), reports, timed)


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
    load = TfliteRunner if first.suffix == ".tflite" else OnnxRunner
    pair: list[Runner] = [load(path.read_bytes(), threads) for path in (first, second)]
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


def _show(
    folders: tuple[Path, Path], reports: list[dict[str, Any]], timed: dict[str, dict[str, Any]]
) -> None:
    console = show.wide_console()
    table = Table(title="side by side", title_justify="left")
    table.add_column("")
    for folder in folders:
        table.add_column(escape(str(folder)), justify="right")
    for label, key in (("model", "model"), ("target", "target"), ("precision", "precision")):
        table.add_row(label, *(escape(str(report.get(key)).rstrip(",")) for report in reports))
    table.add_row("predicted", *(_number(r.get("predicted_ms_after"), "ms") for r in reports))
    for name in FILES:
        files = [_artefact(report, name) for report in reports]
        if any(files):
            table.add_row(f"{name}, size", *(_number(f.get("bytes"), "B") for f in files))
            table.add_row(f"{name}, top-1", *(_share(f.get("top1")) for f in files))
        if "speedup" in timed.get(name, {}):
            times = timed[name]
            first, second = (f"{times[k]:.3f} ms" for k in ("first_ms", "second_ms"))
            table.add_row(f"{name}, measured here", first, second)
    console.print(table)
    for name, times in timed.items():
        if "speedup" in times:
            console.print(
                f"{name}: the second is {times['speedup']:.2f} times as fast as the first"
            )
        if times["difference"] is not None:
            share = f"{times['difference']:.1%}"
            console.print(f"{name}: on random inputs their outputs differ by up to {share}")


def _artefact(report: dict[str, Any], name: str) -> dict[str, Any]:
    artefacts = cast("list[dict[str, Any]]", report["artefacts"])
    none: dict[str, Any] = {}
    return next((a for a in artefacts if a.get("file") == name), none)


def _number(value: Any, unit: str) -> str:
    if not isinstance(value, int | float):
        return "unknown"
    return f"{value:,} {unit}" if isinstance(value, int) else f"{value:.4g} {unit}"


def _share(value: Any) -> str:
    return f"{value:.2%}" if isinstance(value, float) else "not judged"
