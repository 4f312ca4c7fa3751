"""Every layer before and after, predicted against measured, with filters."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from . import units
from .blocks import KINDS, Block, Layer, blocks_of, names_of
from .markup import Attribute, Html, code, tag
from .reading import Json, listed, part, place
from .tables import missing, paragraph, row, section, table

NUMBERS = ("Before", "After", "Measured", "SNR, dB", "MACs, M")  # the columns that are numbers


@dataclass(frozen=True)
class Line:
    """One row: a layer as it was, as it is, or both where it stayed."""

    kind: str
    said: str
    before: Layer | None
    after: Layer | None


def layers_section(report: Json) -> Html:
    lines = [x for block in blocks_of(report) for x in lines_of(block)]
    if not lines:
        return section("layers", "Layer by layer", missing("No layer has a prediction."))
    measured = {x["layer"]: x["ms"] for x in listed(report, "measured_layers")}
    noise = {x["layer"]: x["snr_db"] for x in listed(report, "noise")}
    digits = units.digits_for(max(_total(lines, x) for x in ("before", "after")))
    shown = [
        *("Before", "After", *(("Measured",) if measured else ()), "What happened", "Operator"),
        *("MACs, M", *(("SNR, dB",) if noise else ()), "Known by"),
    ]
    numbers = frozenset(at for at, name in enumerate(shown, 1) if name in NUMBERS)
    rows: list[Html] = []
    for x in lines:
        cells = _cells(x, measured, noise, digits)
        kind: dict[str, Attribute] = {"data-kind": x.kind}
        written = (cells[name] for name in shown)
        rows.append(row(code(cells["Layer"]), *written, numeric=numbers, attributes=kind))
    caption = f"Layers before and after, milliseconds on {place(report)}"
    shown_rows = table(
        caption, ("Layer", *shown), rows, numbers, name="layer-table", kind="compact"
    )
    kinds = [kind for kind in KINDS if any(x.kind == kind for x in lines)]
    accuracy = _against_measured(report, measured)
    return section("layers", "Layer by layer", accuracy, _filters(kinds, len(rows)), shown_rows)


def lines_of(block: Block) -> list[Line]:
    """A row for every layer that went and every one that came; one for a layer that stayed."""
    if block.kind in ("kept", "narrowed") and len(block.before) == len(block.after) == 1:
        return [Line(block.kind, block.kind, block.before[0], block.after[0])]
    into = names_of(block.after)
    old = f"{block.kind} into {into}" if into else block.kind
    made = f"made of {units.counted(len(block.before), 'layer')}" if block.before else "new"
    return [
        *(Line(block.kind, old, layer, None) for layer in block.before),
        *(Line(block.kind, f"{block.kind}: {made}", None, layer) for layer in block.after),
    ]


def _cells(
    x: Line, measured: dict[str, float], noise: dict[str, float], digits: int
) -> dict[str, str]:
    """By column. What was measured is known of layers that are in the file."""
    now = x.after or x.before
    assert now is not None
    took, decibels = (found.get(now.name) if x.after else None for found in (measured, noise))
    return {
        "Layer": now.name,
        "Before": units.fixed(x.before.ms if x.before else None, digits),
        "After": units.fixed(x.after.ms if x.after else None, digits),
        "Measured": units.fixed(took, digits),
        "What happened": x.said,
        "Operator": now.op,
        "MACs, M": units.fixed(now.macs / 1e6 if now.macs else None, 2),
        "SNR, dB": units.fixed(decibels, 1),
        "Known by": now.source,
    }


def _total(lines: list[Line], side: str) -> float:
    layers: list[Layer | None] = [getattr(x, side) for x in lines]
    return sum(layer.ms for layer in layers if layer)


def _filters(kinds: list[str], count: int) -> Html:
    """Shown by the script that they need; without it the whole table is there."""
    words: dict[str, Attribute] = {"id": "filter-text", "type": "search", "autocomplete": "off"}
    choice = tag(
        "select",
        {"id": "filter-kind"},
        tag("option", {"value": ""}, "all"),
        *(tag("option", {"value": kind}, kind) for kind in kinds),
    )
    total = units.counted(count, "row")
    return tag(
        "form",
        {"id": "filters", "class": "filters", "hidden": True, "role": "search"},
        tag("label", {"for": "filter-text"}, "Containing", tag("input", words)),
        tag("label", {"for": "filter-kind"}, "What happened", choice),
        tag("p", {"id": "filter-count", "role": "status"}, total),
    )


def _against_measured(report: Json, measured: dict[str, float]) -> Html:
    layers: list[Json] = listed(part(report, "prediction"), "layers")
    both = [(x["ms"], measured[x["name"]]) for x in layers if measured.get(x["name"])]
    if both:
        error = fmean(abs(predicted / took - 1) for predicted, took in both)
        return paragraph(
            f"{units.counted(len(both), 'layer')} were measured in the file that was written: "
            f"predictions are off by {100 * error:.0f}% in the mean, "
            f"{units.ms(sum(p for p, _ in both))} predicted and "
            f"{units.ms(sum(m for _, m in both))} measured in all."
        )
    if layers and all(x["source"].startswith("measured") for x in layers):
        return paragraph("Every layer's time is a measurement of this very operator by itself.")
    return missing(
        "Layers were not measured one by one. To have measurements instead of predictions, measure "
        "this network's operators on the device and compile for that table: ",
        code("shrinkc profile --target NAME --on DEVICE MODEL"),
        ".",
    )
