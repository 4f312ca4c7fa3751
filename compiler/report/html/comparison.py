"""One page for several results of a network: a row each, with a link to its own report."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from shrinkc.compiler.report.html import units
from shrinkc.compiler.report.html.markup import Html, tag
from shrinkc.compiler.report.html.page import document
from shrinkc.compiler.report.html.reading import (
    Json,
    likeness,
    listed,
    main_file,
    metric_title,
    predicted,
    score,
)
from shrinkc.compiler.report.html.sections.frontier import frontier_chart
from shrinkc.compiler.report.html.sections.verdict import verdict
from shrinkc.compiler.report.html.svg import bar, image, text
from shrinkc.compiler.report.html.tables import row, section, table
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.tasks.wording import AGREEMENT

PAGE = "comparison.html"
_NUMBERS = frozenset({2, 3, 4, 5, 6, 7})
_ROW, _BAR = 34.0, 20.0  # pixels
_LEFT, _RIGHT = 26.0, 74.0  # percent


def comparison_page(reports: Mapping[str, Json]) -> str:
    """Folder → what its report.json holds; the folders lie beside the page."""
    first = next(iter(reports.values()))
    targets = list(dict.fromkeys(one["target"] for one in reports.values()))
    title = f"{first['model'].rstrip(',')} for {', '.join(targets)}"
    header = tag(
        "header",
        None,
        tag("p", {"class": "kicker"}, "shrinkc comparison"),
        tag("h1", None, title),
        tag("p", {"class": "verdict"}, _summary(reports, targets)),
    )
    end = f"Written by shrinkc {first['shrinkc']}, from report.json in each folder."
    parts = (_chart(reports, targets), _table(reports), _sentences(reports))
    return document(title, header, None, parts, end)


def _summary(reports: Mapping[str, Json], targets: list[str]) -> str:
    speedups = [found for one in reports.values() if (found := _speedup(one)) is not None]
    what = counted(len(reports), "result")
    where = counted(len(targets), "target")
    if not speedups:
        return f"{what} for {where}; no speed is predicted."
    low, high = (units.times(end) for end in (min(speedups), max(speedups)))
    range_ = low if low == high else f"{low} to {high}"
    return f"{what} for {where}, {range_} as fast as the fp32 original on the same target."


def _speedup(report: Json) -> float | None:
    """Predicted for the target; None where no table prices the network."""
    before, after = predicted(report)
    return before / after if before and after else None


def _chart(reports: Mapping[str, Json], targets: list[str]) -> Html:
    """Of one target accuracy over milliseconds, where that is known; else a bar for each."""
    first = next(iter(reports.values()))
    points = [point | {"chosen": False} for point in listed(first, "frontier")]  # all are written
    drawn = frontier_chart(first | {"frontier": points}) if len(targets) == 1 else None
    if drawn is not None:
        return section("chart", "Accuracy and time", drawn)
    most = max((_speedup(one) or 0.0 for one in reports.values()), default=0.0)
    parts: list[Html] = []
    for number, (folder, report) in enumerate(reports.items()):
        y, speedup = number * _ROW, _speedup(report)
        parts.append(text(0, y + 15, folder))
        if speedup is None:
            parts.append(text(_LEFT, y + 15, units.DASH))
            continue
        width = (_RIGHT - _LEFT) * speedup / most
        precision = main_file(report)["precision"]
        kind = "precision" if precision == "int8" else "total"
        parts.append(bar(_LEFT, y, width, _BAR, kind))
        said = f"{units.times(speedup)} {precision}"
        parts.append(text(_LEFT + width, y + 15, said, "strong", shift=8))
    about = "; ".join(f"{folder}: {_said(report)}" for folder, report in reports.items())
    height = len(reports) * _ROW
    drawing = image("speedups", "Speedup over the fp32 original", about, height, *parts)
    return section("chart", "Speedup over the fp32 original, predicted", drawing)


def _said(report: Json) -> str:
    speedup = _speedup(report)
    return "not predicted" if speedup is None else units.times(speedup)


def _table(reports: Mapping[str, Json]) -> Html:
    first = next(iter(reports.values()))
    rows = [
        row(
            tag("a", {"href": f"{quote(folder)}/report.html"}, folder),
            main_file(report)["precision"],
            *map(units.ms, predicted(report)),
            _said(report),
            score(report, main_file(report)["top1"]),
            units.percent(main_file(report)["agreement"]),
            units.size(main_file(report)["bytes"]),
            numeric=_NUMBERS,
        )
        for folder, report in reports.items()
    ]
    alike = "Agrees" if likeness(first) == AGREEMENT else "Likeness"
    headers = ("Folder", "Precision", "fp32 original", "Predicted", "Speedup")
    headers += (metric_title(first), alike, "Size")
    caption = "The file that each target runs, beside your model"
    return section("results", "Results", table(caption, headers, rows, _NUMBERS))


def _sentences(reports: Mapping[str, Json]) -> Html:
    """What each report says first."""
    items = (
        tag("li", None, tag("strong", None, folder), f": {verdict(report)}")
        for folder, report in reports.items()
    )
    return section("verdicts", "In words", tag("ul", None, *items))
