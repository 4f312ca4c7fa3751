"""`shrinkc profile`: a latency table measured on a device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    ArchOption,
    BenchmarkModelOption,
    BudgetMinutesOption,
    DevicesOption,
    InputOption,
    MeasuredPrecisionOption,
    NewTargetOption,
    RuntimeOption,
    ThreadsOption,
    TimeoutOption,
    TrustOption,
    WidthsOption,
)
from shrinkc.compiler.cli.output import as_json, current, print_json, progress
from shrinkc.errors import ShrinkcError


@app.command(cls=Command)
def profile(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="MODELS",
            help="Measure what planning these networks needs. Default: a grid of usual operators.",
        ),
    ] = None,
    *,
    target: NewTargetOption,
    on: DevicesOption,
    inputs: InputOption = None,
    widths: WidthsOption = 8,
    precision: MeasuredPrecisionOption = None,
    runtime: RuntimeOption = None,
    threads: ThreadsOption = None,
    budget_minutes: BudgetMinutesOption = 10.0,
    benchmark_model: BenchmarkModelOption = None,
    timeout_s: TimeoutOption = 120.0,
    arch: ArchOption = None,
    trust: TrustOption = False,
) -> None:
    """Measure a latency table on a device. Killed or cut off, the same command goes on."""
    from shrinkc.compiler.api.profile import ProfileArguments, _keys
    from shrinkc.compiler.cli.show import devices as show
    from shrinkc.compiler.devices.jobs import Setup
    from shrinkc.compiler.devices.parse import parse_device
    from shrinkc.compiler.profile.run import Result, jobs, run

    arguments = ProfileArguments(
        models=tuple(models or ()),
        targets=tuple(target),
        devices=tuple(on),
        benchmark_model=benchmark_model,
        shapes=tuple(inputs or ()),
        widths=widths,
        precision=precision or "fp32",
        runtime=runtime or "",
        threads=threads or 1,
        budget_minutes=budget_minutes,
        timeout_s=timeout_s,
        arch=arch,
        trust=trust,
        as_json=as_json(),
    )
    devices = [parse_device(text, benchmark_model) for text in on]
    shown = progress()
    with shown.task("Choosing operators"):
        keys = _keys(arguments)
    setup = Setup(runtime or "", threads or 1, timeout_s)
    planned = jobs(target, devices, keys, setup, budget_minutes * 60)
    try:
        results = run(planned, shown)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; run the same command again to go on") from None
    done = [result for result in results if isinstance(result, Result)]
    if as_json():
        print_json({"tables": [show.profile_json(result) for result in done]})
    else:
        for result in done:
            show.profile(result)
    _raise_first([result for result in results if not isinstance(result, Result)])


def _raise_first(errors: Sequence[ShrinkcError]) -> None:
    """Once all other devices are done."""
    for error in errors[1:]:
        current().complain(str(error))
    if errors:
        raise errors[0]
