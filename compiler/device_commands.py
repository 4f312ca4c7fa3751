"""`shrinkc profile` and `shrinkc bench`: what runs on devices."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from ..latency_tables.devices.jobs import Setup
from ..latency_tables.devices.parse import parse_device
from ..latency_tables.key import OpKey
from ..passes.fold_batch_norm import FoldBatchNorm
from ..passes.merge_linear import MergeLinear
from ..passes.simplify import Simplify
from . import show_devices
from .cli import print_json
from .commands import input_shapes, progress
from .device_bench import Bench, bench_files
from .errors import InputError, ShrinkcError, VerificationError
from .export.lower import lower
from .load import load_model
from .op_sets import default_keys, network_keys
from .pipeline import run_exact_passes
from .profile_run import Result, jobs, run
from .stages import captured

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class ProfileArguments:
    """The command line of `shrinkc profile`, as given."""

    models: tuple[Path, ...]
    targets: tuple[str, ...]
    devices: tuple[str, ...]
    benchmark_model: str | None
    shapes: tuple[str, ...]
    widths: int
    precision: str
    runtime: str
    threads: int
    budget_minutes: float
    timeout_s: float
    arch: str | None
    trust: bool
    as_json: bool


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


def _keys(a: ProfileArguments) -> list[OpKey]:
    """Those of all models together, or the grid where there are none."""
    if not a.models:
        return default_keys(a.precision)
    found: dict[OpKey, None] = {}
    for path in a.models:
        model = load_model(path, arch=a.arch, trust=a.trust)
        graph = captured(model, input_shapes(model, a.shapes))
        folded, _ = run_exact_passes(graph, (Simplify(), FoldBatchNorm()))
        merged, _ = run_exact_passes(folded, (MergeLinear(), Simplify()))
        for version in (folded, merged):
            program = lower(version.float())
            found.update(dict.fromkeys(network_keys(program, a.precision, a.widths)))
    return list(found)


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
