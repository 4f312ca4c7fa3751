"""What over-parameterised fine-tuning takes: parameters, CPU seconds and memory of a step.

    python -m benchmarks.chain_cost

Chains beside every convolution of ResNet-20 and of the inverted-residual net: the most that
`--chain-ratio` can put there. Batches of 64 images of 32×32, self-distillation as in every
fine-tuning. Each row in a process of its own, one thread.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.shared import results
from benchmarks.shared.cifar import SIZE, captured, ir_net
from benchmarks.shared.common import ROOT, peak_megabytes, print_table
from benchmarks.shared.resnet_cifar import ResNet

RATIOS = (0.0, 0.5, 1.0, 2.0)
BATCH, STEPS, WARM_UP = 64, 7, 2
PLAIN = "plain"


def resnet_20() -> nn.Module:
    return ResNet(3)


NETWORKS = {"ResNet-20": resnet_20, "inverted residuals": ir_net}


def measure(name: str, ratio: float) -> dict[str, Any]:
    """The median over steps; the process's largest resident memory."""
    from shrinkc.compiler.pipeline.deployed import network
    from shrinkc.compiler.recover.chains.over_parameterised import chainable, with_chains
    from shrinkc.compiler.train.settings.losses import kd_loss
    from shrinkc.passes.base import copy_graph

    torch.set_num_threads(1)
    torch.manual_seed(0)
    teacher = network(captured(NETWORKS[name]())).graph
    layers = chainable(teacher, ())
    student = with_chains(teacher, layers, ratio, 0) if ratio else copy_graph(teacher)
    student.train()
    optimiser = torch.optim.SGD(student.parameters(), 0.02, 0.9)
    seconds: list[float] = []
    for _ in range(WARM_UP + STEPS):
        x, begun = torch.randn(BATCH, 3, SIZE, SIZE), time.process_time()
        with torch.no_grad():
            wanted = teacher(x)[0]
        optimiser.zero_grad()
        kd_loss(student(x)[0], wanted, 4.0).backward()
        optimiser.step()
        seconds.append(time.process_time() - begun)
    return {
        "network": name,
        "settings": f"--chain-ratio {ratio:g}" if ratio else PLAIN,
        "parameters": sum(p.numel() for p in student.parameters()),
        "cpu_seconds": round(median(seconds[WARM_UP:]), 4),
        "peak_mb": round(peak_megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs=2, help="measure this network and ratio and print JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], float(arguments.one[1]))))
        return
    rows: list[results.Row] = []
    for name in NETWORKS:
        for ratio in RATIOS:
            command = [sys.executable, "-m", "benchmarks.chain_cost", "--one", name, str(ratio)]
            done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(json.loads(done.stdout))
    plain = {row["network"]: row for row in rows if row["settings"] == PLAIN}
    print_table(
        ("network", "settings", "parameters", "CPU seconds a step", "peak MB"),
        [
            (
                row["network"],
                row["settings"],
                *(
                    f"{row[key]:,} ({row[key] / plain[row['network']][key]:.1f}×)"
                    for key in ("parameters", "cpu_seconds", "peak_mb")
                ),
            )
            for row in rows
        ],
    )
    results.write(results.result_path("chain_cost"), "chain_cost", rows, ("torch",))


if __name__ == "__main__":
    main()
