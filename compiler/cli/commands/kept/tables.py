"""`shrinkc tables`: what latency tables there are, and what they know."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.cli.app import Command, Group, app
from shrinkc.compiler.cli.completion import targets
from shrinkc.compiler.cli.options import PlotOption
from shrinkc.compiler.cli.output import as_json, print_json, wide_console

tables = typer.Typer(cls=Group, help="Show what latency tables there are, and what they know.")
app.add_typer(tables, name="tables")


@tables.callback(invoke_without_command=True)
def tables_list(context: typer.Context) -> None:
    """List the targets and the error that each table states."""
    from shrinkc.compiler.cli.show.tables import SHOWN, line
    from shrinkc.latency_tables.store import known_targets

    if context.invoked_subcommand is not None:
        return
    rows = [line(name) for name in known_targets()]
    if as_json():
        print_json({"tables": rows})
        return
    shown = Table(title="latency tables", title_justify="left")
    for header in ("target", "device", "batch", "known by", "error"):
        shown.add_column(header, overflow="fold")
    for row in rows:
        if "error" in row:
            shown.add_row(escape(row["target"]), f"damaged: {escape(row['error'])}")
        elif not row["stands_for"]:
            shown.add_row(*(escape(str(row[name])) for name in SHOWN))
    console = wide_console()
    console.print(shown)
    short = (f"{r['target']} = {r['stands_for']}" for r in rows if r["stands_for"])
    console.print(f"short names: {escape(', '.join(short))}")
    console.print("host: this machine, measured when asked")


@tables.command("show", cls=Command)
def tables_show(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="A target, or a table's folder.", autocompletion=targets
        ),
    ],
    *,
    plot: PlotOption = None,
) -> None:
    """Show where a table comes from, what it covers, how wrong it is; --plot draws the errors."""
    from shrinkc.compiler.cli.show.tables import coverage, describe, errors
    from shrinkc.latency_tables.store import load_table

    table = load_table(target)
    described = describe(table)
    if plot is not None:
        from shrinkc.compiler.report.plots import predicted_against_measured

        predicted_against_measured(table.target, table.validation, plot)
        described["plot"] = str(plot)
    if as_json():
        print_json(described)
        return
    console = wide_console()
    for name, value in described["provenance"].items():
        console.print(f"{name}: {escape(str(value))}")
    console.print(errors(described["errors"]))
    console.print(coverage(described["coverage"]))
    if plot is not None:
        console.print(f"{escape(str(plot))}: predicted against measured")
