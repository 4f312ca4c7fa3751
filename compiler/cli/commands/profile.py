"""`shrinkc profile`: a latency table measured on a device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    ArchOption,
    BenchmarkModelOption,
    BudgetMinutesOption,
    DevicesOption,
    FleetOption,
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

if TYPE_CHECKING:
    from shrinkc.compiler.profile.fleet.run import FleetProfile
    from shrinkc.compiler.profile.run import Result


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
    target: NewTargetOption = None,
    on: DevicesOption = None,
    fleet: FleetOption = None,
    inputs: InputOption = None,
    widths: WidthsOption = 8,
    precision: MeasuredPrecisionOption = None,
    runtime: RuntimeOption = None,
    threads: ThreadsOption = None,
    budget_minutes: BudgetMinutesOption = 5.0,
    benchmark_model: BenchmarkModelOption = None,
    timeout_s: TimeoutOption = 120.0,
    arch: ArchOption = None,
    trust: TrustOption = False,
) -> None:
    """Measure a latency table on a device, or one for each kind of a fleet's boards. Killed or cut
    off, the same command goes on."""
    from shrinkc.compiler.api.profile import profile as profiled
    from shrinkc.compiler.api.steps.network import ModelFile
    from shrinkc.compiler.cli.inputs import shapes_of
    from shrinkc.compiler.profile.fleet.run import FleetProfile

    call: Any = profiled  # of which the overloads tell apart what the user alone knows
    try:
        results: FleetProfile | tuple[Result | ShrinkcError, ...] = call(
            *(ModelFile(model, arch, trust) for model in models or ()),
            target=target,
            on=on,
            fleet=fleet,
            inputs=shapes_of(inputs),
            widths=widths,
            precision=precision or "fp32",
            runtime=runtime or "",
            threads=threads or 1,
            budget_minutes=budget_minutes,
            timeout_s=timeout_s,
            benchmark_model=benchmark_model,
            progress=progress(),
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; run the same command again to go on") from None
    if isinstance(results, FleetProfile):
        _tell_fleet(results)
    else:
        _tell(results)


def _tell_fleet(found: FleetProfile) -> None:
    from shrinkc.compiler.cli.show.devices import fleet as show

    if as_json():
        print_json(show.profile_json(found))
    else:
        show.profile(found)
    show.require_all(len(found.boards), found.errors)


def _tell(results: Sequence[Result | ShrinkcError]) -> None:
    from shrinkc.compiler.cli.show.devices import one as show

    failed = [result for result in results if isinstance(result, ShrinkcError)]
    done = [result for result in results if not isinstance(result, ShrinkcError)]
    if as_json():
        print_json({"tables": [show.profile_json(result) for result in done]})
    else:
        for result in done:
            show.profile(result)
    _raise_first(failed)


def _raise_first(errors: Sequence[ShrinkcError]) -> None:
    """Once all other devices are done."""
    for error in errors[1:]:
        current().complain(str(error))
    if errors:
        raise errors[0]
