"""The network before and after: two columns of blocks in the order of execution, as high as their
milliseconds, and bands from what was to what became of it."""

from __future__ import annotations

from shrinkc.compiler.report.html import units
from shrinkc.compiler.report.html.markup import Attribute, Html, join, tag
from shrinkc.compiler.report.html.reading import Json, part
from shrinkc.compiler.report.html.sections.blocks import (
    KINDS,
    OVERHEAD,
    Block,
    Layer,
    blocks_of,
    names_of,
)
from shrinkc.compiler.report.html.svg import bar, image, stretched, text
from shrinkc.compiler.report.html.tables import missing, paragraph, section

COLUMN = 40.0  # percent of the width
GAP = 2.0  # pixels between blocks, less where there are hundreds
LEGIBLE = 15.0  # pixels: lower layers have no text in them
ROOM = 11.0  # pixels: lower blocks have none beside them
LEAST, USUAL, MOST = 380.0, 20.0, 1500.0  # pixels: a layer's usual height, and the whole
SPINE = 4.0  # pixels, at the outer edge


def network_section(report: Json) -> Html:
    blocks = blocks_of(report)
    if not blocks:
        parts = [missing("There is no image of a network whose layers have no prediction.")]
    elif not report.get("prediction_before"):
        parts = [_legend(blocks), _columns(report, blocks)]
    else:
        parts = [_intro(), _legend(blocks), _columns(report, blocks)]
    return section("network", "The network, block by block", *parts)


def _intro() -> Html:
    return paragraph(
        "Execution goes from top to bottom. Heights are predicted milliseconds, on one scale for "
        "both sides. Every block can be reached with Tab; ",
        tag("a", {"href": "#layers"}, "the same as a table"),
        ".",
    )


def _legend(blocks: tuple[Block, ...]) -> Html:
    """The kinds that occur, with their textures and in words."""
    items: list[Html] = []
    for kind, meaning in KINDS.items():
        count = sum(block.kind == kind for block in blocks)
        if count:
            swatch = tag(
                "svg",
                {"class": "swatch", "width": 22, "height": 14, "aria-hidden": "true"},
                tag("rect", {"width": 22, "height": 14, "rx": 2, "class": f"bar {kind}"}),
            )
            words = f" {kind}: {meaning} ({count})"
            items.append(tag("li", None, swatch, words))
    return tag("ul", {"class": "legend"}, *items)


def _columns(report: Json, blocks: tuple[Block, ...]) -> Html:
    blocks = (*blocks, *_overhead(report))
    totals = [sum(b.before_ms for b in blocks), sum(b.after_ms for b in blocks)]
    layers = max(sum(len(b.before) for b in blocks), sum(len(b.after) for b in blocks))
    height = min(max(USUAL * layers, LEAST), MOST)
    gap = min(GAP, 0.2 * height / len(blocks))
    scale = (height - gap * len(blocks)) / max(*totals, 1e-12)
    left = right = 24.0
    digits = units.digits_for(max(totals))
    drawn: list[Html] = []
    kinds: list[Html | None] = []  # over all of them
    for block in blocks:
        tall = block.before_ms * scale, block.after_ms * scale
        drawn.append(_block(block, (left, right), tall, digits))
        kinds.append(_kind(block, (left, right), tall))
        left, right = left + tall[0] + gap, right + tall[1] + gap
    after = f"after, {report['precision']}: {units.ms(totals[1])}"
    heads = [
        text(0, 14, f"before: {units.ms(totals[0])}", "label strong"),
        text(100, 14, after, "label strong end"),
    ]
    counts = ", ".join(
        f"{sum(b.kind == kind for b in blocks)} {kind}"
        for kind in KINDS
        if any(b.kind == kind for b in blocks)
    )
    drawing = image(
        "columns",
        "The network before and after, block by block",
        f"{units.counted(len(blocks), 'block')}: {counts}",
        height + 26,
        *(*heads, *drawn, *kinds),
        role="group",
    )
    detail = tag("p", {"id": "detail", "class": "detail", "hidden": True})
    return join(
        (
            tag("a", {"class": "skip", "href": "#after-network"}, "Skip the blocks"),
            tag("div", {"class": "told"}, drawing, detail),
            tag("span", {"id": "after-network", "tabindex": -1}),
        )
    )


def _overhead(report: Json) -> tuple[Block, ...]:
    """What an inference costs besides its layers, so that both sides add up."""
    sides = [part(report, key) for key in ("prediction_before", "prediction")]
    costs = [side.get("overhead_ms") or 0.0 for side in sides]
    before, after = ((Layer(OVERHEAD, "", cost, "", 0, -1),) if cost else () for cost in costs)
    return (Block("kept", before, after),) if before or after else ()


def _block(block: Block, tops: tuple[float, float], tall: tuple[float, float], digits: int) -> Html:
    said = described(block)
    attributes: dict[str, Attribute] = {"class": f"block {block.kind}", "tabindex": 0}
    return tag(
        "g",
        {**attributes, "role": "img", "aria-label": said},
        tag("title", None, said),
        _band(block, tops, tall),
        _column(block.before, 0.0, tops[0], tall[0], block.kind, digits),
        _column(block.after, 100 - COLUMN, tops[1], tall[1], block.kind, digits),
    )


def _column(
    layers: tuple[Layer, ...], x: float, top: float, height: float, kind: str, digits: int
) -> Html | None:
    """The layers of one side, one on the other."""
    total = sum(layer.ms for layer in layers)
    if not layers or total <= 0:
        return None
    parts: list[Html] = []
    place = {"x": f"{x}%" if not x else "100%", "y": top}
    spine = {"x": -SPINE if x else 0.0, "width": SPINE, "height": max(height, 1.0)}
    for layer in layers:
        share = height * layer.ms / total
        parts.append(bar(x, top, COLUMN, max(share - (len(layers) > 1), 0.5), kind))
        if share >= LEGIBLE:
            parts.append(_words(layer, x, top, share, digits))
        top += share
    edge = tag("rect", {**spine, "class": f"spine {kind}"})
    return join((*parts, tag("svg", {**place, "class": "over"}, edge)))


def _words(layer: Layer, x: float, top: float, height: float, digits: int) -> Html:
    """Name and time, cut off where the block ends."""
    box: dict[str, Attribute] = {"x": f"{x}%", "y": top, "width": f"{COLUMN}%", "height": height}
    place: dict[str, Attribute] = {"width": "68%", "height": height}
    middle = height / 2 + 4
    name = tag("svg", place, text(0, middle, layer.name, "inside", shift=10))
    took = text(100, middle, units.fixed(layer.ms, digits), "inside number end", shift=-10)
    return tag("svg", box, name, took)


def _band(block: Block, tops: tuple[float, float], tall: tuple[float, float]) -> Html | None:
    if not block.before or not block.after:
        return None
    (y0, y1), (h0, h1) = tops, tall
    path = [
        ("M", 0.0, y0), ("C", 50.0, y0), ("", 50.0, y1), ("", 100.0, y1),
        ("L", 100.0, y1 + h1), ("C", 50.0, y1 + h1), ("", 50.0, y0 + h0), ("", 0.0, y0 + h0),
    ]  # fmt: skip
    width = 100 - 2 * COLUMN
    return stretched(COLUMN, width, max(y0 + h0, y1 + h1) + 1, path, f"band {block.kind}")


def _kind(block: Block, tops: tuple[float, float], tall: tuple[float, float]) -> Html | None:
    """In words, beside the block, where there is room."""
    at = 0 if block.before else 1
    if block.kind == "kept" or tall[at] < ROOM:
        return None
    middle = tops[at] + tall[at] / 2 + 4
    if at == 0:
        return text(COLUMN, middle, block.kind, "kind", shift=6)
    return text(100 - COLUMN, middle, block.kind, "kind end", shift=-6)


def described(block: Block) -> str:
    """'merged: a, b → c; 0.31 ms before, 0.12 ms after'"""
    names = names_of(block.before)
    if block.kind != "kept" and block.after and block.before:
        names += f" → {names_of(block.after)}"
    names = names or block.name
    sides = [
        f"{units.ms(ms)} {when}"
        for ms, when, there in (
            (block.before_ms, "before", block.before),
            (block.after_ms, "after", block.after),
        )
        if there
    ]
    why = f" ({block.why})" if block.why else ""
    return f"{block.kind}: {names}{why}; {', '.join(sides)}"
