"""`shrinkc.bench`: model files timed on a device."""

from __future__ import annotations

import os

from shrinkc.compiler.devices.jobs import Setup
from shrinkc.compiler.devices.parse import parse_device
from shrinkc.compiler.measure.device import Bench, bench_files
from shrinkc.compiler.support.checks import check_number, check_whole, path_of
from shrinkc.compiler.support.progress import Progress, shown_by
from shrinkc.errors import InputError

MOST_FILES = 2  # whose ratio is taken run by run


def bench(
    *files: str | os.PathLike[str],
    on: str = "host",
    threads: int = 1,
    runs: int = 50,
    benchmark_model: str | None = None,
    timeout_s: float = 120.0,
    progress: Progress | bool = False,
) -> Bench:
    """Time one file, or two in turns.

    Args:
        files: .onnx or .tflite files.
        on: "host", "ssh://user@host[:port]", "adb:SERIAL", or "cuda".
        threads: of the runtime.
        runs: timed runs of each file.
        benchmark_model: TFLite's benchmark_model, for adb.
        timeout_s: seconds without a word after which the device counts as hung.
        progress: True shows a bar on stderr.

    Returns:
        Median and interquartile range in ms, peak memory in bytes, whether the device computes what
        is computed here (`agreement`), and with two files their ratio, run by run.

    Raises:
        InputError: no file, or more than two; runs or threads below 1.
        LoadError: what is no model file.
        DeviceError: the device cannot be reached, or cannot run a file.
    """
    if not 1 <= len(files) <= MOST_FILES:
        raise InputError(f"`files` are {len(files)}; give one or two")
    check_whole("runs", runs, 1)
    check_whole("threads", threads, 1)
    check_number("timeout_s", timeout_s, above=True)
    paths = [path_of("files", file) for file in files]
    device = parse_device(on, benchmark_model)
    text = f"Timing {' and '.join(path.name for path in paths)} on {device.name}"
    with shown_by(progress).task(text):
        return bench_files(device, paths, Setup("", threads, timeout_s), runs)
