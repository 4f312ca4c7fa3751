"""`shrinkc calibrate`: a table corrected on a device."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.completion import targets
from shrinkc.compiler.cli.options import (
    BenchmarkModelOption,
    MeasuredPrecisionOption,
    NameOption,
    OnOption,
    RuntimeOption,
    ThreadsOption,
)
from shrinkc.compiler.cli.output import as_json, print_json, progress, wide_console
from shrinkc.errors import InputError

if TYPE_CHECKING:
    from shrinkc.latency_tables.table import LatencyTable


@app.command(cls=Command)
def calibrate(
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="The table to correct.", autocompletion=targets),
    ],
    *,
    on: OnOption,
    runtime: RuntimeOption = None,
    threads: ThreadsOption = None,
    precision: MeasuredPrecisionOption = None,
    benchmark_model: BenchmarkModelOption = None,
    name: NameOption = None,
) -> None:
    """Correct a table by a dozen whole networks measured on your own device; it becomes yours."""
    from shrinkc.compiler.devices.jobs import Setup
    from shrinkc.compiler.devices.parse import parse_device
    from shrinkc.compiler.profile import calibrate as networks
    from shrinkc.latency_tables.store import load_table, user_tables, write_table
    from shrinkc.latency_tables.target import Target

    table = load_table(target)
    device = parse_device(on, benchmark_model)
    chosen = runtime or next(iter(device.runtimes))
    if chosen not in device.runtimes:
        raise InputError(f"`runtime` {chosen}: {on} has {', '.join(device.runtimes)}")
    precisions = _precisions(table, device.runtimes[chosen], precision)
    saved = Target.parse(name or table.target)
    setup = Setup(chosen, threads or table.meta.threads)
    count = len(networks.REFERENCE_NETWORKS)
    with progress().task(
        f"Timing networks on {on}", count * len(precisions) * networks.PASSES
    ) as done:
        calibrated = networks.calibrate_table(table, device, setup, precisions, done)
    folder = user_tables().joinpath(*saved.folders)
    write_table(replace(calibrated.table, target=str(saved)), folder)
    if as_json():
        print_json(
            {
                "target": str(saved),
                "folder": str(folder),
                "networks": count,
                "error_before_percent": calibrated.before_percent,
                "error_after_percent": calibrated.after_percent,
            }
        )
        return
    console = wide_console()
    for one in precisions:
        console.print(
            f"{one}: {calibrated.before_percent[one]:.1f}% mean error before, "
            f"{calibrated.after_percent[one]:.1f}% after (networks held out)"
        )
    now = f"{folder}: {saved} now means this table"
    console.print(escape(now), soft_wrap=True)


def _precisions(
    table: LatencyTable, of_device: tuple[str, ...], wanted: str | None
) -> tuple[str, ...]:
    both = tuple(p for p in table.precisions if p in of_device and wanted in (None, p))
    if not both:
        raise InputError(
            f"`precision` {wanted}: the table has {', '.join(table.precisions)}, "
            f"the device {', '.join(of_device)}"
        )
    return both
