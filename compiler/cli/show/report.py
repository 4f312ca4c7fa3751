"""What the terminal shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.cli.output import current, wide_console
from shrinkc.compiler.cost.predict import Prediction
from shrinkc.compiler.measure.bench import NOISY
from shrinkc.compiler.report.report import ArtefactReport, Report
from shrinkc.compiler.support.text import counted

SHOWN = 3  # outputs and layers with the least signal to noise


def report_json(result: Report) -> dict[str, Any]:
    """With notes that name the command's flags."""
    return result.to_json() | {"notes": [current().flagged(note) for note in result.notes]}


def report(result: Report, out: Path) -> None:
    """The before/after table, accuracy, what was done and declined, where the files are."""
    console = wide_console()
    console.print(_before_after(result))
    console.print(_artefacts(result))
    for step in result.steps:
        if step.changes or step.skipped:
            console.print(
                f"{step.name}: {counted(len(step.changes), 'change')}, "
                f"{len(step.skipped)} declined, float64 error {step.max_error:.0e}"
            )
    for artefact in result.artefacts:
        if artefact.signal:
            console.print(_signal(artefact))
    if result.noise:
        console.print(_noisiest(result))
    for note in result.notes:
        console.print(f"note: {escape(current().flagged(note))}")
    if result.predicted_after is not None:
        console.print(f"prediction: {known_by(result.predicted_after)}")
    for artefact in result.artefacts:
        if artefact.measured_ms and (artefact.measured_iqr_ms or 0) > NOISY * artefact.measured_ms:
            console.print(f"warning: {artefact.name} timings vary by more than {NOISY:.0%}")
    console.print(f"{escape(str(out))}/: {', '.join(result.files)}")


def _before_after(r: Report) -> Table:
    table = Table(title=f"{escape(r.model)} for {escape(r.target)}", title_justify="left")
    for header in ("", "before (fp32, batch norm folded)", f"after ({r.precision})"):
        table.add_column(header, justify="left" if not header else "right")
    for a in r.artefacts:
        table.add_row(f"{a.file}, size", _bytes(a.bytes_before), _bytes(a.bytes))
    table.add_row("MACs", _macs(r.before.macs), _macs(r.after.macs))
    table.add_row("graph nodes", str(r.before.nodes), str(r.after.nodes))
    table.add_row(
        f"predicted on {escape(r.target)}",
        *(_ms(None if p is None else p.total_ms) for p in (r.predicted_before, r.predicted_after)),
    )
    for a in r.artefacts:
        table.add_row(f"measured here, {a.runtime}", _ms(a.measured_ms_before), _ms(a.measured_ms))
    return table


def _artefacts(r: Report) -> Table:
    table = Table()
    judged = r.images > 0
    headers = ("file", "size", "largest error")
    for header in (*headers, "agrees with PyTorch", r.task.metric) if judged else headers:
        table.add_column(header, justify="left" if header == "file" else "right")
    if judged:
        table.add_row("in PyTorch", "", "", "", _percent(r.original_top1))
    for a in r.artefacts:
        row = (a.file, _bytes(a.bytes), _error(a))
        table.add_row(*row, *((_percent(a.agreement), _percent(a.top1)) if judged else ()))
    if judged:
        table.caption = f"on {counted(r.images, 'image')}"
    return table


def _signal(a: ArtefactReport) -> str:
    worst = sorted(a.signal, key=lambda output: output.snr_db)[:SHOWN]
    named = "; ".join(escape(str(output)) for output in worst)
    which = "" if len(a.signal) <= SHOWN else f", lowest of {len(a.signal)} outputs"
    return f"signal to noise (dB) of {a.file} beside fp32{which}: {named}"


def _noisiest(r: Report) -> str:
    worst = sorted(r.noise, key=lambda layer: layer.snr_db)[:SHOWN]
    named = ", ".join(f"{escape(n.layer)} {n.snr_db:.1f} dB ({n.precision})" for n in worst)
    return f"signal to noise of layers alone in int8, lowest of {len(r.noise)}: {named}"


def known_by(p: Prediction) -> str:
    """'62 layers fitted, 3 memory-bound, extrapolated'"""
    counts: dict[str, int] = {}
    for layer in p.layers:
        counts[layer.source] = counts.get(layer.source, 0) + 1
    return "; ".join(f"{counted(n, 'layer')} {source}" for source, n in counts.items())


def _error(a: ArtefactReport) -> str:
    return f"{a.max_relative_error:.1e}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} ms"


def _bytes(value: int | None) -> str:
    if value is None:
        return "–"
    return f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB"


def _macs(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e6:.1f} M"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}%"
