"""Does a pruned network become as fast as was asked for?

    python -m benchmarks.prune_speed [--networks mobilenetv2_w1,resnet50,vgg16] [--speedup 1.5]

Needs benchmarks/requirements-coverage.txt. Random weights, L1 norms, `host`: widths by this
machine's operators (TFLite, one thread), corrected by timing whole files, as `shrinkc prune
--target host` does. Afterwards the files are timed anew, in turns, in rounds that load both again:
the median of the rounds' ratios, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any

import torch

from benchmarks.shared import results
from benchmarks.shared.common import ROOT, print_table
from benchmarks.shared.models import Architecture, build
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.measure.speedup import host_file, measuring, speedup_of
from shrinkc.compiler.pipeline.deployed import network
from shrinkc.compiler.profile.host_table import HostTable
from shrinkc.compiler.width.prune import prune
from shrinkc.passes.criteria.magnitude import FilterNorm

CACHE = ROOT / "out" / "host"
ROUNDS = 5
SHAPE = (3, 224, 224)


def measure(name: str, speedup: float) -> dict[str, Any]:
    graph = capture(build(Architecture("pytorchcv", name, SHAPE, 0)), (torch.randn(1, *SHAPE),))
    folded, table = network(graph).folded, HostTable(cache=CACHE)
    started = time.monotonic()
    before_ms = predicted_ms(folded, table, "fp32")
    result = prune(
        *(graph, table, "fp32", FilterNorm(1), Goal.speedup(speedup)),
        measured_ms=measuring(folded, before_ms, "fp32", ()),
    )
    seconds = time.monotonic() - started
    files = [host_file(g, "fp32", ()) for g in (result.original, result.graph_module)]
    ratios = sorted(speedup_of(*files) for _ in range(ROUNDS))
    return {
        "network": name,
        "asked_speedup": speedup,
        "table_speedup": result.speedup,
        "speedup": median(ratios),
        "rounds_speedup": ratios,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="mobilenetv2_w1,resnet50,vgg16")
    parser.add_argument("--speedup", type=float, default=1.5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = [measure(name, arguments.speedup) for name in arguments.networks.split(",")]
    anew, path = {row["network"] for row in found}, results.result_path("prune_speed")
    rows = [row for row in results.earlier_rows(path) if row["network"] not in anew] + found
    results.write(path, "prune_speed", rows, ("ai-edge-litert",))
    print_table(
        ("network", "asked", "table", "measured", "rounds", "s"),
        [
            (
                row["network"],
                f"{row['asked_speedup']:g}×",
                f"{row['table_speedup']:.2f}×",
                f"{row['speedup']:.2f}×",
                f"{row['rounds_speedup'][0]:.2f}–{row['rounds_speedup'][-1]:.2f}",
                f"{row['seconds']:.0f}",
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
