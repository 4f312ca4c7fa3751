"""MobileNetV2-1.0, one plan for depth, width and precision: what a speedup over fp32 costs.

    python -m benchmarks.plan --data DIR [--target rpi4] [--speedups 2.3,2.6,3]

A plan is fitted to 300 images without labels, and nothing is trained. Its own file is judged on 400
other images: top-1, and agreement with the original. `drop promised` is what the plan expects from
the images that it kept away from its fits, `drop` is what the 400 show. Speedups are over the
original's fp32 file: by the target's table, and measured here in TFLite, one thread, interleaved
(without int8 instructions, as on x86 without VNNI, the two differ much). Each point runs in a
process of its own, and finished plans are kept in out/plan. For `host`, operators and files are
timed here and plans are corrected until the file meets what is asked for: the machine should be
idle.

    python -m benchmarks.plan --data DIR --target host --importance

times what is measured once, before the first plan, instead: the damage of every choice and of int8
alone, and then how long choosing takes, by the table and in every precision.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.closed_form import CACHE, calibration, judged, taken
from benchmarks.shared import results
from benchmarks.shared.common import ROOT, add_data_argument, peak_megabytes, print_table
from benchmarks.shared.mobilenet_v2 import IMAGES, images, pretrained
from shrinkc.compiler.api.steps.target import cost_table
from shrinkc.compiler.capture import capture
from shrinkc.compiler.depth.closed_form import ClosedForm, candidates
from shrinkc.compiler.formats.registry import HOST_FORMAT
from shrinkc.compiler.measure.speedup import host_file, speedup_of
from shrinkc.compiler.plan.drop import answers, answers_of_file
from shrinkc.compiler.plan.finished_plans import Planned
from shrinkc.compiler.plan.planner import Planner, Planning, prepare_planning
from shrinkc.compiler.plan.replay import stored_calibration
from shrinkc.compiler.support.progress import Terminal
from shrinkc.errors import InputError

SPEEDUPS = (2.3, 2.6, 3.0)
OUT = ROOT / "out" / "plan"
FEW = 8  # calibration inputs of tensors without a range


def planner_of(data: Path, target: str, cache: Path | None) -> Planner:
    graph = capture(pretrained(data), (torch.randn(1, 3, 224, 224),))
    images = replace(calibration(data), labels=None)  # folders are not in the network's order
    planning = Planning(closed=ClosedForm(cache=cache), folder=OUT)
    return prepare_planning(graph, images, cost_table(target), planning, progress=Terminal())


def importance(data: Path, target: str) -> dict[str, Any]:
    """Seconds of what is measured once, and of choosing, at the slowest of `SPEEDUPS`."""
    planner = planner_of(data, target, None)
    for precision in planner.precisions:  # times operators, where the target is this machine
        candidates(planner.original, planner.table, precision)
    clock = [time.monotonic()]
    slicings = planner.candidates.judged
    clock.append(time.monotonic())
    _ = planner.variants
    clock.append(time.monotonic())
    solving = [_seconds(planner, planner.before_ms / speedup) for speedup in SPEEDUPS]
    return {
        "images": len(planner.judge.sample),
        "choices": {p: len(one.whole.found) for p, one in slicings.items()},
        "slices": {p: len(one.slices) for p, one in slicings.items()},
        "damages_seconds": clock[1] - clock[0],
        "int8_seconds": clock[2] - clock[1],
        "solving_seconds": max(solving),
    }


def _seconds(planner: Planner, budget_ms: float) -> float:
    started = time.monotonic()
    for _, _, base in planner.by_table(budget_ms):
        with suppress(InputError):  # not in this precision
            base.plans.within(budget_ms)
    return time.monotonic() - started


def point(data: Path, target: str, speedup: float) -> dict[str, Any]:
    planner = planner_of(data, target, CACHE / "damages")
    started = time.monotonic()
    planned = planner.within(planner.before_ms / speedup)
    seconds = time.monotonic() - started
    plan, changed = planned.plan, planned.graph_module
    before, after = host_file(planner.original, "fp32", ()), file_of(planner, planned)
    views, labels = images(data / IMAGES / "validation")
    original, now = answers(planner.original), answers_of_file(after, changed, 1)
    classes = [
        torch.cat([run((x,))[0].argmax(1) for x in views.split(10)]) for run in (original, now)
    ]
    assert plan.promise is not None
    return {
        "target": target,
        "asked_speedup": speedup,
        "precision": plan.precision,
        "taken": taken(step.model_dump() for step in plan.steps),
        "before_ms": plan.before_ms,
        "after_ms": plan.after_ms,
        "table_speedup": plan.speedup,
        "speedup": plan.measured_speedup or speedup_of(before, after),
        "original_top1": judged(classes[0], classes[0], labels)["top1"],
        **judged(classes[1], classes[0], labels),
        "promised_drop": plan.promise.drop,
        "seconds": seconds,
        "peak_mb": peak_megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
    }


def file_of(planner: Planner, planned: Planned) -> bytes:
    """The file in HOST_FORMAT, as `shrinkc apply` writes it."""
    numbers, graph = stored_calibration(planned.plan, planned.tensors), planned.graph_module
    if numbers is None:
        return host_file(graph, "fp32", ())
    few = planner.judge.inputs(FEW)
    return HOST_FORMAT.write_int8(numbers.prepared(graph).quantisation, few).data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--target", default="rpi4")
    parser.add_argument("--speedups", default=",".join(map(str, SPEEDUPS)))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--importance", action="store_true", help="time what is measured once")
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        print(json.dumps(point(arguments.data, arguments.target, arguments.one)))
        return
    name = f"plan_{arguments.target}"
    packages = ("torch", "ai-edge-litert", "ai-edge-quantizer")
    if arguments.importance:
        found = importance(arguments.data, arguments.target)
        print(json.dumps(found, indent=1))
        path = results.result_path(f"{name}_importance")
        results.write(path, "plan", [found], packages, settings={"threads": arguments.threads})
        return
    rows: list[dict[str, Any]] = []
    for speedup in arguments.speedups.split(","):
        command = [sys.executable, "-m", "benchmarks.plan", "--data", str(arguments.data)]
        command += ["--target", arguments.target, "--threads", str(arguments.threads)]
        done = subprocess.run(
            [*command, "--one", speedup], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        results.write(results.result_path(name), "plan", rows, packages)
    show(rows)


def show(rows: list[dict[str, Any]]) -> None:
    print(f"original: {rows[0]['original_top1']:.2%}")
    header = ("asked", "precision", "by table", "measured here", "top-1", "drop", "drop promised")
    print_table(
        (*header, "agrees", "s", "MB"),
        [
            (
                f"{row['asked_speedup']:g}×",
                row["precision"],
                f"{row['table_speedup']:.2f}×",
                f"{row['speedup']:.2f}×",
                f"{row['top1']:.2%}",
                f"{row['original_top1'] - row['top1']:.2%}",
                f"{row['promised_drop']:.2%}",
                f"{row['agreement']:.1%}",
                f"{row['seconds']:.0f}",
                f"{row['peak_mb']:.0f}",
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
