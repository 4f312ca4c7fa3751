"""Cost against depth: residual networks of 250, 500 and 1,000 convolutions through the compiler.

    python -m benchmarks.scaling

Capture, every exact pass with its float64 verification, lowering and both writers; each size in a
process of its own, one thread. The networks alternate bottlenecks (1×1, 3×3, 1×1) and RepVGG blocks
(3×3 and 1×1 and identity in parallel, which merge), all with batch norm and a residual connection,
64 channels at 16×16. Linear growth: the seconds per convolution stay the same.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.shared import results
from benchmarks.shared.common import ROOT, peak_megabytes, print_table
from benchmarks.shared.models import randomise

SIZES = (250, 500, 1000)
CHANNELS, HIDDEN, SIDE = 64, 32, 16
BRANCH_SCALE = 0.1  # as training leaves deep networks; at 1 rounding grows with every block


def _conv_bn(inputs: int, outputs: int, kernel: int, scale: float = 1.0) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    norm = nn.BatchNorm2d(outputs)
    nn.init.constant_(norm.weight, scale)
    return [conv, norm]


class Bottleneck(nn.Module):
    """Three convolutions and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv_bn(CHANNELS, HIDDEN, 1),
            nn.ReLU(),
            *_conv_bn(HIDDEN, HIDDEN, 3),
            nn.ReLU(),
            *_conv_bn(HIDDEN, CHANNELS, 1, BRANCH_SCALE),
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.body(x))


class Parallel(nn.Module):
    """Two convolutions and a batch norm side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(*_conv_bn(CHANNELS, CHANNELS, 3, BRANCH_SCALE))
        self.narrow = nn.Sequential(*_conv_bn(CHANNELS, CHANNELS, 1, BRANCH_SCALE))
        self.identity = nn.BatchNorm2d(CHANNELS)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.wide(x) + self.narrow(x) + self.identity(x))


def deep_residual(convolutions: int) -> nn.Module:
    """Random weights; five convolutions are two blocks."""
    torch.manual_seed(0)
    blocks: list[nn.Module] = []
    for _ in range(convolutions // 5):
        blocks += [Bottleneck(), Parallel()]
    stem = nn.Conv2d(3, CHANNELS, 3, padding=1)
    model = nn.Sequential(
        stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10)
    )
    randomise(model, torch.randn(2, 3, SIDE, SIDE))
    return model


def measure(convolutions: int) -> dict[str, Any]:
    """Wall seconds of every step, CPU seconds in all, the process's largest resident memory."""
    from shrinkc.compiler.capture import capture
    from shrinkc.compiler.export.lower import lower
    from shrinkc.compiler.formats.registry import FORMATS
    from shrinkc.compiler.pipeline.deployed import BASE_PASSES
    from shrinkc.compiler.pipeline.run import run_exact_passes
    from shrinkc.passes.merge.merge_linear import MergeLinear

    torch.set_num_threads(1)
    model = deep_residual(convolutions)
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - begun

    cpu = time.process_time()
    with timed("total"):
        with timed("capture"):
            graph = capture(model, (torch.randn(1, 3, SIDE, SIDE),))
        graph, steps = run_exact_passes(graph, (*BASE_PASSES, MergeLinear()))
        seconds |= {step.name: step.seconds for step in steps}
        with timed("lower"):
            program = lower(graph)
        for form in FORMATS:
            with timed(form.name):
                form.encode(program)
    return {
        "convolutions": convolutions,
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "peak_mb": round(peak_megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss), 3),
        "seconds": round(seconds.pop("total"), 3),
        "stage_seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", type=int, help="measure this many convolutions and print JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    rows: list[results.Row] = []
    for size in SIZES:
        command = [sys.executable, "-m", "benchmarks.scaling", "--one", str(size)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout))
    steps = list(rows[0]["stage_seconds"])
    print_table(
        (
            "convolutions",
            *(f"{step} s" for step in steps),
            "total s",
            "CPU s",
            "CPU ms per conv",
            "peak MB",
        ),
        [
            (
                f"{row['convolutions']:.0f}",
                *(f"{row['stage_seconds'][step]:.1f}" for step in steps),
                f"{row['seconds']:.1f}",
                f"{row['cpu_seconds']:.1f}",
                f"{1000 * row['cpu_seconds'] / row['convolutions']:.1f}",
                f"{row['peak_mb']:.0f}",
            )
            for row in rows
        ],
    )
    results.write(results.result_path("scaling"), "scaling", rows, ("torch", "onnx"))


if __name__ == "__main__":
    main()
