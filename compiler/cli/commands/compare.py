"""`shrinkc compare A B`: two folders that shrinkc wrote, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrinkc.compiler.api.compare import FILES, _report, _summary, _timed
from shrinkc.compiler.cli.app import app
from shrinkc.compiler.cli.options import JsonOption, RunsOption, ThreadsOption
from shrinkc.compiler.cli.output import print_json
from shrinkc.compiler.cli.show.compare import _show
from shrinkc.errors import InputError


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A folder that shrinkc wrote.")],
    second: Annotated[Path, typer.Argument(help="Another.")],
    threads: ThreadsOption = 1,
    runs: RunsOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Two compiled networks side by side, their files timed in turn here."""
    from shrinkc.compiler.cli.commands.compare import run_compare

    run_compare(first, second, threads, runs, as_json)


def run_compare(first: Path, second: Path, threads: int, runs: int, as_json: bool) -> None:
    """Print both, and how many times as fast the second is."""
    reports = [_report(folder) for folder in (first, second)]
    timed = {
        name: _timed(first / name, second / name, threads, runs)
        for name in FILES
        if (first / name).is_file() and (second / name).is_file()
    }
    if not timed:
        raise InputError(f"{first} and {second} have no file of the same format; compile both")
    if as_json:
        print_json(
            {
                "first": _summary(reports[0]),
                "second": _summary(reports[1]),
                "files": timed,
            }
        )
        return
    _show((first, second), reports, timed)
