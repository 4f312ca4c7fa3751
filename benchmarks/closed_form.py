"""MobileNetV2-1.0 made faster without labels: the whole curve, on 300 unlabelled images.

    python -m benchmarks.closed_form --data DIR [--speedups 1.15,1.35] [--kinds merge,drop,narrow]

Each point asks for a speedup at int8 on this machine, whose operators are measured one by one
(TFLite, one thread). Top-1, and how often the network agrees with the original, are counted on 400
other images: in PyTorch before and after the distillation, and for the int8 file. Speedups are
measured against the original's file of the same precision, interleaved; beside them stands what the
tables of two devices predict. Each point runs in a process of its own, so that its time and peak
memory are its own. Points of earlier runs stay in the result file. --again times the networks of
those points once more, for when the machine was busy: speed does not depend on what was fitted.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, fx

from benchmarks.shared import results
from benchmarks.shared.common import (
    ROOT,
    add_data_argument,
    peak_megabytes,
    print_table,
    replace_json,
)
from benchmarks.shared.mobilenet_v2 import IMAGES, images, pretrained
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.cost.predict import CostTable, predict
from shrinkc.compiler.depth.choice_sets import outline
from shrinkc.compiler.depth.choices import Choice
from shrinkc.compiler.depth.closed_form import ClosedForm, shrink_closed_form
from shrinkc.compiler.devices import runner
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.formats.tflite import TfliteRunner
from shrinkc.compiler.images.cache import load_images, with_margin
from shrinkc.compiler.images.files import find_images
from shrinkc.compiler.images.preprocessing import preprocessing_for
from shrinkc.compiler.measure.bench import bench
from shrinkc.compiler.measure.speedup import host_file
from shrinkc.compiler.pipeline.deployed import BASE_PASSES, channels_last
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.profile.op_files import NoFileError, op_file
from shrinkc.compiler.recover.distil import Tuning
from shrinkc.compiler.recover.rebuild_span import Rebuilding
from shrinkc.compiler.support.progress import Terminal
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.store import load_table
from shrinkc.latency_tables.table import OpEstimate
from shrinkc.passes.analysis.linear.spans import find_spans

DEVICES = ("rpi4", "pixel4")
SPEEDUPS = (1.05, 1.1, 1.15, 1.25, 1.35, 1.5, 1.75, 2.0)
KINDS = ("merge", "drop", "narrow")
CACHE = ROOT / "out" / "closed_form"


@dataclass
class HostOperators:
    """This machine as a table: every operator alone, int8 ones too, kept in a file."""

    path: Path
    target: str = "host"

    def __post_init__(self) -> None:
        self.known: dict[str, float] = {}
        if self.path.exists():
            self.known = json.loads(self.path.read_text())

    def estimate(self, key: OpKey) -> OpEstimate:
        name = json.dumps(asdict(key))
        if name not in self.known:
            self.known[name] = _operator_ms(key)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_json(self.path, self.known)
        return OpEstimate(self.known[name], "measured here", False)

    def network_overhead_ms(self, precision: str) -> float:
        return 0.0

    def spread(self, precision: str, unlike_share: float) -> float | None:
        return None


def _operator_ms(key: OpKey) -> float:
    """The lower quartile: whoever else computes here only adds. What the quantiser cannot write
    is never chosen."""
    try:
        model = runner.Tflite(op_file(key, "tflite").model, 1, False)
    except NoFileError:
        return 1e6
    times = sorted(_timed_ms(model.run) for _ in range(60))
    return times[len(times) // 4]


def _timed_ms(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - started)


def folded(data: Path) -> fx.GraphModule:
    graph = capture(pretrained(data), (torch.randn(1, 3, 224, 224),))
    return run_exact_passes(graph, BASE_PASSES)[0].float()


def calibration(data: Path) -> Any:
    preprocessing = preprocessing_for((1, 3, 224, 224), mean=(0.5,), std=(0.5,))
    images = find_images(data / IMAGES / "calibration")
    return load_images(images, with_margin(preprocessing))


def files(graph: fx.GraphModule, inputs: list[tuple[Tensor, ...]]) -> dict[str, bytes]:
    """The TFLite files of both precisions; int8 as `shrinkc` compiles it."""
    return {p: host_file(graph, p, inputs, "bias") for p in ("fp32", "int8")}


def judged(classes: Tensor, original: Tensor, labels: list[int]) -> dict[str, float]:
    """Shares of the images: classified as labelled, and as by the original."""
    return {
        "top1": int((classes == torch.tensor(labels)).sum()) / len(labels),
        "agreement": int((classes == original).sum()) / len(labels),
    }


def taken(choices: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choices as they stand in result files; `error`, of a fit, is no failure."""
    return [
        {"fit_error" if name == "error" else name: value for name, value in choice.items()}
        for choice in choices
    ]


def classes_of(graph: fx.GraphModule, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([graph(few)[0].argmax(1) for few in images.split(20)])


def classes_of_file(model: bytes, images: Tensor) -> Tensor:
    run = TfliteRunner(model, 1)
    rows = [run.run([x[None].permute(0, 2, 3, 1).contiguous().numpy()])[0] for x in images]
    return torch.tensor([int(row.argmax()) for row in rows])


def measured(before: dict[str, bytes], after: dict[str, bytes]) -> dict[str, Any]:
    """Precision → medians in ms, in turns on one thread."""
    found: dict[str, Any] = {}
    for precision in before:
        pair = [TfliteRunner(one[precision], 1) for one in (before, after)]
        timings = bench(pair, runs=200, warmup=10, max_seconds=60)
        a, b = (median(t.times_ms) for t in timings)
        found[precision] = {"before_ms": a, "after_ms": b, "speedup": a / b}
    return found


def timed_again(data: Path, rows: list[dict[str, Any]]) -> None:
    """New `measured` for kept points, from the choices that they took."""
    graph, images = channels_last(folded(data)), calibration(data)
    few = [(images.inputs(p[None, 16:240, 16:240]),) for p in images.pixels[::15]]
    spans = {(s.source, s.sink): s for s in find_spans(graph).spans}
    before = files(graph, few)
    for row in rows:
        chosen = [
            Choice(spans[t["source"], t["sink"]], t["kind"], t["saving_ms"], t["channels"])
            for t in row["taken"]
        ]
        row["measured"] = measured(before, files(outline(graph, chosen), few))


def predicted(before: fx.GraphModule, after: fx.GraphModule) -> dict[str, float]:
    """Device and precision → speedup by its table."""
    programs = lower(before), lower(after)
    found: dict[str, float] = {}
    for device in DEVICES:
        table: CostTable = load_table(device)
        for precision in ("fp32", "int8"):
            a, b = (predict(p, table, precision).total_ms for p in programs)
            found[f"{device}/{precision}"] = a / b
    return found


def point(arguments: argparse.Namespace, speedup: float) -> dict[str, Any]:
    """One point of the curve."""
    torch.set_num_threads(arguments.threads)
    data: Path = arguments.data
    graph, image_set = folded(data), calibration(data)
    started = time.monotonic()
    options = ClosedForm(
        kinds=tuple(arguments.kinds.split(",")),
        rebuilding=Rebuilding(steps=arguments.rebuild),
        tuning=Tuning(
            steps=arguments.steps, learning_rate=arguments.rate, seconds=arguments.seconds
        ),
        cache=CACHE / "damages",
    )
    table = HostOperators(CACHE / "operators.json")
    shrunk = shrink_closed_form(
        *(graph, image_set, table, "int8", Goal.speedup(speedup)),
        options=options,
        progress=Terminal(),
    )
    seconds = time.monotonic() - started
    peak = peak_megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    few = [
        (image_set.inputs(p[None, 16:240, 16:240]),)
        for p in image_set.pixels[:: len(image_set) // 100]
    ]
    before, after = files(graph, few), files(shrunk.graph_module, few)
    views, labels = images(data / IMAGES / "validation")
    original = classes_of(graph, views)
    return {
        "asked_speedup": speedup,
        "kinds": arguments.kinds,
        "taken": taken(asdict(row) for row in shrunk.taken),
        "table_speedup": shrunk.speedup,
        "measured": measured(before, after),
        "predicted_speedups": predicted(graph, shrunk.graph_module),
        "closed_form": judged(classes_of(shrunk.fitted, views), original, labels),
        "distilled": judged(classes_of(shrunk.graph_module, views), original, labels),
        "int8": judged(classes_of_file(after["int8"], views), original, labels),
        "original_top1": judged(original, original, labels)["top1"],
        "original_int8": judged(classes_of_file(before["int8"], views), original, labels),
        "threads": arguments.threads,
        "rebuild_steps": arguments.rebuild,
        "steps": len(shrunk.tuned.losses) if shrunk.tuned else 0,
        "stopped": shrunk.tuned.stopped if shrunk.tuned else None,
        "seconds": seconds,
        "peak_mb": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--speedups", default=",".join(map(str, SPEEDUPS)))
    parser.add_argument("--kinds", default=",".join(KINDS), help="what may happen to a span")
    parser.add_argument("--rebuild", type=int, default=Rebuilding().steps, help="steps per span")
    parser.add_argument("--steps", type=int, default=Tuning().steps, help="of distillation")
    parser.add_argument("--seconds", type=float, default=1200, help="the most that they take")
    parser.add_argument("--rate", type=float, default=Tuning().learning_rate)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="closed_form", help="of the file with the results")
    parser.add_argument("--again", action="store_true", help="time the kept points anew")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    speedups = [float(s) for s in arguments.speedups.split(",")]
    if arguments.one:
        replace_json(arguments.one, point(arguments, speedups[0]))
        return
    rows = _known(arguments.name)
    if arguments.again:
        timed_again(arguments.data, list(rows.values()))
        _write(arguments.name, rows)
        speedups = []
    for speedup in speedups:
        part = CACHE / f"{arguments.name}.json"
        command = [sys.executable, "-m", "benchmarks.closed_form", *sys.argv[1:]]
        command += ["--speedups", str(speedup), "--one", str(part)]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            continue  # the error is on the screen: a speedup that cannot be reached
        rows[speedup] = json.loads(part.read_text())
        _write(arguments.name, rows)
    _show([rows[asked] for asked in sorted(rows)])


def _write(name: str, rows: dict[float, dict[str, Any]]) -> None:
    points = [rows[asked] for asked in sorted(rows)]
    packages = ("torch", "ai-edge-litert", "ai-edge-quantizer")
    results.write(results.result_path(name), "closed_form", points, packages)


def _known(name: str) -> dict[float, dict[str, Any]]:
    """Points of earlier runs, which stay until they are measured again."""
    found = results.earlier_rows(results.result_path(name))
    return {point["asked_speedup"]: point for point in found}


def _show(rows: list[dict[str, Any]]) -> None:
    header = ("asked", "int8", "fp32", "closed form", "tuned", "int8 file", "agrees", "s", "MB")
    print_table(
        header,
        [
            (
                f"{row['asked_speedup']:g}×",
                *(f"{row['measured'][p]['speedup']:.2f}×" for p in ("int8", "fp32")),
                *(f"{row[k]['top1']:.2%}" for k in ("closed_form", "distilled", "int8")),
                f"{row['distilled']['agreement']:.2%}",
                f"{row['seconds']:.0f}",
                f"{row['peak_mb']:.0f}",
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
