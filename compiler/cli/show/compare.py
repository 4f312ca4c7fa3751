"""Two compiled networks side by side, on the console."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.api.compare import FILES
from shrinkc.compiler.cli.output import wide_console as show_wide_console
from shrinkc.compiler.report.html.reading import metric


def comparison(
    folders: tuple[Path, Path], reports: list[dict[str, Any]], timed: dict[str, dict[str, Any]]
) -> None:
    console = show_wide_console()
    table = Table(title="side by side", title_justify="left")
    table.add_column("")
    for folder in folders:
        table.add_column(escape(str(folder)), justify="right")
    for label, key in (("model", "model"), ("target", "target"), ("precision", "precision")):
        table.add_row(label, *(escape(str(report.get(key)).rstrip(",")) for report in reports))
    table.add_row("predicted", *(_number(r.get("predicted_ms_after"), "ms") for r in reports))
    counted = escape(" or ".join(dict.fromkeys(metric(report) for report in reports)))
    for name in FILES:
        files = [_artefact(report, name) for report in reports]
        if any(files):
            table.add_row(f"{name}, size", *(_number(f.get("bytes"), "B") for f in files))
            table.add_row(f"{name}, {counted}", *(_share(f.get("top1")) for f in files))
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
