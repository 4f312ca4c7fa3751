"""A graph, what is linear in it and what cannot be exported, on the console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import fx

from shrinkc.compiler.cli.output import wide_console
from shrinkc.errors import UnsupportedOperatorError
from shrinkc.passes import ir
from shrinkc.passes.analysis.linear.linear_segments import LinearSegments

SHOWN = 12  # rows of a long list before the rest is only counted


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
        "notes": list(graph_module.meta.get("notes", ())),
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
    for note in d["notes"]:
        console.print(f"note: {escape(note)}")
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
