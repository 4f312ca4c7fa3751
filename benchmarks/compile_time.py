"""How long the `shrinkc` command takes on MobileNetV2 for rpi4, and how much memory.

    python -m benchmarks.compile_time --data DIR
    python -m benchmarks.compile_time --data DIR --images     # verified on the 400 images

Wall and CPU time from process start to end, verification and the timing of the files included, and
the largest resident memory; --repeat times, the median. CPU time is what stays comparable on a
machine that others use too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.shared import results
from benchmarks.shared.common import ROOT, add_data_argument, peak_megabytes, print_table
from benchmarks.shared.mobilenet_v2 import IMAGES, write_classes, write_model


@dataclass(frozen=True)
class Run:
    """One run of the command: wall and CPU seconds, largest resident memory in 1e6 bytes."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def run(command: list[str]) -> Run:
    """Run the command to its end."""
    start = time.perf_counter()
    done = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(done.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"exit code {os.waitstatus_to_exitcode(status)}: {' '.join(command)}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Run(round(seconds, 2), round(cpu_seconds, 2), round(peak_megabytes(usage.ru_maxrss)))


def shrinkc_command(data: Path, folder: Path, images: bool) -> list[str]:
    """MobileNetV2 for rpi4; everything it reads is written to `folder` first."""
    model = write_model(data, folder)
    command = [str(Path(sys.executable).parent / "shrinkc"), str(model)]
    command += ["--arch", "benchmarks.shared.mobilenet_v2:mobilenet_v2", "--target", "rpi4"]
    command += ["--input", "1,3,224,224", "-o", str(folder / "out")]
    if images:
        validation = data / IMAGES / "validation"
        write_classes(validation, folder / "classes.json")
        command += ["--images", str(validation), "--classes", str(folder / "classes.json")]
        command += ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
    return command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--images", action="store_true", help="verify on the validation images")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = shrinkc_command(arguments.data.resolve(), Path(folder), arguments.images)
        runs = [run(command) for _ in range(arguments.repeat)]
    what = "400 images" if arguments.images else "random input"
    print_table(
        ("MobileNetV2 for rpi4", "wall s", "CPU s", "MB at most"),
        [
            (
                f"verified on {what}",
                f"{median(r.seconds for r in runs):.1f}",
                f"{median(r.cpu_seconds for r in runs):.1f}",
                f"{max(r.peak_mb for r in runs):.0f}",
            )
        ],
    )
    results.write(
        results.result_path("compile_time_images" if arguments.images else "compile_time"),
        "compile_time",
        [asdict(one) for one in runs],
        ("torch", "onnx", "onnxruntime", "ai-edge-litert"),
        settings={"verified_on": what},
    )


if __name__ == "__main__":
    main()
