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

import torch
from torch import Tensor, nn

from benchmarks.common import ROOT, environment, peak_megabytes, print_table, write_results
from benchmarks.models import randomise

SIZES = (250, 500, 1000)
CHANNELS, HIDDEN, SIDE = 64, 32, 16


def _conv_bn(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class Bottleneck(nn.Module):
    """Three convolutions and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv_bn(CHANNELS, HIDDEN, 1),
            nn.ReLU(),
            *_conv_bn(HIDDEN, HIDDEN, 3),
            nn.ReLU(),
            *_conv_bn(HIDDEN, CHANNELS, 1),
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.body(x))


class Parallel(nn.Module):
    """Two convolutions and a batch norm side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(*_conv_bn(CHANNELS, CHANNELS, 3))
        self.narrow = nn.Sequential(*_conv_bn(CHANNELS, CHANNELS, 1))
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


def measure(convolutions: int) -> dict[str, float]:
    """Seconds of every step, and the process's largest resident memory."""
    from shrinkc.compiler.capture import capture
    from shrinkc.compiler.export.lower import lower
    from shrinkc.compiler.export.onnx import write_onnx
    from shrinkc.compiler.export.tflite import write_tflite
    from shrinkc.compiler.pipeline import run_exact_passes
    from shrinkc.passes.fold_batch_norm import FoldBatchNorm
    from shrinkc.passes.merge_linear import MergeLinear
    from shrinkc.passes.simplify import Simplify

    torch.set_num_threads(1)
    model = deep_residual(convolutions)
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    graph = capture(model, (torch.randn(1, 3, SIDE, SIDE),))
    seconds["capture"] = time.perf_counter() - start
    graph, steps = run_exact_passes(graph, (Simplify(), FoldBatchNorm(), MergeLinear()))
    seconds |= {step.name: step.seconds for step in steps}
    for name, step in (("lower", lower), ("onnx", write_onnx), ("tflite", write_tflite)):
        begun = time.perf_counter()
        if name == "lower":
            program = step(graph)
        else:
            step(program)
        seconds[name] = time.perf_counter() - begun
    seconds["total"] = time.perf_counter() - start
    peak = peak_megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return {"convolutions": convolutions, "peak_megabytes": peak, **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", type=int, help="measure this many convolutions and print JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    rows: list[dict[str, float]] = []
    for size in SIZES:
        command = [sys.executable, "-m", "benchmarks.scaling", "--one", str(size)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        rows.append({k: round(v, 3) for k, v in json.loads(done.stdout).items()})
    steps = [name for name in rows[0] if name not in ("convolutions", "peak_megabytes", "total")]
    print_table(
        ("convolutions", *(f"{step} s" for step in steps), "total s", "ms per conv", "peak MB"),
        [
            (
                f"{row['convolutions']:.0f}",
                *(f"{row[step]:.1f}" for step in steps),
                f"{row['total']:.1f}",
                f"{1000 * row['total'] / row['convolutions']:.1f}",
                f"{row['peak_megabytes']:.0f}",
            )
            for row in rows
        ],
    )
    write_results("scaling", {"environment": environment("torch", "onnx"), "results": rows})


if __name__ == "__main__":
    main()
