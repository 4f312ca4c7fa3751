"""What the terminal shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.cli.output import as_json, current, print_json, wide_console
from shrinkc.compiler.cost.predict import Prediction
from shrinkc.compiler.measure.bench import NOISY
from shrinkc.compiler.report.html.comparison import PAGE
from shrinkc.compiler.report.report import ArtefactReport, Report
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.tasks.tally import ErrorEstimate, Judgement
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.tasks.wording import AGREEMENT, score_words, share, worst_column

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


def targets_report(reports: Mapping[str, Report], out: Path) -> None:
    """A row for each target, as JSON or for people; every one has a folder in `out`."""
    if as_json():
        print_json({"targets": {name: report_json(one) for name, one in reports.items()}})
        return
    table = Table(title="each target", title_justify="left")
    for header in ("folder", "precision", "fp32 before", "predicted", "speedup", "measured here"):
        table.add_column(header, justify="left" if header in ("folder", "precision") else "right")
    for name, one in reports.items():
        before, after = one.predicted_before, one.predicted_after
        measured = next((a.measured_ms for a in one.artefacts if a.name == one.target_format), None)
        table.add_row(
            escape(name),
            one.precision,
            "" if before is None else f"{before.total_ms:.4g} ms",
            "" if after is None else f"{after.total_ms:.4g} ms",
            "" if before is None or after is None else f"{before.total_ms / after.total_ms:.2f}×",
            "" if measured is None else f"{measured:.4g} ms",
        )
    console = wide_console()
    console.print(table)
    for note in dict.fromkeys(note for one in reports.values() for note in one.notes):
        console.print(f"note: {escape(current().flagged(note))}")
    console.print(escape(f"each with its files in {out}/, compared in {out / PAGE}"))


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
        *(_predicted(p) for p in (r.predicted_before, r.predicted_after)),
    )
    for a in r.artefacts:
        table.add_row(f"measured here, {a.runtime}", _ms(a.measured_ms_before), _ms(a.measured_ms))
    return table


def _artefacts(r: Report) -> Table:
    """The user's model, what was made of it, and every file: all judged beside the model."""
    table, judged, made = Table(), r.in_torch if r.images else None, r.changed
    written_from = f" from {made} (PyTorch)" if made else ""
    headers = ["file", "size", f"largest error{written_from}"]
    columns = _Columns.of(r, judged) if judged is not None else None
    headers += [] if columns is None else columns.headers
    for header in headers:
        table.add_column(header, justify="left" if header == "file" else "right")
    if judged is not None and columns is not None:
        agreement = None if judged.agreement is None else 1.0
        mine = columns.cells(agreement, r.original_top1, judged.original_details, ())
        table.add_row("your model", "", "", *mine)
        if made:
            found = judged.agreement, judged.score, judged.details, judged.errors
            table.add_row(f"{made} (PyTorch)", "", "", *columns.cells(*found))
        table.caption = f"on {counted(r.images, 'image')}{_seen(r)}"
    for a in r.artefacts:
        cells = ()
        if columns is not None:
            cells = columns.cells(a.agreement, a.top1, a.details, a.errors)
        table.add_row(a.file, _bytes(a.bytes), _error(a), *cells)
    return table


@dataclass(frozen=True)
class _Columns:
    """What is told of networks that are judged: agreement, the task's metric and others beside it;
    of answers that are not scored, every output's error."""

    task: Task
    agrees: bool
    scored: bool
    details: tuple[str, ...]
    outputs: int

    @classmethod
    def of(cls, r: Report, judged: Judgement) -> _Columns:
        agrees = judged.agreement is not None
        scored = agrees or judged.score is not None
        return cls(
            r.task, agrees, scored, tuple(judged.details), 0 if agrees else len(judged.errors)
        )

    @property
    def headers(self) -> list[str]:
        alike = self.task.likeness.replace("the original", "your model")
        agrees = "agrees with your model" if self.task.likeness == AGREEMENT else alike
        several = self.outputs > 1
        errors = [
            f"error over variance{f', output {i + 1}' if several else ''}"
            for i in range(self.outputs)
        ]
        scores = [self.task.metric, *self.details] if self.scored else []
        return [*([agrees] if self.agrees else []), *scores, *errors]

    def cells(
        self,
        agreement: float | None,
        score: float | None,
        details: Mapping[str, float],
        errors: Sequence[ErrorEstimate],
    ) -> tuple[str, ...]:
        """No errors: there are none."""
        told = [_percent(agreement)] if self.agrees else []
        if self.scored:
            told.append(score_words(score, self.task.style))
            told += [f"{details[name]:.4g}" if name in details else "–" for name in self.details]
        if self.outputs:
            told += _errors(errors) or ["0"] * self.outputs
        return tuple(told)


def _errors(found: Sequence[ErrorEstimate]) -> list[str]:
    """'0.021', '0.021, worst column 0.3'"""
    worst = [worst_column(one.value, one.worst.value) for one in found]
    return [
        share(one.value) + (f", worst column {column}" if column else "")
        for one, column in zip(found, worst, strict=True)
    ]


def _seen(r: Report) -> str:
    """Whether the network was changed with the same images in sight."""
    if r.changed is None or r.judged is not None:
        return ""
    return ", those given to fit it to"


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


def _predicted(p: Prediction | None) -> str:
    if p is None or p.total_ms_low is None or p.total_ms_high is None:
        return _ms(None if p is None else p.total_ms)
    return f"{_ms(p.total_ms)} ({p.total_ms_low:.2f} to {p.total_ms_high:.2f})"


def _bytes(value: int | None) -> str:
    if value is None:
        return "–"
    return f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB"


def _macs(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e6:.1f} M"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}%"
