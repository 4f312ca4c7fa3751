"""`shrinkc tables`: what latency tables there are, and what they know."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from shrinkc.compiler.cli.app import Command, Group, app
from shrinkc.compiler.cli.completion import targets
from shrinkc.compiler.cli.options import NameOption, PlotOption
from shrinkc.compiler.cli.output import as_json, narrow_console, print_json, wide_console

tables = typer.Typer(cls=Group, help="Show what latency tables there are, and what they know.")
app.add_typer(tables, name="tables")


@tables.callback(invoke_without_command=True)
def tables_list(context: typer.Context) -> None:
    """List the targets and the error that each table states."""
    from shrinkc.compiler.cli.show.tables import line, listed, short_names
    from shrinkc.latency_tables.store import known_targets

    if context.invoked_subcommand is not None:
        return
    rows = [line(name) for name in known_targets()]
    if as_json():
        print_json({"tables": rows})
        return
    console = narrow_console()
    console.print(listed(rows, console.width))
    console.print(escape(short_names(rows, console.width)))
    console.print("host: this machine, measured when asked")
    console.print("error: the mean, of networks held out; 9 of 10 such networks are within ±")
    console.print("your own device: shrinkc profile --target NAME --on DEVICE")


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
    console = narrow_console()
    for name, value in described["provenance"].items():
        text = ", ".join(value) if name == "precisions" else str(value)
        console.print(f"{name}: {escape(text)}")
    if described["errors"]:
        console.print(errors(described["errors"]))
    else:
        name = escape(table.target)
        console.print(
            f"stated error: none; shrinkc calibrate {name} --on DEVICE makes it state one"
        )
    for precision, factor in described["interval"].items():
        if factor is not None:
            console.print(
                f"{precision}: 9 of 10 networks like these are within × or ÷ {factor:.2f}"
            )
    for precision, names in described["never_tried"].items():
        console.print(f"{precision}, tried on fewer than 3 networks: {', '.join(names)}")
    console.print(coverage(described["coverage"]))
    if plot is not None:
        console.print(f"{escape(str(plot))}: predicted against measured")


@tables.command("export", cls=Command)
def tables_export(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="A target, or a table's folder.", autocompletion=targets
        ),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
) -> None:
    """Write a table as one file to hand on, with its source and a digest."""
    from shrinkc.compiler.profile.table_file import export_table

    export_table(target, file)
    if as_json():
        print_json({"target": target, "file": str(file)})
        return
    wide_console().print(escape(f"{file}: {target}"), soft_wrap=True)


@tables.command("import", cls=Command)
def tables_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `tables export` wrote.")],
    *,
    name: NameOption = None,
) -> None:
    """Make the table of a file your own."""
    from shrinkc.compiler.profile.table_file import import_table

    target = import_table(file, name)
    if as_json():
        print_json({"target": target, "file": str(file)})
        return
    wide_console().print(escape(f"{target} now means the table of {file}"), soft_wrap=True)
