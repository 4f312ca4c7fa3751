"""What was chosen, what was refused and why."""

from __future__ import annotations

from collections.abc import Sequence

from shrinkc.compiler.report.html import units
from shrinkc.compiler.report.html.markup import Child, Html, code, join, tag
from shrinkc.compiler.report.html.reading import Json, listed, resized
from shrinkc.compiler.report.html.tables import folded, missing, paragraph, row, section, table

SHOWN = 12  # rows of a list before it is folded
_NUMBERS = frozenset({2, 3, 5, 6, 7})


def choices_section(report: Json) -> Html:
    plan = report.get("plan")
    if not plan:
        return section("choices", "What was chosen", _no_plan(report))
    rows = [_resolution(one) for one in (plan.get("resolution"),) if one is not None]
    rows += [_choice(choice) for choice in plan["choices"]]
    headers = (
        *("From … to", "Choice", "Channels before", "After", "Precision"),
        *("Saves", "Adds to the loss", "Agreement, alone"),
    )
    kept = table(f"{plan['method']}: the choices", headers, rows, _NUMBERS)
    return section("choices", "What was chosen", _maybe_folded(kept, len(rows), "choice"))


def _no_plan(report: Json) -> Html:
    changed = report.get("changed")
    if changed:
        said = f"The network was {changed} before it was compiled; the command prints its choices, "
        return missing(said, code("--json"), " with all their figures.")
    if report["captured_by"] == "not captured":
        return missing("Nothing: the network could not be captured and was written as it is.")
    merges = [c for c in listed(report, "changes") if c["pass"].startswith("merge")]
    said = f"Only exact rewrites, {units.counted(len(merges), 'merge')} among them: the network "
    how = " choose between depth, width and precision."
    return missing(
        f"{said}computes the same. ", code("shrinkc shrink"), " and ", code("shrinkc prune"), how
    )


def _resolution(c: Json) -> Html:
    return _row(c, resized(c), "resize", (None, None))


def _choice(c: Json) -> Html:
    where = join((code(c["source"]), " … ", code(c["sink"])))
    return _row(c, where, c["kind"], (c["channels_before"], c["channels_after"]))


def _row(c: Json, where: Child, kind: str, channels: tuple[int | None, int | None]) -> Html:
    loss = units.finite(c["loss"])
    return row(
        where,
        kind,
        *map(_count, channels),
        c["precision"],
        units.ms(c["saving_ms"]),
        units.DASH if loss is None else f"{loss:.3g}",
        units.percent(c["agreement"]),
        numeric=_NUMBERS,
    )


def _count(value: int | None) -> str:
    return units.DASH if value is None else f"{value:,}"


def refused_section(report: Json) -> Html:
    """Of passes and of the plan; failures first."""
    parts: list[Html] = [_failure(text) for text in report.get("failures", ())]
    refused = [(x["pass"], x["node"], x["reason"]) for x in listed(report, "skipped")]
    plan = report.get("plan")
    if plan:
        refused += [(plan["method"], x["node"], x["reason"]) for x in plan["refused"]]
    if refused:
        parts.append(_refused(refused))
    elif not parts:
        parts.append(paragraph("Nothing was refused."))
    notes: Sequence[str] = report.get("notes", ())
    if notes:
        parts.append(tag("h3", None, "Notes"))
        parts.append(tag("ul", None, *(tag("li", None, note) for note in notes)))
    return section("refused", "What was refused, and why", *parts)


def _failure(text: str) -> Html:
    return tag("p", {"class": "failure"}, tag("strong", None, "Not written: "), text)


def _refused(refused: list[tuple[str, str, str]]) -> Html:
    """One row for every reason; the nodes that share it side by side."""
    nodes: dict[tuple[str, str], list[str]] = {}
    for who, node, reason in refused:
        nodes.setdefault((who, reason), []).append(node)
    rows = [row(_names(names), reason, who) for (who, reason), names in nodes.items()]
    listed = table("Considered and declined", ("At", "Why", "By"), rows, kind="prose")
    return _maybe_folded(listed, len(rows), "reason")


def _names(names: list[str]) -> Html:
    parts: list[Child] = []
    for name in names:
        parts += [", ", code(name)]
    return join(parts[1:])


def _maybe_folded(listed: Html, count: int, thing: str) -> Html:
    return listed if count <= SHOWN else folded(units.counted(count, thing), listed)
