"""Methods that shrink depth, side by side on CIFAR-10, at equal speedups and fine-tuning budgets.

    python -m benchmarks.cifar_depth --data DIR [--seeds 2] [--speedups 1.2,1.5,2] [--jobs 2]

The network is that of benchmarks.shared.cifar, with int8 files in TFLite on this machine, one
thread. Every method is asked for the same measured speedups: its plan is made by a table of
operators timed one by one here, and corrected until the file is as fast as asked for, or up to 3%
faster. Every method gets the same epochs of fine-tuning with the same recipe, and is judged on the
10,000 test images. Speedups compare int8 files with int8 files, interleaved. "uniform width" keeps
the same share of the channels of all layers, those with the largest L1 norms. "from scratch" trains
the network that two-stage DP ends in from random weights, for as many epochs as the base network
and the fine-tuning had together (at 1.5×, once). The closed form is also judged before any
training. Every result is kept in out/cifar as soon as it is there, so that a run that was stopped
goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from numpy import polyfit
from torch import fx, nn

from benchmarks.closed_form import HostOperators
from benchmarks.shared import cifar, results
from benchmarks.shared.common import (
    add_data_argument,
    deviation,
    print_table,
    replace_json,
)
from shrinkc.compiler.cost.budget import measured_within, predicted_ms, price_of
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.closed_form import ClosedForm, candidates, shrink_closed_form
from shrinkc.compiler.depth.options import depth_options
from shrinkc.compiler.depth.select import most, select
from shrinkc.compiler.depth.surgery import DepthPlan, finish, prepare, union
from shrinkc.compiler.depth.trained import (
    TRAINED_METHODS,
    TWO_STAGE_DP,
    Trained,
    TrainedMethod,
    common_activation,
    shrink_trained,
)
from shrinkc.compiler.formats.tflite import TfliteRunner
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.measure.bench import bench
from shrinkc.compiler.measure.speedup import Measuring, measuring, speedup_of
from shrinkc.compiler.pipeline.deployed import Network, network
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.recover.distil import Tuning
from shrinkc.compiler.recover.rebuild_span import Rebuilding
from shrinkc.compiler.recover.recipe import Recipe, trainer_for
from shrinkc.compiler.recover.retrain import retrain
from shrinkc.compiler.support.jobs import Job, run_jobs
from shrinkc.compiler.support.progress import Terminal
from shrinkc.compiler.train.evaluate import evaluate
from shrinkc.compiler.train.train import train
from shrinkc.errors import InputError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.table import OpEstimate
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import uniform
from shrinkc.passes.criteria.magnitude import FilterNorm
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm

PRECISION = "int8"
EPOCHS, SEARCH_EPOCHS, STEPS = 3, 1, 15
RATE = 0.05
MULTIPLE = 4  # channels of uniform widths
CONTROL = [1.5]  # speedups of the control from scratch
BY_PLAN = {method.name: method for method in TRAINED_METHODS}
METHODS = (*BY_PLAN, "closed-form", "uniform-width", "from-scratch")
KEPT = cifar.OUT / "depth"


@dataclass
class HostTable(HostOperators):
    """The operators of this machine. In a whole network of a tenth of a millisecond they cost a
    little less than alone, and the network itself costs something: a line through two networks."""

    line: Path = cifar.OUT / "line.json"

    def __post_init__(self) -> None:
        super().__post_init__()
        known = json.loads(self.line.read_text()) if self.line.exists() else {}
        self.factor, self.offset_ms = known.get("factor", 1.0), known.get("offset_ms", 0.0)

    def estimate(self, key: OpKey) -> OpEstimate:
        alone = super().estimate(key)
        return replace(alone, ms=alone.ms * self.factor)

    def network_overhead_ms(self, precision: str) -> float:
        return self.offset_ms

    def spread(self, precision: str, unlike_share: float) -> float | None:
        return None


def table() -> HostTable:
    return HostTable(cifar.OUT / "operators.json")


def time_whole(net: Network, seen: Images) -> None:
    """Ten networks, whole and by their operators, interleaved; the line that fits them best."""
    (cifar.OUT / "line.json").unlink(missing_ok=True)
    prices = table()
    graphs = [net.folded, *_samples(net, prices)]
    runs = [TfliteRunner(cifar.int8_file(graph, seen), 1) for graph in graphs]
    whole = [median(t.times_ms) for t in bench(runs, runs=1500, warmup=200, max_seconds=60)]
    alone = [predicted_ms(graph, prices, PRECISION) for graph in graphs]
    weights = [1 / ms for ms in whole]  # relative errors count
    factor, offset = polyfit(alone, whole, 1, w=weights)
    line = {"factor": float(factor), "offset_ms": float(offset), "whole": whole, "alone": alone}
    replace_json(prices.line, line)


def time_operators(net: Network) -> None:
    """All that any method may ask for, while nothing else runs."""
    prices = table()
    depth_options(net, price_of(prices, PRECISION), ("merge", "identity", "drop"))
    candidates(net.folded, prices, PRECISION)
    for graph in (net.folded, *(FoldBatchNorm()(g).graph_module for _, g in widths(net))):
        predicted_ms(graph, prices, PRECISION)


def _samples(net: Network, prices: CostTable) -> Iterator[fx.GraphModule]:
    """Networks that plans of every kind end in."""
    activation = common_activation(net.graph)
    for moves in (("merge",), ("drop",), ("merge", "identity", "drop")):
        found, _ = depth_options(net, price_of(prices, PRECISION), moves)
        priced = [o.priced(float(o.last - o.first)) for o in found]
        for share in (0.3, 0.6, 0.9):
            plan = union(found[i].plan for i in select(priced, share * most(priced)))
            yield finish(prepare(net.graph, plan, activation))


def recipe(seed: int) -> Recipe:
    return Recipe(
        epochs=EPOCHS, search_epochs=SEARCH_EPOCHS, steps=STEPS, learning_rate=RATE, seed=seed
    )


# --- methods: a network of a given predicted speed, without batch norms ---------------------------

Shrunk = tuple[fx.GraphModule, dict[str, Any]]


def by_plan(
    graph: fx.GraphModule, seen: Images, method: TrainedMethod, speedup: float, seed: int
) -> Shrunk:
    result = shrink_trained(
        *(graph, seen, table(), PRECISION, method, Goal.speedup(speedup)),
        options=Trained(recipe(seed)),
        folder=KEPT / "work" / f"{method.name}-{seed}",
        measured_ms=measured(network(graph).folded, seen),
    )
    return result.graph_module, {"options": [taken.option for taken in result.taken]}


def measured(original: fx.GraphModule, seen: Images) -> Measuring:
    before_ms = predicted_ms(original, table(), PRECISION)
    return measuring(original, before_ms, PRECISION, cifar.calibration(seen))


def closed_form(
    graph: fx.GraphModule, seen: Images, test: Images, speedup: float, seed: int
) -> Shrunk:
    """1,000 images without labels, then the same fine-tuning as the others."""
    original = network(graph).folded
    rows = torch.randperm(len(seen), generator=torch.Generator().manual_seed(seed))[:1000]
    few = replace(seen, pixels=seen.pixels[rows], labels=None)
    options = ClosedForm(tuning=Tuning(steps=0), cache=KEPT / "work" / "damages")
    draft = replace(options, rebuilding=Rebuilding(steps=0))
    measured_ms = measured(original, seen)
    budget = predicted_ms(original, table(), PRECISION) / speedup

    def asked(speedup: float, options: ClosedForm) -> fx.GraphModule:
        given = (original, few, table(), PRECISION)
        return shrink_closed_form(*given, Goal.speedup(speedup), options=options).graph_module

    _, ask = measured_within(  # the speedup to ask the table for
        lambda speedup: asked(speedup, draft), measured_ms, (1.01, speedup, 2 * speedup), budget
    )
    shrunk = asked(ask, options)
    untrained = evaluate(shrunk, test).top1
    folder = KEPT / "work" / f"closed-form-{seed}"
    model = retrain(shrunk, original, seen, recipe(seed), folder, Terminal())
    return model, {"untrained_top1": untrained}


def widths(net: Network) -> Iterator[tuple[float, fx.GraphModule]]:
    """Shares of the channels that stay, falling, and what is left."""
    groups = channel_groups(net.graph)
    scores = FilterNorm().scores(net.graph, groups)
    for percent in range(98, 20, -2):
        selection = uniform(groups, scores, percent / 100, MULTIPLE)
        yield percent / 100, SliceChannels(selection)(net.graph).graph_module


def uniform_width(graph: fx.GraphModule, seen: Images, speedup: float, seed: int) -> Shrunk:
    net = network(graph)
    measured_ms = measured(net.folded, seen)
    budget = predicted_ms(net.folded, table(), PRECISION) / speedup
    sizes = list(widths(net))
    low, high = 0, len(sizes) - 1
    while low < high:  # the widest that is measured within the budget
        middle = (low + high) // 2
        fits = measured_ms(FoldBatchNorm()(sizes[middle][1]).graph_module) <= budget
        low, high = (low, middle) if fits else (middle + 1, high)
    keep, narrow = sizes[low]
    trainer = trainer_for(
        seen,
        net.graph,
        recipe(seed),
        KEPT / "work" / f"uniform-{seed}",
        f"{speedup}",
        Terminal(),
    )
    trainer.fit(narrow.train(), "fine-tuning", EPOCHS)
    return run_exact_passes(narrow.eval(), (FoldBatchNorm(),))[0].float(), {"kept_channels": keep}


def from_scratch(graph: fx.GraphModule, seen: Images, speedup: float, seed: int) -> Shrunk:
    """Scratch-E of Liu et al. (2019): the shrunk network's shape, random weights, all epochs."""
    folder = KEPT / "work" / f"two-stage-dp-{seed}"
    found = shrink_trained(
        *(graph, seen, table(), PRECISION, TWO_STAGE_DP, Goal.speedup(speedup)),
        options=Trained(recipe(seed)),
        folder=folder,
    )
    net: Network = network(graph)
    plan: DepthPlan = found.plan
    prepared = prepare(net.graph, plan, common_activation(net.graph))
    torch.manual_seed(seed)
    for module in prepared.graph.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            module.reset_parameters()
    epochs = cifar.EPOCHS + EPOCHS
    train(prepared.graph, cifar.augmented(seen), cifar.recipe(epochs, seed))
    return finish(prepared), {"epochs": epochs}


# --- measuring -----------------------------------------------------------------------------------


def job(
    model: nn.Module, data: Path, method: str, seed: int, speedups: list[float]
) -> list[dict[str, Any]]:
    """All speedups of one method and seed, one after the other."""
    torch.set_num_threads(1)
    graph = cifar.captured(model)
    seen, test = cifar.images(data)
    rows: list[dict[str, Any]] = []
    for speedup in speedups:
        kept = KEPT / f"{method}-{speedup:g}-{seed}.json"
        if not kept.exists():
            try:
                row = _point(graph, seen, test, method, seed, speedup)
            except InputError as error:  # out of reach
                row = {"method": method, "asked_speedup": speedup, "seed": seed}
                row["failure"] = str(error)
            replace_json(kept, row)
        rows.append(json.loads(kept.read_text()))
    return rows


def _point(
    graph: fx.GraphModule, seen: Images, test: Images, method: str, seed: int, speedup: float
) -> dict[str, Any]:
    started = time.monotonic()
    original = network(graph).folded
    match method:
        case "closed-form":
            shrunk, more = closed_form(graph, seen, test, speedup, seed)
        case "uniform-width":
            shrunk, more = uniform_width(graph, seen, speedup, seed)
        case "from-scratch":
            shrunk, more = from_scratch(graph, seen, speedup, seed)
        case _:
            shrunk, more = by_plan(graph, seen, BY_PLAN[method], speedup, seed)
    seconds = time.monotonic() - started
    before, after = cifar.int8_file(original, seen), cifar.int8_file(shrunk, seen)
    row: dict[str, Any] = {
        "method": method,
        "asked_speedup": speedup,
        "seed": seed,
        "table_speedup": predicted_ms(original, table(), PRECISION)
        / predicted_ms(shrunk, table(), PRECISION),
        "speedup": speedup_of(before, after),
        "top1": evaluate(shrunk, test).top1,
        "top1_int8": cifar.top1_of_file(after, test),
        "seconds": seconds,
        **more,
    }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--speedups", default="1.2,1.5,2")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--table", action="store_true", help="time the operators and stop")
    parser.add_argument("--done", action="store_true", help="show what is kept and stop")
    arguments = parser.parse_args()
    model, _ = cifar.trained(arguments.data)
    graph = cifar.captured(model)
    seen, test = cifar.images(arguments.data)
    net = network(graph)
    top1_int8 = cifar.top1_of_file(cifar.int8_file(net.folded, seen), test)
    original = {"top1": evaluate(net.folded, test).top1, "top1_int8": top1_int8}
    if arguments.done:
        rows = [json.loads(path.read_text()) for path in sorted(KEPT.glob("*.json"))]
        _written(original, rows)
        return
    time_operators(net)
    if arguments.table or not table().line.exists():
        time_whole(net, seen)
    if arguments.table:
        return
    speedups = [float(text) for text in arguments.speedups.split(",")]
    KEPT.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    methods = arguments.methods.split(",")
    for seed in range(arguments.seeds):  # a stopped run has whole seeds
        jobs = [
            Job(f"{m} {seed}", job, (arguments.data, m, seed, speedups))
            for m in methods
            if m != "from-scratch"
        ]
        if "from-scratch" in methods and seed == 0:  # as long as all others together
            jobs.append(Job("from-scratch 0", job, (arguments.data, "from-scratch", 0, CONTROL)))
        found = run_jobs(
            jobs, arguments.jobs, shared=(model,), progress=Terminal(), text=f"Seed {seed}"
        )
        rows += [row for part in found for row in part]
        _written(original, rows)


def _written(original: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    packages = ("torch", "ai-edge-litert", "ai-edge-quantizer")
    settings = {"epochs": EPOCHS, "search_epochs": SEARCH_EPOCHS, "steps": STEPS}
    results.write(
        results.result_path("cifar_depth"),
        "cifar_depth",
        rows,
        packages,
        settings=settings,
        original=original,
    )
    _show(original, rows)


def _show(original: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    print(f"as it is: {original['top1']:.2%}, int8 file {original['top1_int8']:.2%}")
    shown: list[tuple[str, ...]] = []
    for asked in sorted({row["asked_speedup"] for row in rows}):
        for method in dict.fromkeys(row["method"] for row in rows):
            few = [r for r in rows if (r["method"], r["asked_speedup"]) == (method, asked)]
            if not few:
                continue
            if any("failure" in r for r in few):
                shown.append((f"{asked:g}×", method, "out of reach", "", ""))
                continue
            cells = [_spread([r[k] for r in few]) for k in ("top1", "top1_int8")]
            speed = mean(r["speedup"] for r in few)
            shown.append((f"{asked:g}×", method, f"{speed:.2f}×", *cells))
    print_table(("asked", "method", "measured", "top-1", "int8 file"), shown)


def _spread(values: list[float]) -> str:
    spread = deviation([100 * value for value in values])
    return f"{100 * mean(values):.2f}{spread}"


if __name__ == "__main__":
    main()
