"""`shrinkc calibrate`: a table corrected on a device."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.completion import targets
from shrinkc.compiler.cli.options import (
    BenchmarkModelOption,
    BudgetMinutesOption,
    MeasuredPrecisionOption,
    NameOption,
    OnOption,
    RuntimeOption,
    ThreadsOption,
)
from shrinkc.compiler.cli.output import as_json, print_json, progress, warn, wide_console
from shrinkc.compiler.support.text import counted


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
    budget_minutes: BudgetMinutesOption = 1.0,
    benchmark_model: BenchmarkModelOption = None,
    name: NameOption = None,
) -> None:
    """Correct a table by a dozen whole networks measured on your own device; it becomes yours."""
    from shrinkc.compiler.api.calibrate import calibrate as calibrated

    found = calibrated(
        target,
        on=on,
        runtime=runtime,
        threads=threads,
        precision=precision,
        budget_minutes=budget_minutes,
        benchmark_model=benchmark_model,
        name=name,
        progress=progress(),
    )
    for one, names in found.disagreeing.items():
        if names:
            warn(
                f"{one}: {'; '.join(names)} disagree with the other networks by more than the "
                "table's interval and are no part of the correction"
            )
    for one, names in found.missing.items():
        if names:
            warn(
                f"{one}: the time was up before {counted(len(names), 'network')}; a longer "
                "`budget_minutes` times them too"
            )
    if found.throttled:
        warn(f"the device was {found.throttled}; a fan or a heat sink makes it even")
    if as_json():
        print_json({**asdict(found), "folder": str(found.folder)})
        return
    console = wide_console()
    for one, before in found.error_before_percent.items():
        after = found.error_after_percent[one]
        console.print(
            f"{one}: {before:.1f}% mean error before, {after:.1f}% after (networks held out)"
        )
    now = f"{found.folder}: {found.target} now means this table"
    console.print(escape(now), soft_wrap=True)
