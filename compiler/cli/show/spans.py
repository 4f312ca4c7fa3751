"""`shrinkc inspect`: what could become one convolution without its activations, and what that
would cost; as JSON and for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shrinkc.passes.analysis.linear.spans import Span, Spans
from shrinkc.passes.analysis.op_spec import Price

SHOWN, REASONS = 40, 8  # spans of a table, nodes with a reason; --json lists all


def describe_spans(spans: Spans, price: Price | None) -> dict[str, Any]:
    """JSON: of the spans that remove the same activations the one that costs least afterwards, and
    what stops others. Milliseconds are null without a `price`."""
    best: dict[tuple[str, ...], Span] = {}
    for span in spans.spans:
        known = best.get(span.removed)
        if known is None or (price is not None and span.saving(price) > known.saving(price)):
            best[span.removed] = span
    return {
        "spans": [_described(span, price) for span in best.values()],
        "no_span": [{"node": b.node, "reason": b.reason} for b in spans.blocked],
    }


def _described(span: Span, price: Price | None) -> dict[str, Any]:
    window = span.window
    before, after = (
        None if price is None else sum(map(price, specs)) for specs in (span.before, span.after)
    )
    return {
        "source": span.source,
        "sink": span.sink,
        "removed": list(span.removed),
        "becomes": {
            "in_channels": window.in_channels,
            "out_channels": window.out_channels,
            "kernel": list(window.kernel),
            "stride": list(window.stride),
            "groups": window.groups,
        },
        "can_be_dropped": span.identity,
        "hidden_channels": None if span.hidden is None else span.hidden.channels,
        "ms_before": before,
        "ms_after": after,
    }


def print_spans(description: dict[str, Any], console: Console) -> None:
    """`describe_spans`, for people: those that save most first."""
    spans = description["spans"]
    priced = any(s["ms_before"] is not None for s in spans)
    if priced:
        spans = sorted(spans, key=lambda s: s["ms_after"] - s["ms_before"])
    table = Table(
        title=f"spans that activations keep from being one convolution: {len(spans)}",
        title_justify="left",
    )
    for header in ("from", "to", "activations", "becomes", *(("ms",) if priced else ())):
        table.add_column(header)
    for span in spans[:SHOWN]:
        ms = f"{span['ms_before']:.3g} → {span['ms_after']:.3g}" if priced else ""
        cells = (escape(span["source"]), escape(span["sink"]), str(len(span["removed"])))
        table.add_row(*cells, _convolution(span["becomes"]), *((ms,) if priced else ()))
    console.print(table)
    if len(spans) > SHOWN:
        console.print(f"  … and {len(spans) - SHOWN} more; --json lists all")
    reasons = {b["node"]: b["reason"] for b in reversed(description["no_span"])}
    for node, reason in list(reversed(reasons.items()))[:REASONS]:
        console.print(f"no span at {escape(node)}: {escape(reason)}")
    if len(reasons) > REASONS:
        console.print(f"  … and {len(reasons) - REASONS} more; --json lists all")


def _convolution(becomes: dict[str, Any]) -> str:
    kernel = "×".join(map(str, becomes["kernel"]))
    strides = "×".join(map(str, becomes["stride"]))
    stride = "" if becomes["stride"] == [1, 1] else f", stride {strides}"
    groups = "" if becomes["groups"] == 1 else f", {becomes['groups']} groups"
    return f"{kernel} {becomes['in_channels']} → {becomes['out_channels']}{stride}{groups}"
