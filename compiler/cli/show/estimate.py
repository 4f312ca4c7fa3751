"""A prediction, layer by layer, on the console."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.cli.output import wide_console
from shrinkc.compiler.cli.show.report import known_by
from shrinkc.compiler.cost.predict import Prediction


def prediction(p: Prediction) -> None:
    """Milliseconds per layer, the total, and how the table knows."""
    console = wide_console()
    table = Table(title=f"{escape(p.target)}, {p.precision}", title_justify="left")
    for header in ("layer", "operator", "MMACs", "ms", "known by"):
        table.add_column(header, justify="right" if header in ("MMACs", "ms") else "left")
    for layer in p.layers:
        macs = f"{layer.macs / 1e6:.2f}" if layer.macs else ""
        table.add_row(escape(layer.name), layer.op, macs, f"{layer.ms:.3f}", layer.source)
    if p.overhead_ms:
        table.add_row("(per inference)", "", "", f"{p.overhead_ms:.3f}", "fitted")
    table.add_section()
    table.add_row("total", "", f"{p.macs / 1e6:.2f}", f"{p.total_ms:.3f}", known_by(p))
    console.print(table)
    if p.total_ms_low is not None and p.total_ms_high is not None:
        off = max(p.total_ms_high - p.total_ms, p.total_ms - p.total_ms_low)
        console.print(
            f"{p.total_ms:.3g} ms ± {off:.2g}: nine of ten such networks take "
            f"{p.total_ms_low:.3g} to {p.total_ms_high:.3g} ms"
        )
    if p.unpriced:
        listed = ", ".join(f"{count} × {name}" for name, count in p.unpriced.items())
        console.print(f"without what no table knows: {escape(listed)}")
    for note in p.notes:
        console.print(f"note: {escape(note)}")
