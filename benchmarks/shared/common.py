"""What the benchmark scripts share: arguments, printed tables, facts of the machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def add_data_argument(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """`--data DIR`, or the environment's SHRINKC_DATA."""
    default = os.environ.get("SHRINKC_DATA")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(default) if default else None,
        required=required and default is None,
        help="folder with weights/ and images/ (default: SHRINKC_DATA)",
    )


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Markdown, columns aligned."""
    print(markdown_table(header, rows))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in (header, ["-" * w for w in widths], *rows)
    ]
    return "\n".join(lines)


def median_iqr(values: Sequence[float]) -> tuple[float, float]:
    """Median and interquartile range."""
    low, _, high = quantiles(values, n=4)
    return median(values), high - low


def deviation(values: Sequence[float]) -> str:
    """ " ± s", the standard deviation, where there are several."""
    return f" ± {stdev(values):.2f}" if len(values) > 1 else ""


def environment(*packages: str) -> dict[str, Any]:
    """Where and with what a result was measured."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "commit": commit,
        "date": date.today().isoformat(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "packages": {package: metadata.version(package) for package in packages},
    }


def cpu_name() -> str:
    """As Linux names it, else as Python does."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def peak_megabytes(ru_maxrss: int) -> float:
    """Megabytes (1e6 bytes) of a resource usage, which counts KiB on Linux and bytes on macOS."""
    return ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def replace_json(path: Path, content: Any) -> None:
    """Written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)
