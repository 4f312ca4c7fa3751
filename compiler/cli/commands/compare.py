"""`shrinkc compare A B`: two folders that shrinkc wrote, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import RunsOption, ThreadsOption
from shrinkc.compiler.cli.output import as_json, print_json


@app.command(cls=Command)
def compare(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="A folder that shrinkc wrote.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Another one.")],
    *,
    threads: ThreadsOption = None,
    runs: RunsOption = 30,
) -> None:
    """Show two compiled networks side by side, their files timed in turn here."""
    from shrinkc.compiler.api.compare import compare as compared
    from shrinkc.compiler.cli.show.compare import comparison, comparison_json

    found = compared(first, second, threads=threads or 1, runs=runs)
    if as_json():
        print_json(comparison_json(found))
    else:
        comparison(found)
