"""`shrinkc compare A B`: two folders that shrinkc wrote, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import RunsOption, ThreadsOption
from shrinkc.compiler.cli.output import as_json, print_json
from shrinkc.errors import InputError


@app.command(cls=Command)
def compare(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="A folder that shrinkc wrote.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Another one.")],
    *,
    threads: ThreadsOption = None,
    runs: RunsOption = 30,
) -> None:
    """Show two compiled networks side by side, their files timed in turn here."""
    from shrinkc.compiler.api.compare import FILES, _report, _summary, _timed
    from shrinkc.compiler.cli.show.compare import comparison

    reports = [_report(folder) for folder in (first, second)]
    timed = {
        name: _timed(first / name, second / name, threads or 1, runs)
        for name in FILES
        if (first / name).is_file() and (second / name).is_file()
    }
    if not timed:
        raise InputError(f"{first} and {second} have no file of the same format; compile both")
    if as_json():
        summaries = [_summary(report) for report in reports]
        print_json({"first": summaries[0], "second": summaries[1], "files": timed})
    else:
        comparison((first, second), reports, timed)
