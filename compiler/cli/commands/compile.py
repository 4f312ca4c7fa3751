"""`shrinkc compile`: verified files, as the network is or, with a goal, planned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    ArchOption,
    BudgetOption,
    CalibrationOption,
    ClassesOption,
    EpochsOption,
    EvaluationOption,
    ImagesOption,
    InputOption,
    Int8TuningOption,
    KeepFp32Option,
    MaxDropOption,
    MeanOption,
    MergeOption,
    MinSnrOption,
    ModelArgument,
    OpsetOption,
    OutOption,
    ParetoOption,
    PrecisionOption,
    ResizeOption,
    RunsOption,
    SpeedupOption,
    StdOption,
    TargetOption,
    ThreadsOption,
    TrainOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import as_json, current, print_json, progress
from shrinkc.errors import ExportError, InputError

if TYPE_CHECKING:
    from shrinkc.compiler.api.plan import PlanArguments
    from shrinkc.compiler.api.steps.request import CompileArguments
    from shrinkc.compiler.cost.goal import Goal
    from shrinkc.compiler.quantise.options import Int8
    from shrinkc.compiler.support.choices import Int8Tuning


@app.command("compile", cls=Command)
def compile_command(
    model: ModelArgument,
    *,
    inputs: InputOption = None,
    arch: ArchOption = None,
    trust: TrustOption = False,
    target: TargetOption,
    speedup: SpeedupOption = None,
    budget_ms: BudgetOption = None,
    max_drop: MaxDropOption = None,
    pareto: ParetoOption = None,
    merge: MergeOption = "auto",
    images: ImagesOption = None,
    evaluation: EvaluationOption = None,
    classes: ClassesOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    train: TrainOption = None,
    epochs: EpochsOption = None,
    precision: PrecisionOption = None,
    calibration: CalibrationOption = None,
    int8_tuning: Int8TuningOption = None,
    keep_fp32: KeepFp32Option = None,
    min_snr_db: MinSnrOption = None,
    out: OutOption = None,
    opset: OpsetOption = 17,
    threads: ThreadsOption = None,
    runs: RunsOption = 30,
) -> None:
    """Compile MODEL for a target: verified ONNX and TFLite files, a prediction, a measurement.

    Exact without a goal, and verified on --images. With one (--speedup, --budget-ms, --max-drop or
    --pareto), depth, width and precision are planned together, fitted to --images.
    """
    from shrinkc.compiler.api.plan import PlanArguments
    from shrinkc.compiler.api.steps.request import CompileArguments
    from shrinkc.compiler.recover.recipe import Recipe

    arguments = CompileArguments(
        *(model, target, tuple(inputs or ()), images, calibration, classes, resize, mean, std, out),
        *(precision or "fp32", opset, merge, arch, trust, threads or 1, runs, as_json()),
        command=current().typed,
        int8=_int8(precision or "fp32", int8_tuning, tuple(keep_fp32 or ()), min_snr_db),
    )
    goal = _goal(speedup, budget_ms, max_drop, pareto)
    planned = goal is not None or pareto is not None
    if planned and (int8_tuning, keep_fp32, min_snr_db) != (None, None, None):
        raise InputError(
            "`int8_tuning`, `keep_fp32` and `min_snr_db` are for compiling without a goal: a plan "
            "corrects biases and is int8 or fp32 as a whole"
        )
    if planned:
        recipe = Recipe(epochs=epochs or 10)
        _plan(PlanArguments(arguments, goal, precision, evaluation, train, recipe, pareto))
    elif evaluation is not None or train is not None or epochs is not None:
        raise InputError(
            "`evaluation`, `train` and `epochs` belong to a goal",
            "give `speedup`, `budget_ms`, `max_drop` or `pareto`",
        )
    else:
        _compile(arguments)


def _goal(
    speedup: float | None, budget_ms: float | None, max_drop: float | None, pareto: int | None
) -> Goal | None:
    """None where a frontier is asked for, or nothing. Raises InputError for several."""
    from shrinkc.compiler.cost.goal import Goal

    if speedup is None and budget_ms is None and max_drop is None:
        return None
    goal = Goal.of(speedup=speedup, budget_ms=budget_ms, max_drop=max_drop)
    if pareto is not None:
        raise InputError(f"give exactly one of `{goal.kind}`, `pareto`, not several")
    return goal


def _int8(
    precision: str, tuning: Int8Tuning | None, keep_fp32: tuple[str, ...], min_snr_db: float | None
) -> Int8:
    from shrinkc.compiler.quantise.options import Int8

    if tuning is not None and precision != "int8":
        raise InputError("`int8_tuning` is for int8 files; give `precision` int8 too")
    return Int8(tuning or Int8().tuning, keep_fp32, min_snr_db)


def _compile(a: CompileArguments) -> None:
    """Compile, print the report, fail when a format could not be written."""
    from shrinkc.compiler.api.compile import compile_model
    from shrinkc.compiler.api.steps.network import input_shapes
    from shrinkc.compiler.api.steps.request import images_of
    from shrinkc.compiler.api.steps.target import cost_table
    from shrinkc.compiler.cli.inputs import preprocessing_of
    from shrinkc.compiler.cli.show.report import report as show_report
    from shrinkc.compiler.load.load import load_model
    from shrinkc.compiler.options import Options
    from shrinkc.compiler.quantise.options import check_int8
    from shrinkc.compiler.report.sections import Sections

    cost_table(a.target)  # an unknown target is told before anything is loaded
    check_int8(a.int8, a.precision)
    model = load_model(a.model, arch=a.arch, trust=a.trust)
    shapes = input_shapes(model, a.shapes)
    options = Options(
        target=a.target,
        precision=a.precision,
        opset=a.opset,
        merge=a.merge,
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
        *(model, shapes, out, options, a.model.name, progress()),
        sections=Sections(a.command),
    )
    if as_json():
        print_json(report.to_json())
    else:
        show_report(report, out)
    if report.failures:
        missing = [one.file for one in options.formats if one.file not in report.files]
        stale = "; the one there is an earlier run's" if (out / missing[0]).exists() else ""
        raise ExportError(f"{', '.join(missing)} was not written: {report.failures[0]}{stale}")


def _plan(a: PlanArguments) -> None:
    """Plan, compile what the plan leaves, print both."""
    from platformdirs import user_cache_dir

    from shrinkc.compiler.api.plan import _training, _Work
    from shrinkc.compiler.api.steps.changed_network import training_images, work_folder
    from shrinkc.compiler.api.steps.network import captured, input_shapes, require_convolutions
    from shrinkc.compiler.api.steps.request import images_of
    from shrinkc.compiler.api.steps.target import cost_table
    from shrinkc.compiler.cli.inputs import preprocessing_of
    from shrinkc.compiler.depth.closed_form import ClosedForm
    from shrinkc.compiler.formats.base import FILE_PRECISIONS
    from shrinkc.compiler.images.cache import Reading, load_images, with_margin
    from shrinkc.compiler.load.load import load_model
    from shrinkc.compiler.plan.planner import Planning, check_points, prepare_planning
    from shrinkc.compiler.train.compute import require_training

    given = a.compile
    if a.pareto is not None:
        check_points(a.pareto)
    if a.train is not None:
        require_training()
    if given.images is None:
        raise InputError("planning looks at images", "give `images`; no labels are needed")
    table = cost_table(given.target, given.threads)
    model = load_model(given.model, arch=given.arch, trust=given.trust)
    shapes = input_shapes(model, given.shapes)
    preprocessing = None if len(shapes) > 1 else preprocessing_of(given, shapes)
    if preprocessing is None:
        raise InputError("planning works for networks with one input that reads images (N,C,H,W)")
    reporter = progress()
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
        FILE_PRECISIONS if a.precision is None else (a.precision,),
        ClosedForm(cache=cache),
        given.threads,
        training=f"{a.train} {a.recipe}" if a.train else "",
        folder=work_folder(out),
    )
    train = _training(a, preprocessing, out, reporter) if a.train else None
    planner = prepare_planning(
        *(graph, images, table, planning), held_out=held_out, train=train, progress=reporter
    )
    work = _Work(a, planner, shapes, preprocessing, out, reporter)
    if a.pareto is not None:
        work.frontier(a.pareto)
    else:
        work.one()
