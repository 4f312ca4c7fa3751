"""Bars with their words above them: a list, so that long words wrap on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from shrinkc.compiler.report.html.markup import Html, tag
from shrinkc.compiler.report.html.svg import bar, line

HEIGHT = 14.0  # pixels


@dataclass(frozen=True)
class Bar:
    """From `start` to `end` in percent of the width; `end` may be the smaller one."""

    start: float
    end: float
    kind: str


@dataclass(frozen=True)
class Drawn:
    """What stands at the left, what at the right, and the bar beneath."""

    label: str
    number: str
    bar: Bar
    strong: bool = False


def bar_list(name: str, drawn: Sequence[Drawn]) -> Html:
    """In order; where a bar begins at the end of the one before, a line joins them."""
    joined = [False, *(b.bar.start == a.bar.end and not b.strong for a, b in pairwise(drawn))]
    items = (_item(x, at) for x, at in zip(drawn, joined, strict=True))
    return tag("ol", {"class": "bars", "aria-label": name}, *items)


def _item(x: Drawn, joined: bool) -> Html:
    low, high = sorted((x.bar.start, x.bar.end))
    drawing = tag(
        "svg",
        {"class": "drawing", "aria-hidden": "true", "width": "100%", "height": "100%"},
        line((x.bar.start, 0), (x.bar.start, "100%"), "joint") if joined else None,
        tag(
            "svg", {"y": "100%", "class": "over"}, bar(low, -HEIGHT, high - low, HEIGHT, x.bar.kind)
        ),
    )
    return tag(
        "li",
        {"class": "strong" if x.strong else None},
        tag("span", {"class": "label"}, x.label),
        tag("span", {"class": "number"}, x.number),
        drawing,
    )
