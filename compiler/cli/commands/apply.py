"""`shrinkc apply`: a plan once more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    ArchOption,
    ClassesOption,
    ImagesOption,
    InputOption,
    MeanOption,
    ModelArgument,
    OpsetOption,
    OptionalTargetOption,
    OutOption,
    ResizeOption,
    RunsOption,
    StdOption,
    ThreadsOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import as_json, current, print_json, progress


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
    target: OptionalTargetOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    out: OutOption = None,
    opset: OpsetOption = 17,
    threads: ThreadsOption = None,
    runs: RunsOption = 30,
) -> None:
    """Do again what a plan did: the same network, without device and images.

    The network is judged on --images; --target predicts for another target than the plan's.
    """
    from shrinkc.compiler.api.plan import _section
    from shrinkc.compiler.api.steps.changed_network import Changed, compile_changed
    from shrinkc.compiler.api.steps.network import captured, input_shapes
    from shrinkc.compiler.api.steps.request import CompileArguments
    from shrinkc.compiler.api.steps.target import cost_table
    from shrinkc.compiler.cli.inputs import preprocessing_of
    from shrinkc.compiler.cli.show.plan import show_plan
    from shrinkc.compiler.cli.show.report import report as show_report
    from shrinkc.compiler.load.load import load_model
    from shrinkc.compiler.plan.plan_file import plan_files, read_plan
    from shrinkc.compiler.plan.replay import replay, stored_calibration
    from shrinkc.compiler.report.sections import Sections

    recipe, tensors = read_plan(plan)
    target = target or recipe.target
    given = CompileArguments(
        *(model, target, tuple(inputs or ()), images, None, classes, resize, mean, std, out),
        *(recipe.precision, opset, "none", arch, trust, threads or 1, runs, as_json()),
        command=current().typed,
    )
    cost_table(target, given.threads)
    network = load_model(model, arch=arch, trust=trust)
    shapes = input_shapes(network, given.shapes)
    reporter = progress()
    with reporter.task("Capturing"):
        graph = captured(network, shapes)
    with reporter.task("Applying the plan"):
        original, changed = replay(graph, recipe, tensors)
    folder = out or Path(f"{model.stem}-{Path(target).name}-planned")
    report, _ = compile_changed(
        *(given, Changed(changed, original, "planned"), shapes),
        None if images is None else preprocessing_of(given, shapes),
        *(images, folder, reporter),
        stored=stored_calibration(recipe, tensors),
        sections=Sections(plan=_section(recipe)),
        extras=plan_files(recipe, tensors),
    )
    if as_json():
        print_json({"plan": recipe.model_dump(mode="json", exclude={"ranges"})} | report.to_json())
        return
    show_plan(recipe, [])
    show_report(report, folder)
