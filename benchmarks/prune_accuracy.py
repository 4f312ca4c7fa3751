"""MobileNetV2-1.0 pruned without training and without labels: every criterion, side by side.

    python -m benchmarks.prune_accuracy --data DIR [--venvs VENVS] [--latencies 0.9,0.85,0.8,0.7]

Widths are chosen by this machine's operators (TFLite, fp32, one thread), and corrected until the
file is measured to take the share of the original's time that is asked for, or up to 2% less.
Criteria look at 300 images without labels (Group Fisher uses labels). Compensation fits the layers
that read pruned channels on the same images, and 200 steps of distillation on them may follow.
Top-1 is counted on 400 other images. With `:measured` behind a criterion, each group loses as many
channels as the outputs bear when it alone is pruned. With --venvs, Torch-Pruning's L1 and group
norm are compared: of its networks at ratios from 2 to 60%, the one that is nearest to the latency.
Every result is kept in out/prune_accuracy/points as soon as it is there, and all that is kept is
shown, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from benchmarks.closed_form import classes_of, judged
from benchmarks.converters import Peer, environment_of
from benchmarks.shared import results
from benchmarks.shared.common import ROOT, add_data_argument, print_table, replace_json
from benchmarks.shared.mobilenet_v2 import IMAGES, images, pretrained
from shrinkc.compiler.api.steps.images import batches_of
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.images.cache import load_images
from shrinkc.compiler.images.files import find_images
from shrinkc.compiler.images.preprocessing import preprocessing_for
from shrinkc.compiler.measure.speedup import measuring
from shrinkc.compiler.pipeline.deployed import BASE_PASSES
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.profile.host_table import HostTable
from shrinkc.compiler.recover.compensate import compensate
from shrinkc.compiler.recover.distil import Tuning
from shrinkc.compiler.support.progress import Terminal
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.distil import distilled
from shrinkc.compiler.width.measured_damage import MeasuredDamage
from shrinkc.compiler.width.methods import NAMES as CRITERION_NAMES
from shrinkc.compiler.width.methods import as_published, spec_of
from shrinkc.compiler.width.prune import Pruning, Stages, prune
from shrinkc.errors import InputError
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.shared.data import Batch
from shrinkc.passes.criteria.spec import Given

OUT = ROOT / "out" / "prune_accuracy"
POINTS = OUT / "points"
PEER = Peer("torch-pruning", "prune_mobilenet_v2", "")
NO_NORMS = ("slimming", "mseb")  # what needs batch norms, which the weights have not
NAMES = tuple(name for name in CRITERION_NAMES if name not in NO_NORMS)
MODES = ("plain", "fitted", "distilled")  # distilled: compensated, then
CRITERIA = (*NAMES, *(f"{name}:measured" for name in NAMES))
Row = dict[str, Any]


class Bench:
    """The network, its images, how to measure and judge."""

    def __init__(self, data: Path) -> None:
        self.captured = capture(pretrained(data), (torch.randn(1, 3, 224, 224),))
        self.folded = deployed(self.captured)
        self.table = HostTable(cache=OUT / "host")
        before_ms = predicted_ms(self.folded, self.table, "fp32")
        self.measured = measuring(self.folded, before_ms, "fp32", ())
        preprocessing = preprocessing_for((1, 3, 224, 224), mean=(0.5,), std=(0.5,))
        seen = load_images(find_images(data / IMAGES / "calibration"), preprocessing)
        self.seen = replace(seen, labels=None)
        self.labelled: list[Batch] = batches_of(seen, self.captured)
        self.unlabelled: list[Batch] = batches_of(self.seen, self.captured)
        self.views, self.labels = images(data / IMAGES / "validation")
        self.original: Tensor = classes_of(self.folded, self.views)

    def judged(self, graph: fx.GraphModule) -> Row:
        """Top-1, agreement and the measured latency, a share of the original's."""
        found = judged(classes_of(graph, self.views), self.original, self.labels)
        return {**found, "latency": 1 / self.measured.speedup(graph)}


def deployed(graph: fx.GraphModule) -> fx.GraphModule:
    return run_exact_passes(graph, BASE_PASSES)[0].float()


def pruned(bench: Bench, criterion: str, mode: str, latency: float) -> Row:
    """One point of ours."""
    compensated = mode != "plain"
    name, _, measured = criterion.partition(":")
    method, started = spec_of(name), time.monotonic()
    batches = bench.labelled if method.needs == "labels" else bench.unlabelled
    fit = None
    if compensated:

        def fit(graph: fx.GraphModule, _: Any, selection: Any) -> Any:
            return compensate(graph, SliceChannels(selection), bench.unlabelled).selection

    allocation = as_published(Allocation(normalise="measured" if measured else None), method)
    damage = MeasuredDamage(bench.unlabelled, compensated, name, OUT / "scores", Terminal())
    result = prune(
        *(bench.captured, bench.table, "fp32"),
        method.build(Given(batches, 0, by_cost=True)),
        Goal.speedup(1 / latency),
        options=Pruning(allocation),
        seen=name,
        stages=Stages(damage=damage, compensate=fit),
        measured_ms=bench.measured,
        folder=OUT / "scores",
    )
    if mode == "distilled":
        result = distilled(result, bench.seen, Tuning(), Terminal())
    return {**bench.judged(result.graph_module), "seconds": time.monotonic() - started}


def peers(bench: Bench, data: Path, venvs: Path, importance: str, latency: float) -> Row:
    """Torch-Pruning's network that is nearest to the latency."""
    folder = OUT / PEER.name / importance
    by_peer(PEER, venvs, folder, str(data), importance)

    def took(model: nn.Module) -> float:
        return 1 / bench.measured.speedup(deployed_peer(model))

    def deployed_peer(model: nn.Module) -> fx.GraphModule:
        return deployed(capture(model, (torch.randn(1, 3, 224, 224),)))

    return bench.judged(deployed_peer(nearest(folder, took, latency)))


def by_peer(peer: Peer, venvs: Path, folder: Path, *arguments: str) -> None:
    """The peer's networks, `RATIO.pt` each, made the first time."""
    if not folder.exists():
        python = environment_of(peer, venvs.resolve())
        partial = folder.with_name(f"{folder.name}.partial")
        command = [python, "-m", peer.module, *arguments, partial]
        subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
        partial.rename(folder)


def nearest(folder: Path, cost: Callable[[nn.Module], float], wanted: float) -> nn.Module:
    """Of networks whose cost falls with the ratio that they are named by, the one nearest to
    `wanted`, by halving."""
    networks = sorted(folder.glob("*.pt"), key=lambda path: int(path.stem))
    low, high = 0, len(networks) - 1
    best: tuple[float, nn.Module] | None = None
    while low <= high:
        middle = (low + high) // 2
        # a pickle that the peer has just written for us
        model = torch.load(networks[middle], weights_only=False).eval()
        off = cost(model) - wanted
        if best is None or abs(off) < best[0]:
            best = abs(off), model
        low, high = (middle + 1, high) if off > 0 else (low, middle - 1)
    assert best is not None
    return best[1]


def kept(name: str, told: Row, make: Callable[[], Row], folder: Path = POINTS) -> Row:
    """Made once, with what it was asked for."""
    path = folder / f"{name}.json"
    if not path.exists():
        try:
            row = make()
        except InputError as error:
            row = {"failure": str(error)}
        replace_json(path, told | row)
    return json.loads(path.read_text())


def points(folder: Path) -> list[Row]:
    """All that is kept."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--venvs", type=Path, help="of the peer")
    parser.add_argument("--latencies", default="0.9,0.85,0.8,0.7", help="shares of the original's")
    parser.add_argument("--criteria", default=",".join(CRITERIA))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bench = Bench(arguments.data)
    for latency in map(float, arguments.latencies.split(",")):
        for criterion in arguments.criteria.split(","):
            for mode in arguments.modes.split(","):
                name = f"{criterion.replace(':', '-')}-{mode}-{latency:g}"
                told = {"criterion": criterion, "mode": mode, "asked_latency": latency}
                kept(name, told, lambda c=criterion, m=mode, a=latency: pruned(bench, c, m, a))
        for importance in ("l1", "group-norm") if arguments.venvs else ():
            label = f"{PEER.name} {importance}"
            told = {"criterion": label, "mode": "plain", "asked_latency": latency}
            kept(
                f"{PEER.name}-{importance}-{latency:g}",
                told,
                lambda i=importance, a=latency: peers(bench, arguments.data, arguments.venvs, i, a),
            )
        base = judged(bench.original, bench.original, bench.labels)["top1"]
        packages = ("torch", "ai-edge-litert")
        path, rows = results.result_path("prune_accuracy"), points(POINTS)
        results.write(path, "prune_accuracy", rows, packages, original={"top1": base})
    _show(points(POINTS))


def _show(rows: list[Row]) -> None:
    print_table(
        ("asked", "criterion", "weights", "measured", "top-1", "agrees"),
        [
            (
                f"{row['asked_latency']:g}",
                row["criterion"],
                row["mode"],
                *(
                    (row["failure"], "", "")
                    if "failure" in row
                    else (f"{row['latency']:.3f}", f"{row['top1']:.2%}", f"{row['agreement']:.2%}")
                ),
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
