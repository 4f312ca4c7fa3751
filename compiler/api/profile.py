"""`shrinkc.profile`: latency tables measured on devices, operator by operator."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import get_args, overload

from shrinkc.compiler.api.steps.network import Inputs, Model, subject_of
from shrinkc.compiler.devices.fleet.file import read_fleet
from shrinkc.compiler.devices.jobs import Setup
from shrinkc.compiler.devices.parse import parse_device
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.pipeline.deployed import BASE_PASSES
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.profile.fleet.run import FleetProfile, profile_fleet
from shrinkc.compiler.profile.op_sets import default_keys, network_keys
from shrinkc.compiler.profile.run import Result, jobs, run
from shrinkc.compiler.support.checks import check_number, check_whole, listed, path_of
from shrinkc.compiler.support.choices import MeasuredPrecision
from shrinkc.compiler.support.progress import Progress, shown_by
from shrinkc.compiler.support.unread import refuse_unread
from shrinkc.errors import InputError, ShrinkcError
from shrinkc.latency_tables.key import OpKey
from shrinkc.passes.merge.merge_linear import MergeLinear
from shrinkc.passes.simplify.simplify import Simplify

WIDTHS = 8  # of each layer, by default


@overload
def profile(
    *models: Model,
    target: str | Sequence[str],
    on: str | Sequence[str],
    fleet: None = None,
    inputs: Inputs = None,
    widths: int = WIDTHS,
    precision: MeasuredPrecision = "fp32",
    runtime: str = "",
    threads: int = 1,
    budget_minutes: float = 5.0,
    timeout_s: float = 120.0,
    benchmark_model: str | None = None,
    progress: Progress | bool = False,
) -> tuple[Result | ShrinkcError, ...]: ...
@overload
def profile(
    *models: Model,
    target: None = None,
    on: None = None,
    fleet: str | os.PathLike[str],
    inputs: Inputs = None,
    widths: int = WIDTHS,
    precision: MeasuredPrecision = "fp32",
    runtime: str = "",
    threads: int = 1,
    budget_minutes: float = 5.0,
    timeout_s: float = 120.0,
    benchmark_model: str | None = None,
    progress: Progress | bool = False,
) -> FleetProfile: ...


def profile(
    *models: Model,
    target: str | Sequence[str] | None = None,
    on: str | Sequence[str] | None = None,
    fleet: str | os.PathLike[str] | None = None,
    inputs: Inputs = None,
    widths: int = WIDTHS,
    precision: MeasuredPrecision = "fp32",
    runtime: str = "",
    threads: int = 1,
    budget_minutes: float = 5.0,
    timeout_s: float = 120.0,
    benchmark_model: str | None = None,
    progress: Progress | bool = False,
) -> tuple[Result | ShrinkcError, ...] | FleetProfile:
    """Measure a table on each device, side by side. The same call goes on where one was stopped.

    Args:
        models: what planning these networks needs is measured; none: a grid of usual operators.
        target: name of the table to make; one for all devices, or one each.
        on: "host", "ssh://user@host[:port]", "adb:SERIAL", or "cuda"; one or several.
        fleet: a file that lists boards and their tables, in place of `on` and `target`.
        inputs: an example or its shape, for `models`.
        widths: of each layer, from all channels to a quarter.
        precision: "fp32", "int8", or on cuda "fp16".
        runtime: "tflite" or "onnxruntime", on cuda "pytorch" or "tensorrt"; "": the device's first.
        threads: of the runtime; the fleet's file goes before both.
        budget_minutes: for each device; what is left over goes on in the next call.
        timeout_s: seconds without a word after which a device counts as hung.
        benchmark_model: TFLite's benchmark_model, for adb.
        progress: True shows bars on stderr.

    Returns:
        For every device its written table, or the error that ended it. Of a fleet every board, the
        table of every kind, and `differences` within one.

    Raises:
        InputError, LoadError, TableError: before anything is measured.
    """
    _check(precision, widths, threads, budget_minutes, timeout_s)
    for name, given in (("inputs", inputs is not None), ("widths", widths != WIDTHS)):
        refuse_unread((name, given, bool(models), "networks: give `models`"))
    setup, shown = Setup(runtime, threads, timeout_s), shown_by(progress)
    if fleet is not None:
        _refuse_beside_fleet(("on", on), ("target", target))
        boards = read_fleet(path_of("fleet", fleet), benchmark_model)
        keys = _chosen(models, inputs, precision, widths, shown)
        return profile_fleet(boards, keys, setup, budget_minutes * 60, shown)
    if on is None or target is None:
        missing = "on" if on is None else "target"
        raise InputError(f"no `{missing}`: give `on` and `target`, or a `fleet`")
    targets = [target] if isinstance(target, str) else listed("target", target, str, "names")
    named = [on] if isinstance(on, str) else listed("on", on, str, "names of devices")
    phones = [one for one in named if one.startswith("adb:")] or named
    devices = [parse_device(one, benchmark_model if one in phones else None) for one in named]
    keys = _chosen(models, inputs, precision, widths, shown)
    return tuple(run(jobs(targets, devices, keys, setup, budget_minutes * 60), shown))


def _check(
    precision: str, widths: int, threads: int, budget_minutes: float, timeout_s: float
) -> None:
    if precision not in get_args(MeasuredPrecision):
        raise InputError(
            f"`precision` {precision}: choose {', '.join(get_args(MeasuredPrecision))}"
        )
    check_whole("widths", widths, 1)
    check_whole("threads", threads, 1)
    check_number("budget_minutes", budget_minutes)
    check_number("timeout_s", timeout_s, above=True)


def _refuse_beside_fleet(*given: tuple[str, object]) -> None:
    for name, value in given:
        if value is not None:
            raise InputError(
                f"`{name}` beside `fleet`: its file says that of every board; give one of the two"
            )


def _chosen(
    models: Sequence[Model], inputs: Inputs, precision: str, widths: int, shown: Progress
) -> list[OpKey]:
    with shown.task("Choosing operators"):
        return _keys(models, inputs, precision, widths)


def _keys(models: Sequence[Model], inputs: Inputs, precision: str, widths: int) -> list[OpKey]:
    """Those of all models together, or the grid where there are none."""
    if not models:
        return default_keys(precision)
    found: dict[OpKey, None] = {}
    for model in models:
        graph = subject_of(model, inputs).graph
        folded, _ = run_exact_passes(graph, BASE_PASSES)
        merged, _ = run_exact_passes(folded, (MergeLinear(), Simplify()))
        for version in (folded, merged):
            program = lower(version.float())
            found.update(dict.fromkeys(network_keys(program, precision, widths)))
    return list(found)
