"""`shrinkc calibrate`: a table corrected on a device."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from shrinkc.compiler.cli.app import app
from shrinkc.compiler.cli.options import BenchmarkModelOption, JsonOption, OnOption
from shrinkc.compiler.cli.output import print_json, progress
from shrinkc.compiler.devices.jobs import Setup
from shrinkc.compiler.devices.parse import parse_device
from shrinkc.compiler.profile.calibrate import PASSES, calibrate_table
from shrinkc.compiler.profile.reference_networks import REFERENCE_NETWORKS
from shrinkc.errors import InputError
from shrinkc.latency_tables.store import load_table, user_tables, write_table
from shrinkc.latency_tables.table import LatencyTable
from shrinkc.latency_tables.target import Target


@app.command()
def calibrate(
    target: Annotated[str, typer.Argument(help="The table to correct.")],
    on: OnOption,
    runtime: Annotated[
        str | None, typer.Option(help="tflite or onnxruntime. Default: the device's first.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Default: as the table was measured.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Default: all that table and device have.")
    ] = None,
    benchmark_model: BenchmarkModelOption = None,
    name: Annotated[
        str | None, typer.Option(help="Target to save it as. Default: TARGET, which it then means.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Correct a table by a dozen whole networks measured on your own device."""
    from shrinkc.compiler.cli.commands.calibrate import run_calibrate

    run_calibrate(target, on, runtime, threads, precision, benchmark_model, name, as_json)


def run_calibrate(
    target: str,
    on: str,
    runtime: str | None,
    threads: int | None,
    precision: str | None,
    benchmark_model: str | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Correct a table by whole networks on the user's device; it becomes the user's own."""
    table = load_table(target)
    device = parse_device(on, benchmark_model)
    chosen = runtime or next(iter(device.runtimes))
    if chosen not in device.runtimes:
        raise InputError(f"--runtime {chosen}: {on} has {', '.join(device.runtimes)}")
    precisions = _precisions(table, device.runtimes[chosen], precision)
    saved = Target.parse(name or table.target)
    setup = Setup(chosen, threads or table.meta.threads)
    total = len(REFERENCE_NETWORKS) * len(precisions) * PASSES
    with progress(as_json).task(f"Timing networks on {on}", total) as done:
        calibrated = calibrate_table(table, device, setup, precisions, done)
    folder = user_tables().joinpath(*saved.folders)
    write_table(replace(calibrated.table, target=str(saved)), folder)
    result = {
        "target": str(saved),
        "folder": str(folder),
        "networks": len(REFERENCE_NETWORKS),
        "error_before_percent": calibrated.before_percent,
        "error_after_percent": calibrated.after_percent,
    }
    if as_json:
        print_json(result)
        return
    console = Console()
    for one in precisions:
        console.print(
            f"{one}: {calibrated.before_percent[one]:.1f}% mean error before, "
            f"{calibrated.after_percent[one]:.1f}% after (networks held out)"
        )
    console.print(f"{escape(str(folder))}: {escape(str(saved))} now means this table")


def _precisions(
    table: LatencyTable, of_device: tuple[str, ...], wanted: str | None
) -> tuple[str, ...]:
    both = tuple(p for p in table.precisions if p in of_device and wanted in (None, p))
    if not both:
        raise InputError(
            f"--precision {wanted}: the table has {', '.join(table.precisions)}, "
            f"the device {', '.join(of_device)}"
        )
    return both
