"""Every layer before and after, predicted against measured, with filters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shrinkc.compiler.report.html import units
from shrinkc.compiler.report.html.markup import Attribute, Html, code, tag
from shrinkc.compiler.report.html.reading import Json, listed, main_file, part, place
from shrinkc.compiler.report.html.sections.blocks import KINDS, Block, Layer, blocks_of, names_of
from shrinkc.compiler.report.html.tables import missing, paragraph, row, section, table

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
    first = {x.after.name: x for x in reversed(lines) if x.after}  # of a node's layers
    digits = units.digits_for(max(_total(lines, x) for x in ("before", "after")))
    shown = [
        *("Before", "After", *(("Measured",) if measured else ()), "What happened", "Operator"),
        *("MACs, M", *(("SNR, dB",) if noise else ()), "Known by"),
    ]
    numbers = frozenset(at for at, name in enumerate(shown, 1) if name in NUMBERS)
    rows: list[Html] = []
    for x in lines:
        took = measured.get(x.after.name) if x.after and first[x.after.name] is x else None
        cells = _cells(x, took, noise, digits)
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


def _cells(x: Line, took: float | None, noise: dict[str, float], digits: int) -> dict[str, str]:
    """By column. `took`: measured ms. Noise is known of layers that are in the file."""
    now = x.after or x.before
    assert now is not None
    decibels = noise.get(now.name) if x.after else None
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
    predicted: dict[str, float] = {}  # a node may have several layers, which are measured together
    for x in layers:
        predicted[x["name"]] = predicted.get(x["name"], 0.0) + x["ms"]
    if any(measured.get(name) for name in predicted):
        return paragraph(" ".join(_compared(report, predicted, measured)))
    if layers and all(x["source"].startswith("measured") for x in layers):
        return paragraph("Every layer's time is a measurement of this very operator by itself.")
    return missing(
        "Layers were not measured one by one. To have measurements instead of predictions, measure "
        "this network's operators on the device and compile for that table: ",
        code("shrinkc profile --target NAME --on DEVICE MODEL"),
        ".",
    )


def _compared(
    report: Json, predicted: dict[str, float], measured: dict[str, float]
) -> Iterator[str]:
    """Sentences. The error is weighed by time: of layers that take next to nothing, a share says
    more of the timing than of the prediction."""
    both = [(predicted[name], took) for name, took in measured.items() if name in predicted]
    total = sum(took for _, took in both)
    error = sum(abs(said - took) for said, took in both) / total
    yield (
        f"{len(both)} of {units.counted(len(predicted), 'layer')} were measured on "
        f"{place(report)}, beside their neighbours in the written "
        f"{main_file(report)['file']}, with "
        f"{units.counted(report['threads'], 'thread')}: {units.ms(total)} in all, of which "
        f"{units.ms(sum(said for said, _ in both))} was predicted; layer by layer, predictions "
        f"are off by {100 * error:.0f}% of the time."
    )
    if len(both) < len(predicted):
        yield (
            "Those predicted slowest were measured first; the others were not reached in time, or "
            "have no operator of their own in the file."
        )
    rest = [took for name, took in measured.items() if name not in predicted]
    if rest:
        yield f"Operators that belong to no layer took {units.ms(sum(rest))} more."
