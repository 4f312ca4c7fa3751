"""`shrinkc apply`: a plan once more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from shrinkc.compiler.api.plan import _section
from shrinkc.compiler.api.steps.changed_network import Changed, compile_changed
from shrinkc.compiler.api.steps.network import captured, input_shapes
from shrinkc.compiler.api.steps.request import CompileArguments
from shrinkc.compiler.api.steps.target import cost_table
from shrinkc.compiler.cli.app import app
from shrinkc.compiler.cli.inputs import preprocessing_of
from shrinkc.compiler.cli.options import (
    ArchOption,
    ClassesOption,
    InputOption,
    JsonOption,
    MeanOption,
    ModelArgument,
    OpsetOption,
    ResizeOption,
    RunsOption,
    StdOption,
    ThreadsOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import print_json, progress
from shrinkc.compiler.cli.show.plan import show_plan
from shrinkc.compiler.cli.show.report import report as show_report
from shrinkc.compiler.images.preprocessing import Preprocessing
from shrinkc.compiler.load.load import load_model
from shrinkc.compiler.plan.plan_file import plan_files, read_plan
from shrinkc.compiler.plan.replay import known, replay
from shrinkc.compiler.report.sections import Sections


@app.command()
def apply(
    context: typer.Context,
    model: ModelArgument,
    plan: Annotated[Path, typer.Argument(help="A plan.json, its plan.safetensors beside it.")],
    target: Annotated[
        str | None, typer.Option(help="Predict for another target than the plan's.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Images to judge on. A plan needs none.")
    ] = None,
    classes: ClassesOption = None,
    input: InputOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Output folder. Default: MODEL-TARGET-planned."),
    ] = None,
    opset: OpsetOption = 17,
    arch: ArchOption = None,
    trust: TrustOption = False,
    threads: ThreadsOption = 1,
    runs: RunsOption = 30,
    as_json: JsonOption = False,
) -> None:
    """Do again what a plan did: the same network, without device and images."""
    from shrinkc.compiler.api.steps.request import CompileArguments
    from shrinkc.compiler.cli.commands.apply import run_apply

    arguments = CompileArguments(
        *(model, target or "", tuple(input or ()), images, None, classes, resize, mean, std, out),
        *("fp32", opset, "none", arch, trust, threads, runs, as_json, context.obj),
    )
    run_apply(arguments, plan)


def run_apply(given: CompileArguments, plan_path: Path) -> None:
    """Do again what a plan says, and compile."""
    plan, tensors = read_plan(plan_path)
    target = given.target or plan.target
    cost_table(target, given.threads)
    model = load_model(given.model, arch=given.arch, trust=given.trust)
    shapes = input_shapes(model, given.shapes)
    reporter = progress(given.as_json)
    with reporter.task("Capturing"):
        graph = captured(model, shapes)
    with reporter.task("Applying the plan"):
        original, changed = replay(graph, plan, tensors)
    given = replace(given, target=target, precision=plan.precision)
    out = given.out or Path(f"{given.model.stem}-{Path(target).name}-planned")
    report, _ = compile_changed(
        *(given, Changed(changed, original, "planned"), shapes),
        *(_reading(given, shapes), given.images, out, reporter),
        known=known(plan, tensors),
        sections=Sections(plan=_section(plan)),
        extras=plan_files(plan, tensors),
    )
    if given.as_json:
        print_json({"plan": plan.model_dump(mode="json", exclude={"ranges"})} | report.to_json())
        return
    show_plan(plan, [])
    show_report(report, out)


def _reading(given: CompileArguments, shapes: list[tuple[int, ...]]) -> Preprocessing | None:
    return None if given.images is None else preprocessing_of(given, shapes)
