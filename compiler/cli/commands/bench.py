"""`shrinkc bench`: files timed on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrinkc.compiler.cli.app import app
from shrinkc.compiler.cli.options import (
    ON_HELP,
    BenchmarkModelOption,
    JsonOption,
    ThreadsOption,
    TimeoutOption,
)
from shrinkc.compiler.cli.output import print_json, progress
from shrinkc.compiler.cli.show import devices as show_devices
from shrinkc.compiler.devices import HOST
from shrinkc.compiler.devices.jobs import Setup
from shrinkc.compiler.devices.parse import parse_device
from shrinkc.compiler.measure.device import Bench, bench_files
from shrinkc.errors import VerificationError


@app.command()
def bench(
    file: Annotated[Path, typer.Argument(help="A .onnx or .tflite file.")],
    on: Annotated[str, typer.Option(help=ON_HELP)] = HOST,
    compare: Annotated[
        Path | None, typer.Option(help="Another file, timed in turn with FILE.")
    ] = None,
    threads: ThreadsOption = 1,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs.")] = 50,
    benchmark_model: BenchmarkModelOption = None,
    timeout: TimeoutOption = 120.0,
    as_json: JsonOption = False,
) -> None:
    """Time FILE on a device: median, interquartile range, memory, and whether it computes what it
    computes here."""
    from shrinkc.compiler.cli.commands.bench import run_bench

    run_bench(file, on, compare, benchmark_model, threads, runs, timeout, as_json)


def run_bench(
    file: Path,
    on: str,
    other: Path | None,
    benchmark_model: str | None,
    threads: int,
    runs: int,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Print times, memory and ratio. Raises VerificationError, afterwards, where the device
    computes something else than this machine."""
    device = parse_device(on, benchmark_model)
    files = [file] if other is None else [file, other]
    with progress(as_json).task(f"Timing {' and '.join(f.name for f in files)} on {device.name}"):
        result = bench_files(device, files, Setup("", threads, timeout_s), runs)
    if as_json:
        print_json(show_devices.bench_json(device.name, threads, result))
    else:
        show_devices.bench(device.name, threads, result)
    _require_equal(device.name, result)


def _require_equal(device: str, result: Bench) -> None:
    for f in result.files:
        if f.agreement is not None and not f.agreement.equal:
            raise VerificationError(
                f"{f.file}: outputs on {device} differ from those here by "
                f"{f.agreement.largest:.2g} {f.agreement.unit}; the times are of another function"
            )
