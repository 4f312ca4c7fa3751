"""`shrinkc tables` and `calibrate`: what tables there are, what they know, how to correct one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.cli.app import app
from shrinkc.compiler.cli.options import JsonOption
from shrinkc.compiler.cli.output import print_json
from shrinkc.compiler.cli.show.tables import _SHOWN, _coverage, _describe, _errors, _line
from shrinkc.latency_tables.store import known_targets, load_table

tables = typer.Typer(help="What latency tables there are, and what they know.")
app.add_typer(tables, name="tables")


@tables.callback(invoke_without_command=True)
def tables_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the targets and the error that each states."""
    if context.invoked_subcommand is None:
        from shrinkc.compiler.cli.commands.tables import run_tables

        run_tables(as_json)


@tables.command("show")
def tables_show(
    target: Annotated[str, typer.Argument(help="A target, or a table's folder.")],
    plot: Annotated[
        Path | None, typer.Option(help="PNG of predicted against measured to write.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Where a table comes from, what it covers, how wrong it is."""
    from shrinkc.compiler.cli.commands.tables import run_show

    run_show(target, plot, as_json)


def run_tables(as_json: bool) -> None:
    """All targets, each with its stated error."""
    rows = [_line(name) for name in known_targets()]
    if as_json:
        print_json({"tables": rows})
        return
    shown = Table(title="latency tables", title_justify="left")
    for header in ("target", "device", "batch", "known by", "error"):
        shown.add_column(header, overflow="fold")
    for row in rows:
        if "error" in row:
            shown.add_row(escape(row["target"]), f"damaged: {escape(row['error'])}")
        elif not row["stands_for"]:
            shown.add_row(*(escape(str(row[name])) for name in _SHOWN))
    console = Console()
    console.print(shown)
    short = (f"{r['target']} = {r['stands_for']}" for r in rows if r["stands_for"])
    console.print(f"short names: {escape(', '.join(short))}")
    console.print("host: this machine, measured when asked")


def run_show(target: str, plot: Path | None, as_json: bool) -> None:
    """One table: where it comes from, what it covers, how wrong it is; an image if asked."""
    table = load_table(target)
    described = _describe(table)
    if plot is not None:
        from shrinkc.compiler.report.plots import predicted_against_measured

        predicted_against_measured(table.target, table.validation, plot)
        described["plot"] = str(plot)
    if as_json:
        print_json(described)
        return
    console = Console()
    for name, value in described["provenance"].items():
        console.print(f"{name}: {escape(str(value))}")
    console.print(_errors(described["errors"]))
    console.print(_coverage(described["coverage"]))
    if plot is not None:
        console.print(f"{escape(str(plot))}: predicted against measured")
