"""Where the milliseconds went: from the network before to the one after, and it adds up."""

from __future__ import annotations

from dataclasses import dataclass

from shrinkc.compiler.report.html import units
from shrinkc.compiler.report.html.bars import Bar, Drawn, bar_list
from shrinkc.compiler.report.html.markup import Html, code, tag
from shrinkc.compiler.report.html.reading import Json, place, resized
from shrinkc.compiler.report.html.sections.blocks import OVERHEAD, Block, blocks_of
from shrinkc.compiler.report.html.tables import missing, section
from shrinkc.compiler.support.choices import is_host
from shrinkc.compiler.support.text import counted

SHOWN = 8  # savings with a bar of their own
LARGEST = 6  # layers
UNSEEN = 5e-4  # of the total: nothing to draw


@dataclass(frozen=True)
class Step:
    """`ms` is a total, or what is added to the one before (savings are negative)."""

    label: str
    ms: float
    kind: str
    total: bool = False


def waterfall_section(report: Json) -> Html:
    found = steps(report)
    if not found:
        return section("milliseconds", "Where the milliseconds went", _unknown(report))
    image = bar_list(f"Predicted milliseconds on {place(report)}, step by step", _drawn(found))
    return section("milliseconds", "Where the milliseconds went", image, *_largest_layers(report))


def steps(report: Json) -> tuple[Step, ...]:
    """Total before, every difference, total after; empty where a total is not known.

    Savings were priced in the precision of the file, so the precision comes first. What choices
    and blocks do not explain is the rest.
    """
    before = units.finite(report.get("predicted_ms_before"))
    after = units.finite(report.get("predicted_ms_after"))
    if before is None or after is None:
        return ()
    precision, found = report["precision"], list[Step]()
    same = units.finite(report.get("predicted_ms_before_in_precision"))
    if precision != "fp32" and same is not None:
        found.append(_difference(f"{precision} instead of fp32", same - before, "precision"))
    if report.get("plan"):
        found += _of_size(report["plan"].get("resolution"))
        found += _of_plan(report["plan"]["choices"])
    elif precision == "fp32":
        found += _of_blocks(blocks_of(report))
    rest = after - before - sum(x.ms for x in found)
    if abs(rest) > UNSEEN * before:
        found.append(_difference(_rest_label(report, same, bool(found)), rest, "rest"))
    first, last = Step("Before, fp32", before, "total", True), f"After, {precision}"
    return (first, *found, Step(last, after, "total", True))


def _rest_label(report: Json, same: float | None, others: bool) -> str:
    if report["precision"] != "fp32" and same is None:
        return f"{report['precision']} and all the rest"
    if report.get("plan"):
        return "the rest: exact rewrites, and what choices do to each other"
    return "the rest" if others and report["precision"] == "fp32" else "all changes to layers"


def _of_size(resolution: Json | None) -> list[Step]:
    if resolution is None:
        return []
    return [_difference(resized(resolution), -resolution["saving_ms"], "narrowed")]


def _of_plan(choices: list[Json]) -> list[Step]:
    merged = {"merge": "merged", "exact": "merged"}
    kinds = merged | {"drop": "dropped", "narrow": "narrowed", "slice": "narrowed"}
    priced = [
        _difference(_choice(c), -c["saving_ms"], kinds.get(c["kind"], "changed"))
        for c in choices
        if c["saving_ms"]
    ]
    return _largest(priced, "choices")


def _choice(choice: Json) -> str:
    before, after = choice.get("channels_before"), choice.get("channels_after")
    if choice["kind"] not in ("narrow", "slice"):
        return f"{choice['kind']} {choice['source']} … {choice['sink']}"
    widths = f", {before} → {after} channels" if before and after else ""
    return f"{choice['kind']} {choice['sink']}{widths}"


def _of_blocks(blocks: tuple[Block, ...]) -> list[Step]:
    changed = [block for block in blocks if block.after_ms != block.before_ms]
    priced = [
        _difference(_block(block), block.after_ms - block.before_ms, block.kind)
        for block in changed
        if block.before
    ]
    return _largest(priced, "blocks")


def _block(block: Block) -> str:
    if len(block.before) > 1:
        return f"{block.kind}: {counted(len(block.before), 'layer')}, {block.name}"
    return f"{block.kind}: {block.name}"


def _largest(found: list[Step], what: str) -> list[Step]:
    """In order, the small ones together at the end."""
    shown = set(sorted(found, key=lambda x: -abs(x.ms))[:SHOWN])
    others = [x for x in found if x not in shown]
    kept = [x for x in found if x in shown]
    if others:
        total = sum(x.ms for x in others)
        kept.append(_difference(f"{len(others)} other {what}", total, "rest"))
    return kept


def _difference(label: str, ms: float, kind: str) -> Step:
    return Step(label, ms, "cost" if ms > 0 else kind)


def _drawn(found: tuple[Step, ...]) -> list[Drawn]:
    """Every difference begins where the one before ends."""
    top = level = 0.0
    spans: list[tuple[float, float]] = []
    for x in found:
        start = 0.0 if x.total else level
        level = x.ms if x.total else level + x.ms
        spans.append((start, level))
        top = max(top, level)
    digits, scale = units.digits_for(top), 100 / max(top, 1e-12)
    return [
        Drawn(x.label, _said(x, digits), Bar(start * scale, end * scale, x.kind), x.total)
        for x, (start, end) in zip(found, spans, strict=True)
    ]


def _said(x: Step, digits: int) -> str:
    sign = "" if x.total else "+" if x.ms > 0 else "−"
    return f"{sign}{abs(x.ms):,.{digits}f} ms"


def _largest_layers(report: Json) -> list[Html]:
    """What is left to gain."""
    prediction = report.get("prediction")
    if not prediction or not prediction["total_ms"]:
        return []
    layers = [(x["name"], x["ms"]) for x in prediction["layers"]]
    overhead = [(OVERHEAD, prediction["overhead_ms"])] if prediction["overhead_ms"] else []
    ordered = sorted((*layers, *overhead), key=lambda x: -x[1])[:LARGEST]
    total, most = prediction["total_ms"], max(ordered[0][1], 1e-12)
    digits = units.digits_for(total)
    drawn = [
        Drawn(
            name,
            f"{units.fixed(ms, digits)} ms · {units.percent(ms / total)}",
            Bar(0, 100 * ms / most, "kept"),
        )
        for name, ms in ordered
    ]
    return [tag("h3", None, "The largest layers now"), bar_list("The largest layers now", drawn)]


def _unknown(report: Json) -> Html:
    if report["captured_by"] == "not captured":
        return missing("The network could not be captured, so no layer of it could be priced.")
    if is_host(report["target"]):
        return missing(
            "This machine prices layers in fp32 only. Measure a table of it, ",
            code("shrinkc profile --target NAME --on host --precision int8 MODEL"),
            ", and compile for NAME.",
        )
    return missing("Nothing was predicted: torch.onnx wrote the network as a whole.")
