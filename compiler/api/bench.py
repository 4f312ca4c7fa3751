"""`shrinkc.bench`: model files timed on a device, or on the boards of a fleet."""

from __future__ import annotations

import os
from typing import overload

from shrinkc.compiler.devices.fleet.file import read_fleet
from shrinkc.compiler.devices.jobs import Setup
from shrinkc.compiler.devices.parse import parse_device
from shrinkc.compiler.measure.device import Bench, bench_files
from shrinkc.compiler.measure.fleet import FleetBench, bench_fleet
from shrinkc.compiler.support.checks import check_number, check_whole, path_of
from shrinkc.compiler.support.choices import HOST
from shrinkc.compiler.support.progress import Progress, shown_by
from shrinkc.errors import InputError

MOST_FILES = 2  # whose ratio is taken run by run
FileName = str | os.PathLike[str]


@overload
def bench(
    *files: FileName,
    on: str | None = None,
    fleet: None = None,
    threads: int = 1,
    runs: int = 50,
    benchmark_model: str | None = None,
    timeout_s: float = 120.0,
    progress: Progress | bool = False,
) -> Bench: ...
@overload
def bench(
    *files: FileName,
    on: None = None,
    fleet: FileName,
    threads: int = 1,
    runs: int = 50,
    benchmark_model: str | None = None,
    timeout_s: float = 120.0,
    progress: Progress | bool = False,
) -> FleetBench: ...


def bench(
    *files: FileName,
    on: str | None = None,
    fleet: FileName | None = None,
    threads: int = 1,
    runs: int = 50,
    benchmark_model: str | None = None,
    timeout_s: float = 120.0,
    progress: Progress | bool = False,
) -> Bench | FleetBench:
    """Time one file, or two in turns.

    Args:
        files: .onnx or .tflite files.
        on: "host", "ssh://user@host[:port]", "adb:SERIAL", or "cuda". Default: host.
        fleet: a file that lists boards, in place of `on`; they are timed side by side.
        threads: of the runtime, where the fleet's file says nothing.
        runs: timed runs of each file.
        benchmark_model: TFLite's benchmark_model, for adb.
        timeout_s: seconds without a word after which the device counts as hung.
        progress: True shows a bar on stderr.

    Returns:
        Median and interquartile range in ms, peak memory in bytes, whether the device computes what
        is computed here (`agreement`), and with two files their ratio, run by run. Of a fleet for
        every board that, or its error, and `differences` within a kind.

    Raises:
        InputError: no file, or more than two; runs or threads below 1; what a fleet cannot be.
        LoadError: what is no model file; a fleet's file that cannot be read.
        DeviceError: the device cannot be reached, or cannot run a file.
    """
    if not 1 <= len(files) <= MOST_FILES:
        raise InputError(f"`files` are {len(files)}; give one or two")
    check_whole("runs", runs, 1)
    check_whole("threads", threads, 1)
    check_number("timeout_s", timeout_s, above=True)
    paths = [path_of("files", file) for file in files]
    setup, shown = Setup("", threads, timeout_s), shown_by(progress)
    if fleet is not None:
        if on is not None:
            raise InputError("`on` beside `fleet`: the file lists the devices; give one of the two")
        boards = read_fleet(path_of("fleet", fleet), benchmark_model)
        return bench_fleet(boards, paths, setup, runs, shown)
    device = parse_device(HOST if on is None else on, benchmark_model)
    text = f"Timing {' and '.join(path.name for path in paths)} on {device.name}"
    with shown.task(text):
        return bench_files(device, paths, setup, runs)
