"""What int8 and plans cost networks whose outputs are no classes: those of `examples`.

    python -m benchmarks.examples [--only segmenter]

A detector, a U-Net and a regression. Each compiles in fp32 and int8 and is judged on 400 labelled
test images by its own metric (mAP, mIoU, mean absolute error), in both runtimes. Then it is planned
for this machine, to be 1.5× as fast as its int8 file, or as fast as it gets; 400 training images
without labels fit it, a quarter of them promises. The files are timed in turns, int8 against int8.
Data and, where they are not stored, weights are made in out/examples.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

import shrinkc
from benchmarks.shared import results
from benchmarks.shared.common import ROOT, print_table
from shrinkc import Goal, ImageFolder
from shrinkc.compiler.measure.speedup import speedup_of
from shrinkc.compiler.report.report import ArtefactReport, Report
from shrinkc.compiler.tasks.task import Task
from shrinkc.errors import UnreachableGoalError

OUT = ROOT / "out" / "examples"
IMAGES = 400
ASKED = (1.5, 1.4, 1.3, 1.2, 1.1)  # over the int8 file: the first that can be reached
MAE = "mean absolute error"
PACKAGES = ("torch", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer")
Row = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """labels  folder of the test images' labels; None: it is found beside them"""

    build: str
    size: int
    task: Callable[[], Task]
    labels: str | None

    def model(self, name: str) -> nn.Module:
        stored = ROOT / "examples" / name / f"{name}.pt"
        if not stored.exists():
            subprocess.run([sys.executable, "-m", f"examples.{name}.train"], cwd=ROOT, check=True)
        built: nn.Module = getattr(importlib.import_module(f"examples.{name}.net"), self.build)()
        built.load_state_dict(torch.load(stored, weights_only=True))
        return built.eval()

    def images(self, name: str) -> tuple[ImageFolder, ImageFolder]:
        """Training images without labels, and test images with them."""
        folder = OUT / name
        if not folder.exists():
            importlib.import_module(f"examples.{name}.data").write(folder, IMAGES)
            shutil.move(folder / "train" / "images", folder / "unlabelled")
        plain = ImageFolder(folder / "unlabelled", mean=(0,), std=(1,), labelled=False)
        annotations = None if self.labels is None else folder / "test" / self.labels
        test = replace(
            plain, path=folder / "test" / "images", annotations=annotations, labelled=True
        )
        return plain, test


EXAMPLES = {
    "detector": Example("detector", 64, lambda: shrinkc.Detection(layout="yolov8"), None),
    "segmenter": Example("unet", 64, shrinkc.Segmentation, "masks"),
    "blobs": Example("blobs_net", 48, shrinkc.Regression, "numbers"),
}


def measured(name: str) -> list[Row]:
    """Rows: the model, its files in fp32 and int8, and those of the plan."""
    example = EXAMPLES[name]
    model, (images, test) = example.model(name), example.images(name)
    shape, task = (1, 1, example.size, example.size), example.task()
    judged: Any = {"images": test, "task": task, "progress": True}
    fp32 = shrinkc.compile(model, shape, target="host", **judged)
    int8 = shrinkc.compile(
        model, shape, target="host", precision="int8", calibration=images, **judged
    )
    before, exact = (one.files["model.tflite"] for one in (fp32, int8))
    int8_speedup = speedup_of(before, exact)
    asked, planned = fastest(model, shape, int8_speedup, images, task)
    planned.save(OUT / f"{name}-plan")
    again = shrinkc.apply(model, OUT / f"{name}-plan", shape, **judged)
    plan: Row = {
        "asked_speedup": asked,
        "speedup": speedup_of(exact, again.files["model.tflite"]),
    }
    promise = planned.plan.promise
    if promise is not None and promise.drop is not None:
        plan["promised"] = promise.model_dump(mode="json", exclude={"outputs"})
    rows: list[Row] = []
    for mode, report, more in (
        ("as it is", fp32.report, {"int8_speedup": int8_speedup}),
        ("as it is", int8.report, {"int8_speedup": int8_speedup}),
        ("plan", again.report, plan),
    ):
        for file in report.artefacts:
            row = {"network": name, "mode": mode, "precision": report.precision, **more}
            rows.append(row | {"file": file.file, **scored(report, file)})
    return rows


def fastest(
    model: nn.Module, shape: tuple[int, ...], int8: float, images: ImageFolder, task: Task
) -> tuple[float, shrinkc.Planned]:
    """What was asked for over the int8 file, and the plan."""
    for asked in ASKED:
        try:
            goal = Goal.speedup(asked * int8)
            return asked, shrinkc.plan(
                *(model, shape), target="host", goal=goal, images=images, task=task, progress=True
            )
        except UnreachableGoalError as error:
            print(f"{asked:g}× over int8: {error}", flush=True)
    raise SystemExit("no plan is faster than int8 alone")


def scored(report: Report, file: ArtefactReport) -> Row:
    """By the task's metric, beside the model's own score."""
    row = {"metric": report.task.metric, "score": file.top1, "original_score": report.original_top1}
    if MAE in file.details:
        row |= {"mean_absolute_error": file.details[MAE]}
    return row | {"images": report.images}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=tuple(EXAMPLES))
    only = parser.parse_args().only
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in EXAMPLES if only is None else (only,):
        rows += measured(name)
        print_table(tuple(rows[-1]), [[str(row.get(key, "")) for key in rows[-1]] for row in rows])
    if only is None:
        results.write(results.result_path("examples"), "examples", rows, PACKAGES)


if __name__ == "__main__":
    main()
