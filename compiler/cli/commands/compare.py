"""`shrinkc compare A B`: two folders that shrinkc wrote, or two model files, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    ImagesOption,
    MeanOption,
    ResizeOption,
    RunsOption,
    StdOption,
    ThreadsOption,
)
from shrinkc.compiler.cli.output import as_json, print_json


@app.command(cls=Command)
def compare(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="FIRST", help="A folder that shrinkc wrote, or a .onnx or .tflite file."
        ),
    ],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Another one.")],
    *,
    images: ImagesOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    threads: ThreadsOption = None,
    runs: RunsOption = 30,
) -> None:
    """Show two compiled networks, or two files of any origin, side by side, timed in turn here."""
    from shrinkc.compiler.api.compare import ComparedFiles
    from shrinkc.compiler.api.compare import compare as compared
    from shrinkc.compiler.cli.inputs import Reading
    from shrinkc.compiler.cli.show.compare import comparison, comparison_json, files, files_json

    reading = Reading(None, resize, mean, std)
    reading.refuse_unread(images)
    found = compared(
        first, second, images=reading.if_given(images), threads=threads or 1, runs=runs
    )
    if isinstance(found, ComparedFiles):
        if as_json():
            print_json(files_json(found))
        else:
            files(found)
    elif as_json():
        print_json(comparison_json(found))
    else:
        comparison(found)
