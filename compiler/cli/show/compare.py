"""Two compiled networks or two files side by side, on the console."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.api.compare import Compared, ComparedFiles
from shrinkc.compiler.cli.output import wide_console
from shrinkc.compiler.report.html.reading import metric, part
from shrinkc.compiler.tasks.wording import score_words


def comparison_json(found: Compared) -> dict[str, Any]:
    first, second = (_summary(report) for report in found.reports)
    files = {name: asdict(pair) for name, pair in found.files.items()}
    return {"first": first, "second": second, "files": files}


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    keys = ("model", "target", "precision", "predicted_ms_after", "after", "artefacts")
    return {key: report.get(key) for key in keys}


def comparison(found: Compared) -> None:
    folders, reports, timed = found.folders, found.reports, found.files
    console = wide_console()
    table = Table(title="side by side", title_justify="left")
    table.add_column("")
    for folder in folders:
        table.add_column(escape(str(folder)), justify="right")
    for label, key in (("model", "model"), ("target", "target"), ("precision", "precision")):
        table.add_row(label, *(escape(str(report.get(key)).rstrip(",")) for report in reports))
    table.add_row("predicted", *(_number(r.get("predicted_ms_after"), "ms") for r in reports))
    counted = escape(" or ".join(dict.fromkeys(metric(report) for report in reports)))
    names = (artefact["file"] for report in reports for artefact in report["artefacts"])
    for name in sorted(dict.fromkeys(names), reverse=True):
        files = [_artefact(report, name) for report in reports]
        if any(files):
            label = escape(name)
            table.add_row(f"{label}, size", *(_number(f.get("bytes"), "B") for f in files))
            table.add_row(f"{label}, {counted}", *map(_score, reports, files))
        times = timed.get(name)
        if times is not None and times.speedup is not None:
            first, second = (f"{ms:.3f} ms" for ms in (times.first_ms, times.second_ms))
            table.add_row(f"{escape(name)}, measured here", first, second)
    console.print(table)
    for name, times in timed.items():
        if times.speedup is not None:
            console.print(
                f"{escape(name)}: the second is {times.speedup:.2f} times as fast as the first"
            )
        if times.difference is not None:
            share = f"{times.difference:.1%}"
            console.print(f"{escape(name)}: on random inputs their outputs differ by up to {share}")
        else:
            why = "inputs or outputs are of other shapes"
            console.print(f"{escape(name)}: their {why}, so that they were not compared")


def files_json(found: ComparedFiles) -> dict[str, Any]:
    """Two model files, for JSON."""
    sides = [
        {
            "file": str(side.path),
            "bytes": side.bytes,
            "runtime": side.runtime,
            "operators": dict(side.operators),
        }
        for side in found.sides
    ]
    return {
        "first": sides[0],
        "second": sides[1],
        "difference": found.difference,
        "agreement": found.agreement,
        "images": found.images,
        "first_ms": found.first_ms,
        "second_ms": found.second_ms,
        "speedup": found.speedup,
    }


def files(found: ComparedFiles) -> None:
    """The same, for people."""
    console = wide_console()
    table = Table(title="side by side", title_justify="left")
    table.add_column("")
    for side in found.sides:
        table.add_column(escape(str(side.path)), justify="right")
    table.add_row("size", *(_number(side.bytes, "B") for side in found.sides))
    table.add_row("runtime", *(escape(side.runtime) for side in found.sides))
    if found.first_ms is not None and found.second_ms is not None:
        table.add_row("measured here", f"{found.first_ms:.3f} ms", f"{found.second_ms:.3f} ms")
    table.add_row("operators", *(str(sum(side.operators.values())) for side in found.sides))
    for name in sorted({name for side in found.sides for name in side.operators}):
        counts = (side.operators.get(name) for side in found.sides)
        table.add_row(f"  {escape(name)}", *("" if n is None else str(n) for n in counts))
    console.print(table)
    if found.speedup is not None:
        console.print(f"the second is {found.speedup:.2f} times as fast as the first")
    on = f"{found.images} images" if found.images else "random input"
    if found.difference is None:
        console.print("their outputs are of other shapes")
    else:
        console.print(f"on {on} their outputs differ by up to {found.difference:.1%} of the range")
    if found.agreement is not None:
        console.print(f"on {on} they agree on the class of {found.agreement:.1%}")


def _artefact(report: dict[str, Any], name: str) -> dict[str, Any]:
    artefacts = cast("list[dict[str, Any]]", report["artefacts"])
    none: dict[str, Any] = {}
    return next((a for a in artefacts if a.get("file") == name), none)


def _number(value: Any, unit: str) -> str:
    if not isinstance(value, int | float):
        return "unknown"
    return f"{value:,} {unit}" if isinstance(value, int) else f"{value:.4g} {unit}"


def _score(report: dict[str, Any], file: dict[str, Any]) -> str:
    score, style = file.get("top1"), part(report, "task").get("style", "percent")
    return score_words(score, style) if isinstance(score, float) else "not judged"
