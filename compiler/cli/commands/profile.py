"""`shrinkc profile` and `shrinkc bench`: what runs on devices."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from shrinkc.compiler.api.profile import ProfileArguments, _keys
from shrinkc.compiler.cli.app import app
from shrinkc.compiler.cli.options import (
    ArchOption,
    BenchmarkModelOption,
    DevicesOption,
    InputOption,
    JsonOption,
    ThreadsOption,
    TimeoutOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import print_json, progress
from shrinkc.compiler.cli.show import devices as show_devices
from shrinkc.compiler.devices.jobs import Setup
from shrinkc.compiler.devices.parse import parse_device
from shrinkc.compiler.profile.run import Result, jobs, run
from shrinkc.errors import InputError, ShrinkcError
from shrinkc.latency_tables.key import PRECISIONS


@app.command("profile")
def profile_command(
    target: Annotated[
        list[str], typer.Option(help="Name of the table to make; once, or once per --on.")
    ],
    on: DevicesOption,
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Measure what planning these needs. Default: a grid of usual operators."
        ),
    ] = None,
    input: InputOption = None,
    widths: Annotated[
        int, typer.Option(min=1, help="Widths of each layer, from all channels to a quarter.")
    ] = 8,
    precision: Annotated[str, typer.Option(help="fp32, int8 or (cuda) fp16.")] = "fp32",
    runtime: Annotated[
        str,
        typer.Option(help="tflite, onnxruntime; on cuda pytorch, tensorrt. Default: the first."),
    ] = "",
    threads: ThreadsOption = 1,
    budget_minutes: Annotated[
        float, typer.Option(min=0, help="Time for each device; what is left over goes on later.")
    ] = 10.0,
    benchmark_model: BenchmarkModelOption = None,
    timeout: TimeoutOption = 120.0,
    arch: ArchOption = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a latency table on a device. Killed or cut off, the same command goes on."""
    from shrinkc.compiler.api.profile import ProfileArguments
    from shrinkc.compiler.cli.commands.profile import run_profile

    run_profile(
        ProfileArguments(
            models=tuple(models or ()),
            targets=tuple(target),
            devices=tuple(on),
            benchmark_model=benchmark_model,
            shapes=tuple(input or ()),
            widths=widths,
            precision=precision,
            runtime=runtime,
            threads=threads,
            budget_minutes=budget_minutes,
            timeout_s=timeout,
            arch=arch,
            trust=trust,
            as_json=as_json,
        )
    )


def run_profile(a: ProfileArguments) -> None:
    """Measure, write the tables, print what they know. The first device's error is raised once
    all others are done."""
    if a.precision not in PRECISIONS:
        raise InputError(f"--precision {a.precision}: choose {', '.join(PRECISIONS)}")
    devices = [parse_device(text, a.benchmark_model) for text in a.devices]
    shown = progress(a.as_json)
    with shown.task("Choosing operators"):
        keys = _keys(a)
    setup = Setup(a.runtime, a.threads, a.timeout_s)
    planned = jobs(a.targets, devices, keys, setup, a.budget_minutes * 60)
    try:
        results = run(planned, shown)
    except KeyboardInterrupt:
        print("shrinkc: interrupted; run the same command again to go on", file=sys.stderr)
        raise typer.Exit(130) from None
    done = [result for result in results if isinstance(result, Result)]
    if a.as_json:
        print_json({"tables": [show_devices.profile_json(result) for result in done]})
    else:
        for result in done:
            show_devices.profile(result)
    _raise_first([result for result in results if not isinstance(result, Result)])


def _raise_first(errors: Sequence[ShrinkcError]) -> None:
    for error in errors[1:]:
        print(f"shrinkc: {error}", file=sys.stderr)
    if errors:
        raise errors[0]
