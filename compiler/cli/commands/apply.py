"""`shrinkc apply`: a plan once more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    AnnotationsOption,
    ArchOption,
    BgrOption,
    ClassesOption,
    ImagesOption,
    InputOption,
    MeanOption,
    MetricOption,
    ModelArgument,
    OpsetOption,
    OptionalTargetOption,
    OutOption,
    ResizeOption,
    RunsOption,
    ScaleOption,
    StdOption,
    TaskOption,
    ThreadsOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import as_json, current, print_json, progress, show_warning
from shrinkc.compiler.cli.tasks import asked_of


@app.command(cls=Command)
def apply(
    model: ModelArgument,
    plan: Annotated[
        Path,
        typer.Argument(metavar="PLAN", help="A plan.json, its plan.safetensors beside it."),
    ],
    *,
    inputs: InputOption = None,
    arch: ArchOption = None,
    trust: TrustOption = False,
    task: TaskOption = "auto",
    metric: MetricOption = None,
    target: OptionalTargetOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    bgr: BgrOption = False,
    scale: ScaleOption = None,
    annotations: AnnotationsOption = None,
    out: OutOption = None,
    opset: OpsetOption = 17,
    threads: ThreadsOption = None,
    runs: RunsOption = 30,
) -> None:
    """Do again what a plan did: the same network, without device and images.

    The network is judged on --images; --target predicts for another target than the plan's.
    """
    from shrinkc.compiler.api.plan import apply as applied
    from shrinkc.compiler.api.steps.network import ModelFile
    from shrinkc.compiler.cli.inputs import Reading, output_folder, shapes_of
    from shrinkc.compiler.cli.show.plan import plan_json, show_plan
    from shrinkc.compiler.cli.show.report import report as show_report
    from shrinkc.compiler.cli.show.report import report_json
    from shrinkc.compiler.plan.plan_file import read_plan

    reading = Reading(*(classes, resize, mean, std), annotations=annotations, bgr=bgr, scale=scale)
    reading.refuse_unread(images)
    target = target or read_plan(plan)[0].target
    folder = output_folder(out, model, target, "-planned")
    found = applied(
        ModelFile(model, arch, trust),
        plan,
        shapes_of(inputs),
        target=target,
        images=reading.if_given(images),
        task=asked_of(task, metric),
        opset=opset,
        threads=threads or 1,
        runs=runs,
        command=current().typed,
        progress=progress(),
    )
    found.save(folder)
    if as_json():
        print_json({"plan": plan_json(found.plan)} | report_json(found.report))
        return
    show_warning(found.warning)
    show_plan(found.plan, found.notes, task=found.report.task)
    show_report(found.report, folder)
