"""One plan for depth, width and precision against each of the three alone, on CIFAR-10.

    python -m benchmarks.plan_cifar --data DIR [--speedups 1.5,2,3] [--seeds 1]

The network is that of benchmarks.shared.cifar, in TFLite on this machine, one thread. Speedups are
measured over its fp32 file, both files in turns. The same planner chooses everything, fits it to
the same 1,000 images without labels, and gives it the same three epochs of self-distillation with
labels. "depth" may merge and drop blocks, "width" may narrow them and what they pass on, both in
fp32; "int8" only quantises; "joint" may do all three. Top-1 is that of the file on the 10,000 test
images. Every result is kept in out/plan_cifar, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import fx

from benchmarks.cifar_depth import recipe
from benchmarks.plan import file_of
from benchmarks.prune_accuracy import Row, kept, points
from benchmarks.shared import cifar, results
from benchmarks.shared.common import ROOT, add_data_argument, deviation, print_table
from shrinkc.compiler.depth.closed_form import ClosedForm
from shrinkc.compiler.measure.speedup import host_file, speedup_of
from shrinkc.compiler.plan.planner import Planner, Planning, prepare_planning
from shrinkc.compiler.profile.host_table import HostTable
from shrinkc.compiler.recover.retrain import retrain
from shrinkc.compiler.support.progress import Terminal

OUT = ROOT / "out" / "plan_cifar"
LOOKED = 1000


@dataclass(frozen=True)
class Moves:
    """What the planner may do."""

    kinds: tuple[Any, ...]
    precisions: tuple[str, ...]
    groups: bool


MOVES = {
    "joint": Moves(ClosedForm().kinds, ("fp32", "int8"), True),
    "depth": Moves(("merge", "drop"), ("fp32",), False),
    "width": Moves(("narrow",), ("fp32",), True),
    "int8": Moves((), ("int8",), False),
}


def planner(data: Path, moves: Moves, seed: int) -> Planner:
    model, _ = cifar.trained(data)
    graph = cifar.captured(model)
    seen, _ = cifar.images(data)
    order = torch.randperm(len(seen), generator=torch.Generator().manual_seed(seed))

    def train(fitted: fx.GraphModule, original: fx.GraphModule) -> fx.GraphModule:
        folder = OUT / "training"
        return retrain(fitted, original, seen, recipe(seed), folder, Terminal())

    return prepare_planning(
        graph,
        replace(seen.part(order[:LOOKED]), labels=None),
        HostTable(cache=OUT / "host"),
        Planning(
            moves.precisions,
            ClosedForm(cache=OUT / "damages", kinds=moves.kinds),
            groups=moves.groups,
        ),
        train=train,
        progress=Terminal(),
    )


def point(data: Path, name: str, speedup: float, seed: int) -> Row:
    started = time.monotonic()
    plans = planner(data, MOVES[name], seed)
    planned = plans.within(plans.before_ms / speedup)
    plan, seconds = planned.plan, time.monotonic() - started
    _, test = cifar.images(data)
    after = file_of(plans, planned)
    return {
        "precision": plan.precision,
        "steps": len(plan.steps),
        "speedup": speedup_of(host_file(plans.original, "fp32", ()), after),
        "original_top1": cifar.top1_of_file(host_file(plans.original, "fp32", ()), test),
        "top1": cifar.top1_of_file(after, test),
        **({"promised_drop": plan.promise.drop} if plan.promise else {}),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--speedups", default="1.5,2,3")
    parser.add_argument("--moves", default=",".join(MOVES))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for seed in range(arguments.seeds):
        for speedup in map(float, arguments.speedups.split(",")):
            for name in arguments.moves.split(","):
                told = {"moves": name, "asked_speedup": speedup, "seed": seed}
                row = kept(
                    f"{name}-{speedup:g}-{seed}",
                    told,
                    lambda n=name, s=speedup, k=seed: point(arguments.data, n, s, k),
                    OUT / "points",
                )
                print(row, flush=True)
        packages = ("torch", "ai-edge-litert", "ai-edge-quantizer")
        path = results.result_path("plan_cifar")
        results.write(path, "plan_cifar", points(OUT / "points"), packages)
    show(points(OUT / "points"))


def show(rows: list[Row]) -> None:
    shown: list[tuple[str, ...]] = []
    for asked, name in dict.fromkeys((r["asked_speedup"], r["moves"]) for r in rows):
        same = [r for r in rows if (r["asked_speedup"], r["moves"]) == (asked, name)]
        reached = [r for r in same if "top1" in r]
        if not reached:
            shown.append((f"{asked:g}×", name, "", "", "out of reach"))
            continue
        top1 = [100 * r["top1"] for r in reached]
        cells = (reached[0]["precision"], f"{mean(r['speedup'] for r in reached):.2f}×")
        shown.append((f"{asked:g}×", name, *cells, f"{mean(top1):.2f}{deviation(top1)}"))
    print_table(("asked", "moves", "precision", "measured", "top-1"), shown)


if __name__ == "__main__":
    main()
