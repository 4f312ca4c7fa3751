"""`shrinkc compile`: verified files, as the network is or, with a goal, planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    AnnotationsOption,
    ArchOption,
    BgrOption,
    BudgetOption,
    CacheGbOption,
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
    TargetsOption,
    TaskOption,
    ThreadsOption,
    TrainOption,
    TrustOption,
    WorstCaseOption,
)
from shrinkc.compiler.cli.output import as_json, current, print_json, progress
from shrinkc.compiler.cli.tasks import asked_of, loss_of
from shrinkc.errors import ExportError, InputError

if TYPE_CHECKING:
    from shrinkc.compiler.api.steps.network import ModelFile
    from shrinkc.compiler.api.steps.results import Compiled
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
    target: TargetsOption,
    speedup: SpeedupOption = None,
    budget_ms: BudgetOption = None,
    max_drop: MaxDropOption = None,
    confident: ConfidentOption = False,
    max_error: MaxErrorOption = None,
    points: ParetoOption = None,
    worst_case: WorstCaseOption = False,
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
    cache_gb: CacheGbOption = None,
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

    reading = Reading(classes, resize, mean, std, bgr, scale, cache_gb, annotations=annotations)
    reading.refuse_unread(images, evaluation, train, calibration)
    asked = _targets(target), inputs, arch, trust, out, opset, threads or 1, runs
    how = _How(model, *asked, asked_of(task, metric, output_weights))
    goal = _goal(speedup, budget_ms, max_drop, max_error, points, confident=confident)
    exact = goal is None and points is None
    told = (evaluation, train, epochs, output_weights, loss, resolutions, worst_case, cache_gb)
    told += (parallel, ray)
    _check(exact, images, told, (int8_tuning, keep_fp32, min_snr_db, calibration), merge, precision)
    _check_files(exact, io != "float32", fold_normalisation)
    if exact:
        how.compile(
            *map(reading.if_given, (images, calibration)),
            precision=precision or "fp32",
            io=io,
            fold_normalisation=fold_normalisation,
            merge=merge,
            int8=(int8_tuning or "bias", keep_fp32 or [], min_snr_db),
        )
        return
    how.plan(
        *(goal, points, *map(reading.if_given, (images, evaluation, train))),
        precision=precision,
        learning=(epochs or 10, side_by_side(parallel, ray), loss_of(loss)),
        resolutions=whole_numbers("resolutions", resolutions),
        worst_case=worst_case,
    )


def _targets(text: str) -> dict[str, str]:
    """`--target a,b`. Raises InputError for one that is there twice."""
    from shrinkc.compiler.api.targets.many import target_names

    if Path(text).exists():  # a table's folder may have a comma in its name
        return {Path(text).name: text}
    return target_names([one.strip() for one in text.split(",")], "target")


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
    told: tuple[Path | float | str | None, ...],
    int8: tuple[Int8Tuning | None, list[str] | None, float | None, Path | None],
    merge: Merge,
    precision: Precision | None,
) -> None:
    """`told`: what is for goals alone; `int8`: what is for compiling without one. Raises InputError
    for what does not fit."""
    _, train, epochs, *_ = told
    if exact:
        if any(one not in (None, False) for one in told):
            raise InputError(
                "`evaluation`, `train`, `epochs`, `loss`, `resolutions`, `worst_case`, `cache_gb`, "
                "`parallel`, `ray` and `output_weights` belong to a goal",
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
    """What compiling and planning have in common. `targets`: what each is called → name or folder
    of its table."""

    model: Path
    targets: Mapping[str, str]
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

    @property
    def target(self) -> str:
        """The only one."""
        (target,) = self.targets.values()
        return target

    def folder(self, done: str = "") -> Path:
        """For several targets the one that holds a folder for each."""
        from shrinkc.compiler.cli.inputs import output_folder

        several = "-".join(self.targets)
        one = next(iter(self.targets.values()))
        return output_folder(self.out, self.model, several if len(self.targets) > 1 else one, done)

    def compile(
        self,
        images: ImageFolder | None,
        calibration: ImageFolder | None,
        *,
        precision: Precision,
        io: Io,
        fold_normalisation: bool,
        merge: Merge,
        int8: tuple[Int8Tuning, list[str], float | None],
    ) -> None:
        """Print the report; fail when a format could not be written. `int8`: its tuning, layers
        that stay fp32, the least signal to noise."""
        from shrinkc.compiler.api.compile import compile as compiled
        from shrinkc.compiler.api.steps.results import save_together
        from shrinkc.compiler.api.steps.target import cost_table
        from shrinkc.compiler.cli.inputs import shapes_of
        from shrinkc.compiler.cli.show.report import report as show_report
        from shrinkc.compiler.cli.show.report import report_json, targets_report

        folder, (int8_tuning, keep_fp32, min_snr_db) = self.folder(), int8
        for target in self.targets.values():
            cost_table(target, self.threads)  # an unknown one is told before anything
        found = {
            name: compiled(
                self.file,
                shapes_of(self.inputs),
                target=target,
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
            for name, target in self.targets.items()
        }
        if len(found) > 1:
            save_together(found, folder)
            targets_report({name: one.report for name, one in found.items()}, folder)
        else:
            (one,) = found.values()
            one.save(folder)
            if as_json():
                print_json(report_json(one.report))
            else:
                show_report(one.report, folder)
        for name, one in found.items():
            _require_complete(one, folder / name if len(found) > 1 else folder)

    def plan(
        self,
        goal: Goal | None,
        points: int | None,
        images: ImageFolder | None,
        evaluation: ImageFolder | None,
        train: ImageFolder | None,
        *,
        precision: Precision | None,
        learning: tuple[int, Parallel, Any],
        resolutions: tuple[int, ...] | None,
        worst_case: bool,
    ) -> None:
        """Print the plan and the report, or a frontier. `learning`: epochs, how many processes, a
        loss of one's own."""
        from shrinkc.compiler.api import plan as api
        from shrinkc.compiler.api.steps.results import save_together
        from shrinkc.compiler.api.targets.many import plan_for
        from shrinkc.compiler.api.targets.worst_case import plan_worst_case
        from shrinkc.compiler.cli.inputs import shapes_of, work_folder
        from shrinkc.compiler.cli.show.plan import frontier_report, planned_report, targets_report
        from shrinkc.compiler.recover.recipe import Recipe

        assert images is not None  # checked with the other options
        several = len(self.targets) > 1
        if several and goal is None:
            raise InputError("`points` is for one target", "run the command once for each target")
        if worst_case and not several:
            raise InputError("`worst_case` is for several targets", "give `target` a,b")
        if worst_case and resolutions is not None:
            raise InputError("`worst_case` and `resolutions` do not go together; leave out one")
        out = self.folder("-planned")
        network, shapes = self.file, shapes_of(self.inputs)
        epochs, parallel, loss = learning
        given: dict[str, Any] = {
            "images": images,
            "precision": precision,
            "evaluation": evaluation,
            "train": train,
            "recipe": Recipe(epochs=epochs, parallel=parallel),
            "task": self.task,
            "loss": loss,
            "opset": self.opset,
            "threads": self.threads,
            "runs": self.runs,
            "folder": work_folder(out),
            "command": current().typed,
            "progress": progress(),
        }
        if worst_case and goal is not None:
            planned = plan_worst_case(
                network, shapes, goal=goal, targets=list(self.targets.values()), **given
            )
            planned.save(out)
            planned_report(planned, out)
            return
        given["resolutions"] = resolutions
        if goal is None:
            found = api.frontier(network, shapes, points=points or 0, target=self.target, **given)
            save_together({point.label: point for point in found}, out)
            frontier_report(found, out)
        elif several:
            plans = plan_for(
                network, shapes, goal=goal, targets=list(self.targets.values()), **given
            )
            plans.save(out)
            targets_report(plans, out)
        else:
            planned = api.plan(network, shapes, goal=goal, target=self.target, **given)
            planned.save(out)
            planned_report(planned, out)


def _require_complete(found: Compiled, folder: Path) -> None:
    """Raises ExportError where a format could not be written."""
    from shrinkc.compiler.formats.registry import FORMATS

    report = found.report
    if report.failures:
        missing = [one.file for one in FORMATS if one.file not in found.files]
        stale = "; the one there is an earlier run's" if (folder / missing[0]).exists() else ""
        raise ExportError(f"{', '.join(missing)} was not written: {report.failures[0]}{stale}")
