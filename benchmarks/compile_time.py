"""How long the `shrinkc` command takes on MobileNetV2 for rpi4, and how much memory.

    python -m benchmarks.compile_time --data DIR
    python -m benchmarks.compile_time --data DIR --images     # verified on the 400 pictures

Wall time from process start to end, verification included, and the largest resident memory of the
process or any of its children; --repeat times, the median and every run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.common import (
    ROOT,
    add_data_argument,
    environment,
    peak_megabytes,
    print_table,
    write_results,
)
from benchmarks.mobilenet_v2 import PICTURES, write_classes, write_model


def run(command: list[str]) -> tuple[float, float]:
    """Seconds and megabytes (1e6 bytes) of one run of the command."""
    start = time.perf_counter()
    done = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(done.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"exit code {os.waitstatus_to_exitcode(status)}: {' '.join(command)}")
    return seconds, peak_megabytes(usage.ru_maxrss)


def shrinkc_command(data: Path, folder: Path, images: bool) -> list[str]:
    """MobileNetV2 for rpi4; everything it reads is written to `folder` first."""
    model = write_model(data, folder)
    command = [str(Path(sys.executable).parent / "shrinkc"), str(model)]
    command += ["--arch", "benchmarks.mobilenet_v2:mobilenet_v2", "--target", "rpi4"]
    command += ["--input", "1,3,224,224", "-o", str(folder / "out")]
    if images:
        validation = data / PICTURES / "validation"
        write_classes(validation, folder / "classes.json")
        command += ["--images", str(validation), "--classes", str(folder / "classes.json")]
        command += ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
    return command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--images", action="store_true", help="verify on the validation pictures")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = shrinkc_command(arguments.data.resolve(), Path(folder), arguments.images)
        runs = [run(command) for _ in range(arguments.repeat)]
    seconds, megabytes = median(r[0] for r in runs), max(r[1] for r in runs)
    what = "400 pictures" if arguments.images else "random input"
    print_table(
        ("MobileNetV2 for rpi4", "seconds", "every run", "MB at most"),
        [(what, f"{seconds:.1f}", " ".join(f"{r[0]:.1f}" for r in runs), f"{megabytes:.0f}")],
    )
    write_results(
        "compile_time_images" if arguments.images else "compile_time",
        {
            "environment": environment("torch", "onnx", "onnxruntime", "ai-edge-litert"),
            "verified_on": what,
            "seconds": [round(r[0], 2) for r in runs],
            "peak_megabytes": [round(r[1]) for r in runs],
        },
    )


if __name__ == "__main__":
    main()
