"""ResNet-56 on CIFAR-10 pruned by every criterion, with the same short fine-tuning each.

    python -m benchmarks.prune_cifar --data DIR [--venvs VENVS] [--seeds 1] [--goals macs,speed]

The published weights saw the original pictures; they are first fine-tuned on the JPEG copy (one
epoch), which gives the base. Every criterion is asked for half the MACs, and for a file measured to
be 1.5 times as fast here (TFLite, fp32, one thread). Data-driven criteria look at 1,000 training
pictures. All, Torch-Pruning's networks too, get the same fine-tuning: one epoch of 10,000 training
pictures, labels and self-distillation from the base, and are judged on the 10,000 test pictures.
Penalties (Slimming, SSL) would be a training of their own and are left out. With --venvs
Torch-Pruning is beside them: of its networks at ratios from 2 to 80 % the nearest to the goal.
"from-scratch" trains the shape that L1 ends in from random weights, on fifteen times as many
pictures. Every result is kept in out/prune_cifar; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from shrinkc.compiler.capture import capture
from shrinkc.compiler.costs import macs
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.host import HostTable
from shrinkc.compiler.measuring import measuring
from shrinkc.compiler.progress import Terminal
from shrinkc.compiler.prune.allocation import Allocation
from shrinkc.compiler.prune.compensate import compensate
from shrinkc.compiler.prune.goal import Goal
from shrinkc.compiler.prune.methods import METHODS, Given, comparable
from shrinkc.compiler.prune.prune import Pruning, prune
from shrinkc.compiler.prune_commands import batches_of
from shrinkc.compiler.shrink.budget import predicted_ms
from shrinkc.compiler.shrink.plan import network
from shrinkc.compiler.shrink.recipe import Recipe, school
from shrinkc.compiler.train.config import Keeping, Training
from shrinkc.compiler.train.evaluate import evaluate
from shrinkc.compiler.train.losses import Labels
from shrinkc.compiler.train.optimisers import Sgd
from shrinkc.compiler.train.pictures import Pictures
from shrinkc.compiler.train.schedules import OneCycle
from shrinkc.compiler.train.train import train
from shrinkc.passes.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.slice_channels import SliceChannels
from torch import fx, nn

from benchmarks import cifar
from benchmarks.common import ROOT, add_data_argument, environment, print_table, write_results
from benchmarks.converters import Peer
from benchmarks.prune_accuracy import Row, by_peer, kept, nearest, points
from benchmarks.resnet_cifar import SIZE, pretrained

OUT = ROOT / "out" / "prune_cifar"
POINTS = OUT / "points"
PEER = Peer("torch-pruning", "prune_resnet_cifar", "")
PEERS = ("l1", "l1-uniform", "group-norm", "group-norm-uniform")
OURS = (*METHODS, "l1 fitted", "group-fisher fitted")
GOALS = {"macs": Goal(macs=0.5), "speed": Goal(speedup=1.5)}
LOOKED, TUNED, BATCH = 1000, 10_000, 64
MULTIPLE = 4  # channels; layers have 16, 32 and 64
SCRATCH_EPOCHS, RATE = 3, 0.02


class Bench:
    """The network, its pictures, how to tune, measure and judge."""

    def __init__(self, data: Path) -> None:
        self.seen, self.test = cifar.pictures(data)
        self.weights = OUT / "base.pt"
        self.graph = capture(self._base(data), (torch.randn(1, 3, SIZE, SIZE),))
        self.folded = network(self.graph).folded
        self.macs = macs(lower(self.folded))
        self.table = HostTable(cache=OUT / "host")
        before_ms = predicted_ms(self.folded, self.table, "fp32")
        self.measured = measuring(self.folded, before_ms, "fp32", ())

    def _base(self, data: Path) -> nn.Module:
        """One epoch on these pictures."""
        model = pretrained(data)
        training = Training(1, 128, optimiser=Sgd(0.02), labels=Labels(), schedule=OneCycle())
        train(
            *(model, cifar.augmented(self.seen), training),
            keeping=Keeping(OUT / "base"),
            progress=Terminal(),
        )
        torch.save(model.state_dict(), self.weights)
        return model.eval()

    def few(self, count: int, seed: int) -> Pictures:
        """Training pictures by chance."""
        order = torch.randperm(len(self.seen), generator=torch.Generator().manual_seed(seed))
        rows, labels = order[:count], self.seen.labels
        assert labels is not None
        return replace(self.seen, pixels=self.seen.pixels[rows], labels=labels[rows])

    def tuned(self, graph: fx.GraphModule, seed: int) -> Row:
        """Fine-tuned like all others, in place, judged before and after."""
        before = evaluate(graph.eval(), self.test).top1
        recipe = Recipe(epochs=1, batch=BATCH, learning_rate=RATE, seed=seed)
        schooled = school(
            *(self.few(TUNED, seed), network(self.graph).graph, recipe),
            *(None, "", Terminal()),
        )
        schooled.fit(graph.train(), "fine-tuning", 1)
        return self.judged(graph.eval()) | {"untrained": before}

    def judged(self, graph: fx.GraphModule) -> Row:
        folded = deployed(graph)
        return {
            "top1": evaluate(folded, self.test).top1,
            "macs": macs(lower(folded)) / self.macs,
            "speedup": self.measured.speedup(folded),
        }


def deployed(graph: fx.GraphModule) -> fx.GraphModule:
    return FoldBatchNorm()(graph).graph_module.float()


@dataclass(frozen=True, eq=False)
class Point:
    """One criterion, goal and seed."""

    bench: Bench
    name: str
    goal: str
    seed: int

    def pruned(self) -> fx.GraphModule:
        bench, goal = self.bench, GOALS[self.goal]
        name, _, fitted = self.name.partition(" ")
        method, looked = METHODS[name], bench.few(LOOKED, self.seed)
        batches = batches_of(looked)
        fit = None
        if fitted or method.compensates:

            def fit(graph: fx.GraphModule, _: Any, selection: Any) -> Any:
                return compensate(graph, SliceChannels(selection), batches).selection

        allocation = comparable(Allocation(multiple=MULTIPLE), method)
        return prune(
            *(bench.graph, bench.table, "fp32"),
            *(method.build(Given(batches, self.seed, by_cost=True)), goal),
            options=Pruning(allocation),
            seen=f"{name} {self.seed}",
            compensate=fit,
            measured_ms=bench.measured if goal.unit == "ms" else None,
            folder=OUT / "scores",
        ).trainable

    def row(self) -> Row:
        started = time.monotonic()
        graph = self.pruned()
        seconds = time.monotonic() - started
        return self.bench.tuned(graph, self.seed) | {"seconds": seconds}

    def from_scratch(self) -> Row:
        """The shape of L1's network."""
        graph = replace(self, name="l1").pruned()
        torch.manual_seed(self.seed)
        for module in graph.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                module.reset_parameters()
        train(
            *(graph.train(), cifar.augmented(self.bench.seen)),
            cifar.recipe(SCRATCH_EPOCHS, self.seed),
            progress=Terminal(),
        )
        return self.bench.judged(graph.eval())

    def peers(self, venvs: Path) -> Row:
        """Torch-Pruning's."""
        bench, folder = self.bench, OUT / PEER.name / self.name
        by_peer(PEER, venvs, folder, str(bench.weights), self.name)

        def captured(model: nn.Module) -> fx.GraphModule:
            return capture(model.eval(), (torch.randn(1, 3, SIZE, SIZE),))

        def cost(model: nn.Module) -> float:
            folded = deployed(captured(model))
            if self.goal == "macs":
                return macs(lower(folded)) / bench.macs
            return 1 / bench.measured.speedup(folded)

        wanted = GOALS[self.goal].macs or 1 / (GOALS[self.goal].speedup or 1)
        return bench.tuned(captured(nearest(folder, cost, wanted)), self.seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--venvs", type=Path, help="of the peer")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--goals", default=",".join(GOALS))
    parser.add_argument("--criteria", default=",".join((*OURS, "from-scratch")))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bench = Bench(arguments.data)
    base = evaluate(bench.folded, bench.test).top1
    for seed in range(arguments.seeds):
        for goal in arguments.goals.split(","):
            for name in arguments.criteria.split(","):
                scratch = name == "from-scratch"
                if scratch and seed:
                    continue
                point = Point(bench, name, goal, seed)
                keep(point, "ours", point.from_scratch if scratch else point.row)
            for name in arguments.peers.split(",") if arguments.venvs else ():
                point = Point(bench, name, goal, seed)
                keep(point, PEER.name, lambda p=point: p.peers(arguments.venvs))
            results = {"environment": environment("torch", "ai-edge-litert"), "base": base}
            write_results("prune_cifar", results | {"points": points(POINTS)})
    show(base or 0.0, points(POINTS))


def keep(point: Point, by: str, make: Any) -> None:
    told = {"by": by, "criterion": point.name, "goal": point.goal, "seed": point.seed}
    name = f"{by}-{point.name.replace(' ', '-')}-{point.goal}-{point.seed}"
    print(kept(name, told, make, POINTS), flush=True)


def show(base: float, rows: list[Row]) -> None:
    print(f"base: {base:.2%}")
    shown: list[tuple[str, ...]] = []
    for goal in GOALS:
        few = [row for row in rows if row["goal"] == goal]
        found: list[tuple[float, tuple[str, ...]]] = []
        for by, name in dict.fromkeys((r["by"], r["criterion"]) for r in few):
            same = [r for r in few if (r["by"], r["criterion"]) == (by, name)]
            top1 = [100 * r["top1"] for r in same]
            spread = f" ± {stdev(top1):.2f}" if len(top1) > 1 else ""
            untrained = [100 * r["untrained"] for r in same if "untrained" in r]
            cells = (
                goal,
                name if by == "ours" else f"{by} {name}",
                f"{mean(r['macs'] for r in same):.3f}",
                f"{mean(r['speedup'] for r in same):.2f}×",
                f"{mean(untrained):.2f}" if untrained else "",
                f"{mean(top1):.2f}{spread}",
            )
            found.append((mean(top1), cells))
        shown += [cells for _, cells in sorted(found, reverse=True)]
    print_table(("goal", "criterion", "MACs", "measured", "untrained", "top-1"), shown)


if __name__ == "__main__":
    main()
