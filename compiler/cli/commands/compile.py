"""`shrinkc compile`: verified files, as the network is or, with a goal, planned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    AnnotationsOption,
    ArchOption,
    BgrOption,
    BudgetOption,
    CalibrationOption,
    ClassesOption,
    ConfidentOption,
    EpochsOption,
    EvaluationOption,
    FoldNormalisationOption,
    ImagesOption,
    InputOption,
    Int8TuningOption,
    IoOption,
    JobsOption,
    KeepFp32Option,
    LossOption,
    MaxDropOption,
    MaxErrorOption,
    MeanOption,
    MergeOption,
    MetricOption,
    MinSnrOption,
    ModelArgument,
    OpsetOption,
    OutOption,
    OutputWeightsOption,
    ParetoOption,
    PrecisionOption,
    RayOption,
    ResizeOption,
    ResolutionsOption,
    RunsOption,
    ScaleOption,
    SpeedupOption,
    StdOption,
    TargetOption,
    TaskOption,
    ThreadsOption,
    TrainOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import as_json, current, print_json, progress
from shrinkc.compiler.cli.tasks import asked_of, loss_of
from shrinkc.errors import ExportError, InputError

if TYPE_CHECKING:
    from shrinkc.compiler.api.steps.network import ModelFile
    from shrinkc.compiler.cost.goal import Goal
    from shrinkc.compiler.images.source import ImageFolder
    from shrinkc.compiler.support.choices import Int8Tuning, Io, Merge, Precision
    from shrinkc.compiler.support.jobs import Parallel
    from shrinkc.compiler.tasks.asked import AskedTask


@app.command("compile", cls=Command)
def compile_command(
    model: ModelArgument,
    *,
    inputs: InputOption = None,
    arch: ArchOption = None,
    trust: TrustOption = False,
    task: TaskOption = "auto",
    metric: MetricOption = None,
    output_weights: OutputWeightsOption = None,
    target: TargetOption,
    speedup: SpeedupOption = None,
    budget_ms: BudgetOption = None,
    max_drop: MaxDropOption = None,
    confident: ConfidentOption = False,
    max_error: MaxErrorOption = None,
    points: ParetoOption = None,
    resolutions: ResolutionsOption = None,
    merge: MergeOption = "auto",
    images: ImagesOption = None,
    evaluation: EvaluationOption = None,
    classes: ClassesOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    bgr: BgrOption = False,
    scale: ScaleOption = None,
    annotations: AnnotationsOption = None,
    train: TrainOption = None,
    loss: LossOption = None,
    epochs: EpochsOption = None,
    parallel: JobsOption = None,
    ray: RayOption = None,
    precision: PrecisionOption = None,
    io: IoOption = "float32",
    calibration: CalibrationOption = None,
    int8_tuning: Int8TuningOption = None,
    keep_fp32: KeepFp32Option = None,
    min_snr_db: MinSnrOption = None,
    fold_normalisation: FoldNormalisationOption = False,
    out: OutOption = None,
    opset: OpsetOption = 17,
    threads: ThreadsOption = None,
    runs: RunsOption = 30,
) -> None:
    """Compile MODEL for a target: verified ONNX and TFLite files, a prediction, a measurement.

    Exact without a goal, and verified on --images. With one (--speedup, --budget-ms, --max-drop,
    --max-error or --pareto), depth, width and precision are planned together, fitted to --images.
    """
    from shrinkc.compiler.cli.inputs import Reading, side_by_side, whole_numbers

    reading = Reading(*(classes, resize, mean, std), annotations=annotations, bgr=bgr, scale=scale)
    reading.refuse_unread(images, evaluation, train, calibration)
    judged = asked_of(task, metric, output_weights)
    how = _How(model, target, inputs, arch, trust, out, opset, threads or 1, runs, judged)
    goal = _goal(speedup, budget_ms, max_drop, max_error, points, confident=confident)
    exact = goal is None and points is None
    told = (evaluation, train, epochs, output_weights, loss, resolutions, parallel, ray)
    _check(exact, images, told, (int8_tuning, keep_fp32, min_snr_db, calibration), merge, precision)
    _check_files(exact, io != "float32", fold_normalisation)
    if exact:
        how.compile(
            *map(reading.if_given, (images, calibration)),
            precision=precision or "fp32",
            io=io,
            fold_normalisation=fold_normalisation,
            merge=merge,
            int8_tuning=int8_tuning or "bias",
            keep_fp32=keep_fp32 or [],
            min_snr_db=min_snr_db,
        )
        return
    how.plan(
        *(goal, points, *map(reading.if_given, (images, evaluation, train))),
        precision=precision,
        epochs=epochs or 10,
        parallel=side_by_side(parallel, ray),
        loss=loss_of(loss),
        resolutions=whole_numbers("resolutions", resolutions),
    )


def _check_files(exact: bool, io: bool, fold_normalisation: bool) -> None:
    """Raise InputError for what a plan's files cannot be."""
    for name, given in (("io", io), ("fold_normalisation", fold_normalisation)):
        if given and not exact:
            raise InputError(
                f"`{name}` is for compiling without a goal",
                "plan first, then compile the model.safetensors of the plan with it",
            )


def _check(
    exact: bool,
    images: Path | None,
    told: tuple[Path | None, Path | None, int | None, *tuple[str | None, ...]],
    int8: tuple[Int8Tuning | None, list[str] | None, float | None, Path | None],
    merge: Merge,
    precision: Precision | None,
) -> None:
    """`told`: what is for goals alone; `int8`: what is for compiling without one. Raises InputError
    for what does not fit."""
    _, train, epochs, *_ = told
    if exact:
        if set(told) != {None}:
            raise InputError(
                "`evaluation`, `train`, `epochs`, `loss`, `resolutions`, `parallel`, `ray` and "
                "`output_weights` belong to a goal",
                "give `speedup`, `budget_ms`, `max_drop`, `max_error` or `points`",
            )
        if int8[0] is not None and precision != "int8":
            raise InputError("`int8_tuning` is for int8 files; give `precision` int8 too")
        return
    if (*int8, merge) != (None, None, None, None, "auto"):
        raise InputError(
            "`int8_tuning`, `keep_fp32`, `min_snr_db`, `calibration` and `merge` are for compiling "
            "without a goal: a plan decides what they say itself"
        )
    if epochs is not None and train is None:
        raise InputError("`epochs` of what?", "give `train`")
    if images is None:
        raise InputError("planning looks at images", "give `images`; no labels are needed")


def _goal(
    speedup: float | None,
    budget_ms: float | None,
    max_drop: float | None,
    max_error: float | None,
    points: int | None,
    *,
    confident: bool,
) -> Goal | None:
    """None where a frontier is asked for, or nothing. Raises InputError for several."""
    from shrinkc.compiler.cost.goal import Goal

    if (speedup, budget_ms, max_drop, max_error) == (None, None, None, None):
        if confident:
            raise InputError("`confident` is for `max_drop` alone; leave it out")
        return None
    goal = Goal.of(
        speedup=speedup,
        budget_ms=budget_ms,
        max_drop=max_drop,
        max_error=max_error,
        confident=confident,
    )
    if points is not None:
        raise InputError(f"give exactly one of `{goal.kind}`, `points`, not several")
    return goal


@dataclass(frozen=True)
class _How:
    """What compiling and planning have in common."""

    model: Path
    target: str
    inputs: list[str] | None
    arch: str | None
    trust: bool
    out: Path | None
    opset: int
    threads: int
    runs: int
    task: AskedTask

    @property
    def file(self) -> ModelFile:
        from shrinkc.compiler.api.steps.network import ModelFile

        return ModelFile(self.model, self.arch, self.trust)

    def compile(
        self,
        images: ImageFolder | None,
        calibration: ImageFolder | None,
        *,
        precision: Precision,
        io: Io,
        fold_normalisation: bool,
        merge: Merge,
        int8_tuning: Int8Tuning,
        keep_fp32: list[str],
        min_snr_db: float | None,
    ) -> None:
        """Print the report; fail when a format could not be written."""
        from shrinkc.compiler.api.compile import compile as compiled
        from shrinkc.compiler.cli.inputs import output_folder, shapes_of
        from shrinkc.compiler.cli.show.report import report as show_report
        from shrinkc.compiler.cli.show.report import report_json
        from shrinkc.compiler.formats.registry import FORMATS

        folder = output_folder(self.out, self.model, self.target)
        found = compiled(
            self.file,
            shapes_of(self.inputs),
            target=self.target,
            images=images,
            calibration=calibration,
            precision=precision,
            io=io,
            fold_normalisation=fold_normalisation,
            merge=merge,
            int8_tuning=int8_tuning,
            keep_fp32=keep_fp32,
            min_snr_db=min_snr_db,
            task=self.task,
            opset=self.opset,
            threads=self.threads,
            runs=self.runs,
            command=current().typed,
            progress=progress(),
        )
        report = found.report
        found.save(folder)
        if as_json():
            print_json(report_json(report))
        else:
            show_report(report, folder)
        if report.failures:
            missing = [one.file for one in FORMATS if one.file not in found.files]
            stale = "; the one there is an earlier run's" if (folder / missing[0]).exists() else ""
            raise ExportError(f"{', '.join(missing)} was not written: {report.failures[0]}{stale}")

    def plan(
        self,
        goal: Goal | None,
        points: int | None,
        images: ImageFolder | None,
        evaluation: ImageFolder | None,
        train: ImageFolder | None,
        *,
        precision: Precision | None,
        epochs: int,
        parallel: Parallel,
        loss: Any,
        resolutions: tuple[int, ...] | None,
    ) -> None:
        """Print the plan and the report, or a frontier."""
        from shrinkc.compiler.api import plan as api
        from shrinkc.compiler.api.steps.results import save_together
        from shrinkc.compiler.cli.inputs import output_folder, shapes_of, work_folder
        from shrinkc.compiler.cli.show.plan import frontier_report, planned_report
        from shrinkc.compiler.recover.recipe import Recipe

        assert images is not None  # checked with the other options
        out = output_folder(self.out, self.model, self.target, "-planned")
        network, shapes = self.file, shapes_of(self.inputs)
        recipe = Recipe(epochs=epochs, parallel=parallel)
        if goal is not None:
            found = api.plan(
                *(network, shapes),
                goal=goal,
                target=self.target,
                images=images,
                precision=precision,
                evaluation=evaluation,
                train=train,
                recipe=recipe,
                task=self.task,
                loss=loss,
                opset=self.opset,
                threads=self.threads,
                runs=self.runs,
                resolutions=resolutions,
                folder=work_folder(out),
                command=current().typed,
                progress=progress(),
            )
            found.save(out)
            planned_report(found, out)
            return
        found = api.frontier(
            *(network, shapes),
            points=points or 0,
            target=self.target,
            images=images,
            precision=precision,
            evaluation=evaluation,
            train=train,
            recipe=recipe,
            task=self.task,
            loss=loss,
            opset=self.opset,
            threads=self.threads,
            runs=self.runs,
            resolutions=resolutions,
            folder=work_folder(out),
            command=current().typed,
            progress=progress(),
        )
        save_together({point.label: point for point in found}, out)
        frontier_report(found, out)
