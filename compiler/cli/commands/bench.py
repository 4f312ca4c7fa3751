"""`shrinkc bench`: files timed on a device."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    BenchmarkModelOption,
    CompareOption,
    FleetOption,
    OptionalOnOption,
    RunsOption,
    ThreadsOption,
    TimeoutOption,
)
from shrinkc.compiler.cli.output import as_json, print_json, progress
from shrinkc.compiler.support.choices import HOST
from shrinkc.errors import InputError


@app.command(cls=Command)
def bench(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .onnx or .tflite file.")],
    *,
    on: OptionalOnOption = None,
    fleet: FleetOption = None,
    compare: CompareOption = None,
    threads: ThreadsOption = None,
    runs: RunsOption = 30,
    benchmark_model: BenchmarkModelOption = None,
    timeout_s: TimeoutOption = 120.0,
) -> None:
    """Time FILE on a device, or on all of a fleet: median, interquartile range, memory, and whether
    it computes what it computes here."""
    from shrinkc.compiler.api.bench import bench as timed
    from shrinkc.compiler.cli.show.devices import one as show

    if runs < 1:
        raise InputError(f"`runs` {runs}: give 1 or more, this command does nothing but time")
    files = [file] if compare is None else [file, compare]
    how = _How(threads or 1, runs, benchmark_model, timeout_s)
    if fleet is not None:
        _bench_fleet(files, on, fleet, how)
        return
    result = timed(*files, on=on, progress=progress(), **asdict(how))
    device = on or HOST
    if as_json():
        print_json(show.bench_json(device, how.threads, result))
    else:
        show.bench(device, how.threads, result)
    for one in result.files:
        one.require_equal(device)


@dataclass(frozen=True)
class _How:
    """Wherever it is timed."""

    threads: int
    runs: int
    benchmark_model: str | None
    timeout_s: float


def _bench_fleet(files: list[Path], on: str | None, fleet: Path, how: _How) -> None:
    from shrinkc.compiler.api.bench import bench as timed
    from shrinkc.compiler.cli.show.devices import fleet as show
    from shrinkc.compiler.measure.fleet import FleetBench, StoppedBenchError

    stopped: StoppedBenchError | None = None
    call: Any = timed  # whose overloads refuse both `on` and `fleet`, as it does itself
    try:
        result: FleetBench = call(*files, on=on, fleet=fleet, progress=progress(), **asdict(how))
    except StoppedBenchError as error:
        stopped, result = error, error.done
    if as_json():
        print_json(show.bench_json(result))
    else:
        show.bench(result)
    if stopped is not None:
        raise stopped
    show.require_all(len(result.boards), result.errors)
