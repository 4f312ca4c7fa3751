"""What the terminal shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import fx

from ..passes import ir
from ..passes.analysis.linear_segments import LinearSegments
from .bench import NOISY
from .costs import Prediction
from .errors import UnsupportedOperatorError
from .report import ArtefactReport, Report

SHOWN = 12  # rows of a long list before the rest is only counted


def report(result: Report, out: Path) -> None:
    """The before/after table, accuracy, what was done and declined, where the files are."""
    console = wide_console()
    console.print(_before_after(result))
    console.print(_artefacts(result))
    for step in result.steps:
        if step.changes or step.skipped:
            console.print(
                f"{step.name}: {len(step.changes)} changes, {len(step.skipped)} declined, "
                f"float64 error {step.max_error:.0e}"
            )
    if result.noise:
        console.print(_noisiest(result))
    for note in result.notes:
        console.print(f"note: {escape(note)}")
    if result.predicted_after is not None:
        console.print(f"prediction: {_how(result.predicted_after)}")
    for artefact in result.artefacts:
        if artefact.measured_ms and (artefact.measured_iqr_ms or 0) > NOISY * artefact.measured_ms:
            console.print(f"warning: {artefact.name} timings vary by more than {NOISY:.0%}")
    console.print(f"{escape(str(out))}/: {', '.join(result.files)}")


def _before_after(r: Report) -> Table:
    table = Table(title=f"{escape(r.model)} for {escape(r.target)}", title_justify="left")
    for header in ("", "before (fp32, batch norm folded)", f"after ({r.precision})"):
        table.add_column(header, justify="left" if not header else "right")
    table.add_row("ONNX size", _bytes(r.before.bytes), _bytes(r.after.bytes))
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
    for header in (*headers, "agrees with PyTorch", "top-1") if judged else headers:
        table.add_column(header, justify="left" if header == "file" else "right")
    if judged:
        table.add_row("in PyTorch", "", "", "", _percent(r.original_top1))
    for a in r.artefacts:
        row = (a.file, _bytes(a.bytes), _error(a))
        table.add_row(*row, *((_percent(a.agreement), _percent(a.top1)) if judged else ()))
    if judged:
        table.caption = f"on {r.images} pictures"
    return table


def _noisiest(r: Report) -> str:
    worst = sorted(r.noise, key=lambda layer: layer.snr_db)[:3]
    named = ", ".join(f"{escape(n.layer)} {n.snr_db:.1f} dB ({n.precision})" for n in worst)
    return f"signal to noise of layers alone in int8, least of {len(r.noise)}: {named}"


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
    table.add_row("total", "", f"{p.macs / 1e6:.2f}", f"{p.total_ms:.3f}", _how(p))
    console.print(table)


def describe(
    graph_module: fx.GraphModule,
    segments: LinearSegments,
    problems: Sequence[UnsupportedOperatorError],
) -> dict[str, Any]:
    """The graph, its linear segments, and what no exporter supports, for JSON."""
    nodes = [
        {
            "name": n.name,
            "op": _operator(graph_module, n),
            "inputs": [i.name for i in n.all_input_nodes],
        }
        for n in graph_module.graph.nodes
    ]
    return {
        "input_shapes": {k: list(v) for k, v in graph_module.meta["input_shapes"].items()},
        "captured_by": graph_module.meta.get("captured_by"),
        "dynamic_batch": graph_module.meta.get("dynamic_batch"),
        "nodes": nodes,
        "linear_segments": [
            {"source": r.source, "sink": r.sink, "nodes": list(r.nodes)} for r in segments.regions
        ],
        "blocked": [
            {"sink": b.sink, "at": b.at, "reason": b.reason} for b in segments.blocked if b.linear
        ],
        "unsupported": [
            {"node": p.node, "operator": p.operator, "reason": str(p)} for p in problems
        ],
    }


def inspection(d: dict[str, Any]) -> None:
    """`describe`, for people."""
    console = wide_console()
    table = Table(title=f"captured by {d['captured_by'] or 'own file'}", title_justify="left")
    for header in ("node", "operator", "reads"):
        table.add_column(header)
    for node in d["nodes"]:
        table.add_row(escape(node["name"]), node["op"], escape(", ".join(node["inputs"])))
    console.print(table)
    segments = d["linear_segments"]
    console.print(f"linear segments: {len(segments)}")
    for s in segments[:SHOWN]:
        console.print(f"  {escape(' → '.join(s['nodes']))}  (reads {escape(s['source'])})")
    _rest(console, len(segments))
    if d["blocked"]:
        console.print(f"linear, but cannot merge: {len(d['blocked'])}")
        for b in d["blocked"][:SHOWN]:
            console.print(f"  {escape(b['sink'])}: {escape(b['reason'])}")
        _rest(console, len(d["blocked"]))
    for problem in d["unsupported"]:
        console.print(f"unsupported: {escape(problem['reason'])}")
    if not d["unsupported"]:
        console.print("every operator can be exported")


def _rest(console: Console, count: int) -> None:
    if count > SHOWN:
        console.print(f"  … and {count - SHOWN} more; --json lists all")


def _operator(graph_module: fx.GraphModule, node: fx.Node) -> str:
    module = ir.module_of(graph_module, node)
    if module is not None:
        return type(module).__name__
    return getattr(node.target, "__name__", node.op) if node.op == "call_function" else node.op


def wide_console() -> Console:
    """As wide as the terminal, or wide enough for tables in a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)


def _how(p: Prediction) -> str:
    """'62 layers fitted, 3 memory-bound, extrapolated'"""
    counts: dict[str, int] = {}
    for layer in p.layers:
        counts[layer.source] = counts.get(layer.source, 0) + 1
    return "; ".join(f"{n} layers {source}" for source, n in counts.items())


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
