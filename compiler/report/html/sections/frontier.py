"""The frontier: what else was within reach, accuracy over milliseconds."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, floor, log10

from shrinkc.compiler.report.html import units
from shrinkc.compiler.report.html.markup import Attribute, Html, tag
from shrinkc.compiler.report.html.reading import Json, likeness, listed, metric, metric_title
from shrinkc.compiler.report.html.svg import image, line, text
from shrinkc.compiler.report.html.tables import folded, missing, row, section, table

HEIGHT, TOP, BOTTOM = 300.0, 20.0, 256.0  # pixels, of the drawing and its inner edges
LEFT, RIGHT = 12.0, 96.0  # percent
_NUMBERS = frozenset({1, 2, 3, 4})


def frontier_section(report: Json) -> Html:
    points, drawing = _points(report), frontier_chart(report)
    parts: list[Html] = [] if drawing is None else [drawing]
    if points:
        parts.append(
            folded("The frontier as a table", _table(report, points), is_open=drawing is None)
        )
    else:
        parts.append(
            missing(
                "One network was made and no others to choose from. ",
                tag("code", None, "shrinkc shrink"),
                " and ",
                tag("code", None, "shrinkc prune"),
                " make smaller ones: compile with several values of ",
                tag("code", None, "--speedup"),
                " and ",
                tag("code", None, "--evaluation DIR"),
                " to see what speed costs.",
            )
        )
    return section("frontier", "The frontier", *parts)


def frontier_chart(report: Json) -> Html | None:
    """None where fewer than two points have a time and an accuracy."""
    points = _points(report)
    time, share = _axes(points)
    drawn = [p for p in points if p[time] is not None and p[share] is not None]
    if len(drawn) < 2:
        return None
    names = {"top1": metric(report), "agreement": likeness(report)}
    return _image(drawn, time, share, names.get(share, "R² of the output that suffers most"))


def _points(report: Json) -> list[Json]:
    return [one | {"r2": _r2(one)} for one in listed(report, "frontier")]


def _axes(points: list[Json]) -> tuple[str, str]:
    """Measured and labelled where all points are."""
    measured = bool(points) and all(p["measured_ms"] is not None for p in points)
    known = (key for key in ("top1", "agreement") if any(p[key] is not None for p in points))
    return "measured_ms" if measured else "predicted_ms", next(known, "r2")


def _r2(point: Json) -> float | None:
    """Of outputs that are no classes: 1 − error over variance."""
    error = point.get("error")
    return None if error is None else max(0.0, 1 - error)


def _image(points: list[Json], time: str, share: str, name: str) -> Html:
    ordered = sorted(points, key=lambda p: p[time])
    across = ticks(0.0, max(p[time] for p in points))
    low, high = min(p[share] for p in points), max(p[share] for p in points)
    up = ticks(low - 0.05 * (high - low or 0.1), min(high + 0.02, 1.0))

    def x(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * value / across[-1]

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - up[0]) / (up[-1] - up[0])

    parts = [line((LEFT, y(v)), (RIGHT, y(v)), "grid") for v in up]
    parts += [text(LEFT, y(v) + 4, f"{100 * v:g}%", "tick end", shift=-8) for v in up]
    parts += [text(x(v), BOTTOM + 20, f"{v:g}", "tick middle") for v in across]
    how = time.removesuffix("_ms")
    parts.append(text(RIGHT, BOTTOM + 40, f"{how} ms →", "tick end"))
    parts.append(text(0, 10, f"↑ {name}", "tick"))
    for precision in dict.fromkeys(p["precision"] for p in ordered):
        of = [p for p in ordered if p["precision"] == precision]
        for a, b in pairwise(of):
            ends = (x(a[time]), y(a[share])), (x(b[time]), y(b[share]))
            parts.append(line(*ends, f"path {_mark(precision)}"))
    parts += [_point(p, x(p[time]), y(p[share])) for p in ordered]
    about = "; ".join(_words(p, time, share) for p in ordered)
    return image("frontier-chart", f"{name} over {how} milliseconds", about, HEIGHT, *parts)


def ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers around both."""
    step = 10 ** floor(log10(max(high - low, 1e-9)))
    for factor in (0.2, 0.5, 1.0, 2.0):
        if (high - low) / (step * factor) <= 6:
            step *= factor
            break
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(at * step, 12) for at in range(first, max(last, first + 1) + 1)]


def _mark(precision: str) -> str:
    return "square" if precision == "int8" else "round"


def _point(p: Json, x: float, y: float) -> Html:
    """fp32 is round, int8 square; the one that was written is larger and named."""
    kind = "point chosen" if p["chosen"] else "point"
    place: dict[str, Attribute] = {"x": f"{x:.3f}%", "y": y, "class": "over"}
    size = 7.0 if p["chosen"] else 5.0
    if _mark(p["precision"]) == "square":
        shape = tag(
            "rect",
            {
                "x": -size,
                "y": -size,
                "width": 2 * size,
                "height": 2 * size,
                "class": f"{kind} square",
            },
        )
    else:
        shape = tag("circle", {"r": size, "class": f"{kind} round"})
    named = f"written: {p['precision']}, {units.times(p['speedup'])}" if p["chosen"] else ""
    # what lies to the left of a point is less accurate: above it there is room
    label = text(0, -12, named, "tick strong" + (" end" if x > 36 else ""))
    return tag("svg", place, shape, label if named else None)


def _words(p: Json, time: str, share: str) -> str:
    chosen = ", the one that was written" if p["chosen"] else ""
    return f"{units.percent(p[share])} at {units.ms(p[time])}, {p['precision']}{chosen}"


def _table(report: Json, points: list[Json]) -> Html:
    scored = all(p["r2"] is None or p["agreement"] is not None for p in points)
    rows = [
        row(
            units.times(p["speedup"]) + (" (written)" if p["chosen"] else ""),
            units.ms(p["predicted_ms"]),
            units.ms(p["measured_ms"]),
            units.percent(p["top1"]),
            units.percent(p["agreement"] if scored else p["r2"]),
            p["precision"],
            numeric=_NUMBERS,
        )
        for p in points
    ]
    last = "Agreement" if scored else "R², worst output"
    headers = ("Speedup", "Predicted", "Measured", metric_title(report), last, "Precision")
    return table("Networks that were within reach", headers, rows, _NUMBERS)
