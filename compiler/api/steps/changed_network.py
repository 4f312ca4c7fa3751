"""What the commands that change a network share: images to train on, the files of what came out,
and a judgement beside the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, fx

from shrinkc.compiler.api.compile import compile_model
from shrinkc.compiler.api.steps.request import CompileArguments, images_of
from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.closed_form import TakenChoice
from shrinkc.compiler.images.cache import Reading, load_images, with_margin
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.images.preprocessing import Preprocessing
from shrinkc.compiler.measure.speedup import Measuring, measuring
from shrinkc.compiler.options import Options
from shrinkc.compiler.pipeline.deployed import network
from shrinkc.compiler.plan.plan_file import Step
from shrinkc.compiler.quantise.stored import StoredCalibration
from shrinkc.compiler.report.report import Report
from shrinkc.compiler.report.sections import ChoiceRow, Judged, PlanSection, Sections
from shrinkc.compiler.support.choices import is_host
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Answer, Task, total
from shrinkc.compiler.verify.data import split
from shrinkc.passes.base import Skip

FEW = 10  # images that tell the ranges of int8 where only speed is measured


def work_folder(out: Path) -> Path:
    """What a stopped run needs to go on: images, what was measured, checkpoints."""
    return out.with_name(f"{out.name}.work")


def training_images(
    given: CompileArguments,
    train: Path | None,
    preprocessing: Preprocessing,
    out: Path,
    reporter: Progress,
) -> Images:
    """Of `train`, else of --images, decoded once, into a file."""
    images = images_of(train or given.images, given.classes)
    assert images is not None
    reading = Reading(cache=work_folder(out) / "images")
    return load_images(images, with_margin(preprocessing), reading, reporter)


def on_this_machine(
    given: CompileArguments,
    captured: fx.GraphModule,
    table: CostTable,
    few: Callable[[], Tensor],
) -> Measuring | None:
    """How to measure changed networks where the target is at hand; None elsewhere.

    few  (n, channels, height, width) inputs that int8 is calibrated on
    """
    if not is_host(given.target):
        return None
    original = network(captured).folded
    before_ms = predicted_ms(original, table, given.precision)
    inputs = [(x[None],) for x in few()] if given.precision == "int8" else []
    return measuring(original, before_ms, given.precision, inputs, given.threads)


@dataclass(frozen=True, eq=False)
class Changed:
    """A network and what it was made of, both deployed (batch norms folded); `how`: in a word."""

    graph_module: fx.GraphModule
    original: fx.GraphModule
    how: str


def plan_section(
    method: str, taken: Iterable[TakenChoice | Step], precision: str, refused: Sequence[Skip]
) -> PlanSection:
    """For the report: what was done to spans, and which were left."""
    rows = tuple(
        ChoiceRow(
            *(one.source, one.sink, one.kind, one.channels_before or None, one.channels or None),
            *(precision, one.saving_ms, one.loss, one.agreement),
        )
        for one in taken
    )
    return PlanSection(method, rows, tuple(refused))


def compile_changed(
    given: CompileArguments,
    changed: Changed,
    shapes: Sequence[tuple[int, ...]],
    preprocessing: Preprocessing | None,
    evaluation: Path | None,
    out: Path,
    reporter: Progress,
    *,
    stored: StoredCalibration | None = None,
    sections: Sections | None = None,
    extras: Mapping[str, bytes] | None = None,
    task: Task = CLASSIFICATION,
) -> tuple[Report, Judged | None]:
    """Write the files; judge where there are images for it.

    int8 is calibrated on --images where others are judged, else on every second of them, unless
    what calibration told is `stored`. `sections` is what the report says besides, `extras` are more
    files for the folder, by name; `task` is what the outputs mean.
    """
    calibrates = given.precision == "int8" and evaluation is not None and given.images is not None
    options = Options(
        target=given.target,
        precision=given.precision,
        opset=given.opset,
        merge="auto" if stored is None else "none",  # what is stored is of these very layers
        images=images_of(evaluation or given.images, given.classes),
        calibration=images_of(given.images, None, labelled=False) if calibrates else None,
        preprocessing=preprocessing,
        threads=given.threads,
        runs=given.runs,
        stored=stored,
        task=task,
    )
    name = f"{given.model.name}, {changed.how},"
    judged = None
    if evaluation is not None:
        judged = judge(changed.original, changed.graph_module, options)
    report = compile_model(
        *(changed.graph_module, shapes, out, options, name, reporter),
        before=changed.original,
        sections=replace(
            sections or Sections(), command=given.command, changed=changed.how, judged=judged
        ),
        extras=extras,
    )
    return report, judged


@torch.no_grad()
def judge(original: fx.GraphModule, changed: fx.GraphModule, options: Options) -> Judged:
    """On `options.images`, by `options.task`."""
    task, images, labelled = options.task, 0, True
    same = right = right_now = 0.0
    for (x,), labels in split(original, replace(options, precision="fp32")).batches():
        before: Answer = original(x)
        after: Answer = changed(x)
        images += len(x)
        same += total(task.agree(after, before), len(x))
        labelled = labelled and labels is not None
        if labels is not None:
            right += total(task.correct(before, labels), len(x))
            right_now += total(task.correct(after, labels), len(x))
    shares = (right / images, right_now / images) if labelled else (None, None)
    return Judged(images, same / images, *shares, task.metric)
