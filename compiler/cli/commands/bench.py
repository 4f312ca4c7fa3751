"""`shrinkc bench`: files timed on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    BenchmarkModelOption,
    CompareOption,
    OnOption,
    RunsOption,
    ThreadsOption,
    TimeoutOption,
)
from shrinkc.compiler.cli.output import as_json, print_json, progress
from shrinkc.compiler.support.choices import HOST
from shrinkc.errors import InputError, VerificationError

if TYPE_CHECKING:
    from shrinkc.compiler.measure.device import Bench


@app.command(cls=Command)
def bench(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .onnx or .tflite file.")],
    *,
    on: OnOption = HOST,
    compare: CompareOption = None,
    threads: ThreadsOption = None,
    runs: RunsOption = 30,
    benchmark_model: BenchmarkModelOption = None,
    timeout_s: TimeoutOption = 120.0,
) -> None:
    """Time FILE on a device: median, interquartile range, memory, and whether it computes what it
    computes here."""
    from shrinkc.compiler.api.bench import bench as timed
    from shrinkc.compiler.cli.show import devices as show

    if runs < 1:
        raise InputError(f"`runs` {runs}: give 1 or more, this command does nothing but time")
    result = timed(
        *([file] if compare is None else [file, compare]),
        on=on,
        threads=threads or 1,
        runs=runs,
        benchmark_model=benchmark_model,
        timeout_s=timeout_s,
        progress=progress(),
    )
    if as_json():
        print_json(show.bench_json(on, threads or 1, result))
    else:
        show.bench(on, threads or 1, result)
    _require_equal(on, result)


def _require_equal(device: str, result: Bench) -> None:
    for f in result.files:
        if f.agreement is not None and not f.agreement.equal:
            raise VerificationError(
                f"{f.file}: outputs on {device} differ from those here by "
                f"{f.agreement.largest:.2g} {f.agreement.unit}; the times are of another function"
            )
