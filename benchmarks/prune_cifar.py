"""ResNet-56 on CIFAR-10 pruned by every criterion, with the same short fine-tuning each.

    python -m benchmarks.prune_cifar --data DIR [--venvs VENVS] [--seeds 3] [--goals macs,speed]
    python -m benchmarks.prune_cifar --data DIR --stages tune --jobs 8    # on a machine with a GPU

The published weights were trained on the original images. They are first trained on the JPEG copy
for ten epochs, which gives the base. "slimming penalty" and "ssl penalty" start from bases that had
the method's penalty in these epochs. Every criterion is asked for half the MACs, and for a file
that is measured to be 1.5 times as fast here (TFLite, fp32, one thread). Data-driven criteria look
at 1,000 training images. "fitted" says that what is left is compensated on the same images,
"measured" that it is measured what every group may lose. With --venvs, Torch-Pruning is compared:
of its networks at ratios from 2 to 80%, the one that is nearest to the goal. All get the same
fine-tuning (shared/tuning_cifar.py) and are judged on the 10,000 test images. "from-scratch" trains
the shape that L1 ends in from random weights, for fifteen epochs. The stages are `base`, `prune`,
`measure` and `tune`. What they make is kept in out/prune_cifar, which can be carried to a machine
with a GPU and back, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import fx, nn

from benchmarks.converters import Peer
from benchmarks.prune_accuracy import Row, by_peer, nearest
from benchmarks.shared import cifar, results
from benchmarks.shared.common import (
    ROOT,
    add_data_argument,
    deviation,
    print_table,
    replace_json,
)
from benchmarks.shared.resnet_cifar import pretrained
from benchmarks.shared.tuning_cifar import Tuning, deployed, judged, tune
from shrinkc.compiler.api.steps.images import batches_of
from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.cost.keys import macs
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.measure.speedup import Measuring, measuring
from shrinkc.compiler.model_file.file import load_model_file, save_model
from shrinkc.compiler.pipeline.deployed import network
from shrinkc.compiler.profile.host_table import HostTable
from shrinkc.compiler.recover.compensate import compensate
from shrinkc.compiler.support.jobs import Job, run_jobs
from shrinkc.compiler.support.progress import Silent, Terminal
from shrinkc.compiler.train.settings.config import Hooks, Keeping, Training
from shrinkc.compiler.train.settings.optimisers import Sgd
from shrinkc.compiler.train.settings.schedules import OneCycle
from shrinkc.compiler.train.train import train
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.measured_damage import MeasuredDamage
from shrinkc.compiler.width.methods import NAMES, as_published, spec_of
from shrinkc.compiler.width.prune import Pruning, Stages, prune
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.spec import Given

OUT = ROOT / "out" / "prune_cifar"
STATE = OUT / "base.pt"  # for the peer
NETWORKS, TUNED = OUT / "networks", OUT / "tuned"
PEER = Peer("torch-pruning", "prune_cifar", "")
PEERS = ("l1", "l1-uniform", "group-norm", "group-norm-uniform")
FITTED = ("l1 fitted", "group-fisher fitted", "group-fisher fitted measured", "he measured")
PENALTIES = ("slimming penalty", "ssl penalty")
SCRATCH = "from-scratch"
SCORED = tuple(name for name in NAMES if not spec_of(name).learns)
OURS = (*SCORED, *FITTED, *PENALTIES, SCRATCH)
GOALS = {"macs": Goal.macs(0.5), "speed": Goal.speedup(1.5)}
LOOKED, MULTIPLE = 1000, 4  # images; channels, of which layers have 16, 32 and 64
BASE_EPOCHS, RATE, BATCH = 10, 0.02, 128
SCRATCH_EPOCHS = 15
STRENGTHS = {"slimming": 1e-5, "ssl": 1e-4}  # the authors' for ResNets, and the command's


def base_file(penalty: str = "") -> Path:
    return OUT / (f"base-{penalty}.safetensors" if penalty else "base.safetensors")


def train_base(data: Path, penalty: str) -> None:
    """The published weights on these images, with the penalty of a method."""
    model: nn.Module = pretrained(data)
    hooks = Hooks()
    if penalty:
        model = graph = cifar.captured(model)
        build = spec_of(penalty).penalty
        assert build is not None
        hooks = Hooks(penalty=build(graph, channel_groups(graph), STRENGTHS[penalty]))
    seen, _ = cifar.images(data)
    training = Training(BASE_EPOCHS, BATCH, optimiser=Sgd(RATE), schedule=OneCycle(), hooks=hooks)
    keeping = Keeping(OUT / f"training-{penalty or 'base'}")
    train(model.train(), cifar.augmented(seen), training, keeping=keeping, progress=Silent())
    if not penalty:
        torch.save(model.cpu().state_dict(), STATE)
    save_model(cifar.captured(model.cpu()), base_file(penalty), {})


class Bench:
    """The network, what criteria look at, how to measure."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.graph, _ = load_model_file(base_file())
        self.folded = network(self.graph).folded
        self.macs = macs(lower(self.folded))
        self.table = HostTable(cache=OUT / "host")

    @classmethod
    @cache
    def of(cls, data: Path) -> Bench:
        """One in each process."""
        return cls(data)

    @cached_property
    def measured(self) -> Measuring:
        before_ms = predicted_ms(self.folded, self.table, "fp32")
        return measuring(self.folded, before_ms, "fp32", ())

    def few(self, seed: int) -> Images:
        """Training images by chance."""
        seen, _ = cifar.images(self.data)
        order = torch.randperm(len(seen), generator=torch.Generator().manual_seed(seed))
        return seen.part(order[:LOOKED])


@dataclass(frozen=True)
class Point:
    """One criterion, or the peer's, goal and seed."""

    by: str
    name: str
    goal: str
    seed: int

    @property
    def file(self) -> str:
        return f"{self.by}-{self.name.replace(' ', '-')}-{self.goal}-{self.seed}"

    @property
    def network(self) -> Path:
        return NETWORKS / f"{self.file}.safetensors"

    @property
    def facts(self) -> Path:
        return NETWORKS / f"{self.file}.json"

    @property
    def tuned(self) -> Path:
        return TUNED / f"{self.file}.json"

    @property
    def tuning(self) -> Tuning:
        return Tuning(self.network, base_file(), self.tuned, self.seed)

    def row(self) -> Row:
        """All that is known by now."""
        known = {"by": self.by, "criterion": self.name, "goal": self.goal, "seed": self.seed}
        for path in (self.facts, self.tuned):
            known |= json.loads(path.read_text()) if path.exists() else {}
        return known


def make(data: Path, point: Point, venvs: Path | None) -> None:
    """The network before fine-tuning, and what is known of it but its speed."""
    started, bench = time.monotonic(), Bench.of(data)
    if point.by == PEER.name:
        assert venvs is not None
        graph = peers(bench, point, venvs)
    elif point.name == SCRATCH:
        graph = random_weights(pruned(bench, replace(point, name="l1")), point.seed)
    else:
        graph = pruned(bench, point)
    facts: Row = {"seconds": time.monotonic() - started, "macs": share_of_macs(bench, graph)}
    if point.name != SCRATCH:
        facts |= {"untrained_top1": judged(data, graph)}
    NETWORKS.mkdir(parents=True, exist_ok=True)
    save_model(graph, point.network, {})
    replace_json(point.facts, facts)


def measure(bench: Bench, point: Point) -> None:
    """How fast it is here."""
    graph, _ = load_model_file(point.network)
    facts = json.loads(point.facts.read_text())
    replace_json(point.facts, facts | {"speedup": bench.measured.speedup(deployed(graph))})


def share_of_macs(bench: Bench, graph: fx.GraphModule) -> float:
    return macs(lower(deployed(graph))) / bench.macs


def pruned(bench: Bench, point: Point) -> fx.GraphModule:
    name, *how = point.name.split()
    method, goal, looked = spec_of(name), GOALS[point.goal], bench.few(point.seed)
    batches = batches_of(looked, bench.graph)
    compensates = "fitted" in how or method.compensates

    def fit(graph: fx.GraphModule, _: Any, selection: Any) -> Any:
        return compensate(graph, SliceChannels(selection), batches).selection

    measured = "measured" if "measured" in how else None
    allocation = as_published(Allocation(multiple=MULTIPLE, normalise=measured), method)
    graph = bench.graph
    if "penalty" in how:
        graph, _ = load_model_file(base_file(name))
    seen = f"{name} {point.seed}"
    return prune(
        *(graph, bench.table, "fp32"),
        *(method.build(Given(batches, point.seed, by_cost=True)), goal),
        options=Pruning(allocation),
        seen=seen,
        stages=Stages(
            damage=MeasuredDamage(batches, compensates, seen, OUT / "scores"),
            compensate=fit if compensates else None,
        ),
        measured_ms=bench.measured if goal.unit == "ms" else None,
        folder=OUT / "scores",
    ).trainable


def random_weights(graph: fx.GraphModule, seed: int) -> fx.GraphModule:
    torch.manual_seed(seed)
    for module in graph.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.reset_parameters()
    return graph


def peers(bench: Bench, point: Point, venvs: Path) -> fx.GraphModule:
    """Torch-Pruning's."""
    folder = OUT / PEER.name / point.name
    by_peer(PEER, venvs, folder, "resnet56", str(STATE), point.name)

    def cost(model: nn.Module) -> float:
        if point.goal == "macs":
            return share_of_macs(bench, cifar.captured(model))
        return 1 / bench.measured.speedup(deployed(cifar.captured(model)))

    goal = GOALS[point.goal]
    return cifar.captured(
        nearest(folder, cost, goal.value if goal.kind == "macs" else 1 / goal.value)
    )


def scratch(data: Path, point: Point) -> Row:
    """Trained like a new network."""
    graph, _ = load_model_file(point.network)
    seen, _ = cifar.images(data)
    recipe = cifar.recipe(SCRATCH_EPOCHS, point.seed)
    keeping = Keeping(OUT / f"training-{point.file}")
    train(graph.train(), cifar.augmented(seen), recipe, keeping=keeping, progress=Silent())
    row = {"top1": judged(data, graph)}
    replace_json(point.tuned, row)
    return row


def tuned(data: Path, point: Point) -> Row:
    return scratch(data, point) if point.name == SCRATCH else tune(data, point.tuning)


def wanted(arguments: argparse.Namespace) -> Iterator[Point]:
    for seed in range(arguments.seeds):
        for goal in arguments.goals.split(","):
            for name in arguments.criteria.split(","):
                if name != SCRATCH or seed == 0:
                    yield Point("ours", name, goal, seed)
            for name in arguments.peers.split(","):
                yield Point(PEER.name, name, goal, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--venvs", type=Path, help="of the peer")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--goals", default=",".join(GOALS))
    parser.add_argument("--criteria", default=",".join(OURS))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--stages", default="base,prune,measure,tune")
    parser.add_argument("--jobs", type=int, default=1, help="networks side by side, but for timing")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data, stages = arguments.data, arguments.stages.split(",")
    if "base" in stages:
        cifar.images(data)  # decoded once
        missing = [name for name in ("", *STRENGTHS) if not base_file(name).exists()]
        jobs = [Job(f"base {name}", train_base, (data, name)) for name in missing]
        run_jobs(jobs, arguments.jobs, progress=Terminal(), text="Training bases")
    points = list(wanted(arguments))
    if "prune" in stages:
        missing = [p for p in points if not p.facts.exists()]
        missing = [p for p in missing if p.by == "ours" or arguments.venvs]
        for goal, jobs in (("macs", arguments.jobs), ("speed", 1)):  # one at a time is timed
            some = [p for p in missing if p.goal == goal]
            given = [Job(p.file, make, (data, p, arguments.venvs)) for p in some]
            run_jobs(given, jobs, progress=Terminal(), text="Pruning")
    if "measure" in stages:
        for point in points:
            if point.network.exists() and "speedup" not in point.row():
                measure(Bench.of(data), point)
    if "tune" in stages:
        ready = [p for p in points if p.network.exists() and not p.tuned.exists()]
        jobs = [Job(point.file, tuned, (data, point)) for point in ready]
        run_jobs(jobs, arguments.jobs, progress=Terminal(), text="Fine-tuning")
    rows = [point.row() for point in points if point.facts.exists()]
    graph, _ = load_model_file(base_file())
    base = judged(data, graph)
    packages, path = ("torch", "ai-edge-litert"), results.result_path("prune_cifar")
    results.write(path, "prune_cifar", rows, packages, original={"top1": base})
    show(base, [row for row in rows if "top1" in row])


def show(base: float, rows: list[Row]) -> None:
    print(f"base: {base:.2%}")
    shown: list[tuple[str, ...]] = []
    for goal in GOALS:
        few = [row for row in rows if row["goal"] == goal]
        found: list[tuple[float, tuple[str, ...]]] = []
        for by, name in dict.fromkeys((r["by"], r["criterion"]) for r in few):
            same = [r for r in few if (r["by"], r["criterion"]) == (by, name)]
            top1 = [100 * r["top1"] for r in same]
            speedups = [r["speedup"] for r in same if "speedup" in r]
            untrained = [100 * r["untrained_top1"] for r in same if "untrained_top1" in r]
            cells = (
                goal,
                name if by == "ours" else f"{by} {name}",
                f"{mean(r['macs'] for r in same):.3f}",
                f"{mean(speedups):.2f}×" if speedups else "",
                f"{mean(untrained):.2f}" if untrained else "",
                f"{mean(top1):.2f}{deviation(top1)}",
            )
            found.append((mean(top1), cells))
        shown += [cells for _, cells in sorted(found, reverse=True)]
    print_table(("goal", "criterion", "MACs", "measured", "untrained", "top-1"), shown)


if __name__ == "__main__":
    main()
