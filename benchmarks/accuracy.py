"""Top-1 of MobileNetV2 on the 400 validation images: PyTorch, ONNX and TFLite, fp32 and int8.

    python -m benchmarks.accuracy --data DIR

Runs the `shrinkc` command twice; int8 is calibrated on the 300 calibration images, which are not
among those judged.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.compile_time import shrinkc_command
from benchmarks.shared import results
from benchmarks.shared.common import ROOT, add_data_argument, print_table
from benchmarks.shared.mobilenet_v2 import IMAGES


def reports(data: Path) -> dict[str, dict[str, Any]]:
    """Precision → the compilation's report."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        command = shrinkc_command(data, Path(folder), images=True)
        int8 = ["--precision", "int8", "--calibration", str(data / IMAGES / "calibration")]
        for precision, options in (("fp32", []), ("int8", int8)):
            done = subprocess.run(
                [*command, *options, "--json"], cwd=ROOT, stdout=subprocess.PIPE, check=False
            )
            if done.returncode:
                sys.exit(done.returncode)
            found[precision] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for precision, report in reports(arguments.data.resolve()).items():
        if not rows:
            rows.append({"file": "PyTorch", "precision": "fp32", "top1": report["original_top1"]})
        rows += [
            {"precision": precision, **{key: one[key] for key in _KEPT}}
            for one in report["artefacts"]
        ]
    print_table(
        ("file", "precision", "top-1", "agrees", "bytes"),
        [
            (
                row["file"],
                row["precision"],
                f"{100 * row['top1']:.2f} %",
                f"{100 * row['agreement']:.2f} %" if "agreement" in row else "",
                f"{row['bytes']:,}" if "bytes" in row else "",
            )
            for row in rows
        ],
    )
    packages = ("torch", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer")
    results.write(results.result_path("accuracy"), "accuracy", rows, packages)


_KEPT = ("file", "top1", "agreement", "max_relative_error", "bytes")

if __name__ == "__main__":
    main()
