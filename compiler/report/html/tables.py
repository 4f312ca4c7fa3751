"""Sections, tables and what stands where something is missing."""

from __future__ import annotations

from collections.abc import Sequence

from shrinkc.compiler.report.html.markup import Attribute, Child, Html, tag


def section(name: str, title: str, *parts: Child) -> Html:
    """A region of the page that its heading names; `name` is its anchor."""
    heading = tag("h2", {"id": f"{name}-heading"}, title)
    return tag("section", {"id": name, "aria-labelledby": f"{name}-heading"}, heading, *parts)


def paragraph(*parts: Child) -> Html:
    return tag("p", None, *parts)


def missing(*parts: Child) -> Html:
    """What is not known, and how to get it."""
    return tag("p", {"class": "missing"}, *parts)


def table(
    caption: str,
    headers: Sequence[str],
    rows: Sequence[Html],
    numeric: frozenset[int] = frozenset(),
    name: str | None = None,
    kind: str | None = None,
) -> Html:
    """In a container that scrolls by itself; `numeric` columns are aligned at the right. `kind`
    "stacked": the last column goes below the others where there is little room."""
    stacked = kind == "stacked"
    role = _role("columnheader", stacked)
    head = (
        tag("th", {"scope": "col", "class": "number" if at in numeric else None, **role}, header)
        for at, header in enumerate(headers)
    )
    inner = tag(
        "table",
        {"id": name, "class": kind, **_role("table", stacked)},
        tag("caption", None, caption),
        tag("thead", _role("rowgroup", stacked), tag("tr", _role("row", stacked), *head)),
        tag("tbody", _role("rowgroup", stacked), *rows),
    )
    around: dict[str, Attribute] = {"class": "scroll", "role": "region", "aria-label": caption}
    return tag("div", {**around, "tabindex": 0}, inner)


def row(
    first: Child,
    *cells: Child,
    numeric: frozenset[int] = frozenset(),
    attributes: dict[str, Attribute] | None = None,
    stacked: bool = False,
) -> Html:
    """The first cell names the row; columns count from 0, the first included."""
    written = (
        tag("td", {"class": "number" if at in numeric else None, **_role("cell", stacked)}, cell)
        for at, cell in enumerate(cells, 1)
    )
    header = tag("th", {"scope": "row", **_role("rowheader", stacked)}, first)
    return tag("tr", {**(attributes or {}), **_role("row", stacked)}, header, *written)


def _role(role: str, stacked: bool) -> dict[str, Attribute]:
    """Said again where another layout would make browsers forget it."""
    return {"role": role} if stacked else {}


def folded(summary: str, *parts: Child, is_open: bool = False) -> Html:
    return tag("details", {"open": is_open}, tag("summary", None, summary), *parts)
