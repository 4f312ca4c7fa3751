"""What each command does once its arguments are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from platformdirs import user_cache_dir

from shrinkc.compiler.api.compile import compile_model
from shrinkc.compiler.api.plan import PlanArguments, _training, _Work
from shrinkc.compiler.api.steps.changed_network import training_images, work_folder
from shrinkc.compiler.api.steps.network import captured, input_shapes, require_convolutions
from shrinkc.compiler.api.steps.request import CompileArguments, images_of
from shrinkc.compiler.api.steps.target import cost_table
from shrinkc.compiler.cli.app import app
from shrinkc.compiler.cli.inputs import preprocessing_of
from shrinkc.compiler.cli.options import (
    ArchOption,
    ClassesOption,
    EvaluationOption,
    InputOption,
    JsonOption,
    MeanOption,
    MergeOption,
    ModelArgument,
    OpsetOption,
    ResizeOption,
    RunsOption,
    StdOption,
    TargetOption,
    ThreadsOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import print_json, progress
from shrinkc.compiler.cli.show.report import report as show_report
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.depth.closed_form import ClosedForm
from shrinkc.compiler.images.cache import Reading, load_images, with_margin
from shrinkc.compiler.load.load import load_model
from shrinkc.compiler.options import PRECISIONS, Merge, Options
from shrinkc.compiler.plan.planner import Planner, Planning, check_points
from shrinkc.compiler.quantise.options import Int8, Tuning, check_int8
from shrinkc.compiler.report.sections import Sections
from shrinkc.compiler.train.compute import require_training
from shrinkc.errors import InputError


@app.command("compile")
def compile_command(
    context: typer.Context,
    model: ModelArgument,
    target: TargetOption,
    input: InputOption = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Images to verify on: a folder, class folders, or a tar of them."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Images for int8; default: half of --images, not judged then."),
    ] = None,
    classes: ClassesOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Output folder. Default: MODEL-TARGET.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="fp32 (default) or int8; with a goal: the better one, unless given."),
    ] = None,
    speedup: Annotated[
        float | None,
        typer.Option(help="Goal: so many times as fast as the original in fp32; lossy."),
    ] = None,
    budget_ms: Annotated[float | None, typer.Option(help="Goal: milliseconds.")] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Goal: the fastest that loses at most these points of top-1."),
    ] = None,
    pareto: Annotated[
        int | None, typer.Option(help="Goal: so many networks, the most accurate to the fastest.")
    ] = None,
    evaluation: EvaluationOption = None,
    train: Annotated[
        Path | None,
        typer.Option(help="With a goal: images to train on afterwards, a folder per class."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of that training.")] = 10,
    int8_tuning: Annotated[
        str | None,
        typer.Option(
            help="Before int8: bias (correct biases on the calibration images; the default), "
            "equalise (ranges of channels), both, none."
        ),
    ] = None,
    keep_fp32: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER", help="Leave LAYER in fp32 in int8 files; several times."),
    ] = None,
    min_snr: Annotated[
        float | None,
        typer.Option(help="Leave layers in fp32 whose signal to noise in int8 is less (dB)."),
    ] = None,
    opset: OpsetOption = 17,
    merge: MergeOption = "auto",
    arch: ArchOption = None,
    trust: TrustOption = False,
    threads: ThreadsOption = 1,
    runs: RunsOption = 30,
    as_json: JsonOption = False,
) -> None:
    """Compile MODEL for a target: verified ONNX and TFLite files, a prediction, a measurement.

    Exact without a goal. With one, depth, width and precision are planned together on --images.
    """
    from shrinkc.compiler.api.plan import PlanArguments
    from shrinkc.compiler.api.steps.request import CompileArguments
    from shrinkc.compiler.cli.commands.compile import goal_of, int8_of, run_compile, run_plan
    from shrinkc.compiler.recover.recipe import Recipe

    arguments = CompileArguments(
        model=model,
        target=target,
        shapes=tuple(input or ()),
        images=images,
        calibration=calibration,
        classes=classes,
        resize=resize,
        mean=mean,
        std=std,
        out=out,
        precision=precision or "fp32",
        opset=opset,
        merge=merge,
        arch=arch,
        trust=trust,
        threads=threads,
        runs=runs,
        as_json=as_json,
        command=context.obj,
        int8=int8_of(precision or "fp32", int8_tuning, tuple(keep_fp32 or ()), min_snr),
    )
    goal = goal_of(speedup, budget_ms, max_drop, pareto)
    planned = goal is not None or pareto is not None
    if planned and (int8_tuning, keep_fp32, min_snr) != (None, None, None):
        raise InputError(
            "--int8-tuning, --keep-fp32 and --min-snr are for compiling without a goal: a plan "
            "corrects biases and is int8 or fp32 as a whole"
        )
    if planned:
        recipe = Recipe(epochs=epochs)
        run_plan(PlanArguments(arguments, goal, precision, evaluation, train, recipe, pareto))
    elif evaluation is not None or train is not None:
        raise InputError("--evaluation and --train belong to a goal: --speedup, --budget-ms, …")
    else:
        run_compile(arguments)


def goal_of(
    speedup: float | None, budget_ms: float | None, max_drop: float | None, pareto: int | None
) -> Goal | None:
    """None where a frontier is asked for, or nothing. Raises InputError for several."""
    if speedup is None and budget_ms is None and max_drop is None:
        return None
    goal = Goal.of(speedup=speedup, budget_ms=budget_ms, max_drop=max_drop)
    if pareto is not None:
        raise InputError(f"give exactly one of `{goal.kind}`, `pareto`, not several")
    return goal


def run_compile(a: CompileArguments) -> None:
    """Compile, print the report, fail when a format could not be written."""
    cost_table(a.target)  # an unknown target is told before anything is loaded
    check_int8(a.int8, a.precision)
    merge = _merge(a.merge)
    model = load_model(a.model, arch=a.arch, trust=a.trust)
    shapes = input_shapes(model, a.shapes)
    options = Options(
        target=a.target,
        precision=a.precision,
        opset=a.opset,
        merge=merge,
        images=images_of(a.images, a.classes),
        calibration=images_of(a.calibration, None, labelled=False),
        preprocessing=preprocessing_of(a, shapes),
        int8_tuning=a.int8.tuning,
        keep_fp32=a.int8.keep_fp32,
        min_snr_db=a.int8.min_snr_db,
        threads=a.threads,
        runs=a.runs,
    )
    out = a.out or Path(f"{a.model.stem}-{Path(a.target).name if '/' in a.target else a.target}")
    report = compile_model(
        *(model, shapes, out, options, a.model.name, progress(a.as_json)),
        sections=Sections(a.command),
    )
    if a.as_json:
        print_json(report.to_json())
    else:
        show_report(report, out)
    if report.failures:
        stale = "; the one there is an earlier run's" if (out / "model.tflite").exists() else ""
        raise InputError(f"model.tflite was not written: {report.failures[0]}{stale}")


def _merge(text: str) -> Merge:
    if text not in get_args(Merge):
        raise InputError(f"--merge {text}: choose {', '.join(get_args(Merge))}")
    return cast(Merge, text)


def int8_of(
    precision: str, tuning: str | None, keep_fp32: tuple[str, ...], min_snr: float | None
) -> Int8:
    """From --int8-tuning, --keep-fp32 and --min-snr."""
    if tuning is not None and precision != "int8":
        raise InputError("--int8-tuning is for int8 files; give --precision int8 too")
    return Int8(cast(Tuning, tuning or Int8().tuning), keep_fp32, min_snr)


def run_plan(a: PlanArguments) -> None:
    """Plan, compile what the plan leaves, print both."""
    given = a.compile
    if a.pareto is not None:
        check_points(a.pareto)
    if a.train is not None:
        require_training()
    if a.precision not in (None, *PRECISIONS):
        raise InputError(f"--precision {a.precision}: choose {' or '.join(PRECISIONS)}")
    if given.images is None:
        raise InputError("planning looks at images; give --images DIR (no labels are needed)")
    table = cost_table(given.target, given.threads)
    model = load_model(given.model, arch=given.arch, trust=given.trust)
    shapes = input_shapes(model, given.shapes)
    preprocessing = None if len(shapes) > 1 else preprocessing_of(given, shapes)
    if preprocessing is None:
        raise InputError("planning works for networks with one input that reads images (N,C,H,W)")
    reporter = progress(given.as_json)
    with reporter.task("Capturing"):
        graph = captured(model, shapes)
        require_convolutions(graph)
    out = given.out or Path(f"{given.model.stem}-{Path(given.target).name}-planned")
    image_set = images_of(given.images, None, labelled=False)
    assert image_set is not None
    images = load_images(image_set, with_margin(preprocessing), Reading(), reporter)
    images = replace(images, labels=None)  # class folders need not be in the network's order
    held_out = None
    if a.evaluation is not None:
        held_out = training_images(
            replace(given, images=a.evaluation), None, preprocessing, out, reporter
        )
    cache = Path(user_cache_dir("shrinkc", appauthor=False), "damages")
    planning = Planning(
        PRECISIONS if a.precision is None else (a.precision,),
        ClosedForm(cache=cache),
        given.threads,
        training=f"{a.train} {a.recipe}" if a.train else "",
        folder=work_folder(out),
    )
    train = _training(a, preprocessing, out, reporter) if a.train else None
    planner = Planner(
        *(graph, images, table, planning), held_out=held_out, train=train, progress=reporter
    )
    work = _Work(a, planner, shapes, preprocessing, out, reporter)
    if a.pareto is not None:
        work.frontier(a.pareto)
    else:
        work.one()
