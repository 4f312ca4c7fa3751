"""`shrinkc shrink`: less depth within a latency budget, with training or without."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.inputs import (
    Asked,
    Reading,
    output_folder,
    shapes_of,
    side_by_side,
    work_folder,
)
from shrinkc.compiler.cli.options import (
    AlphaOption,
    AnnealOption,
    AnnotationsOption,
    ArchOption,
    BatchOption,
    BgrOption,
    BlockSearchOption,
    BlockShareOption,
    BlocksOption,
    BudgetOption,
    CacheGbOption,
    ChainRatioOption,
    ClassesOption,
    DepthMethodOption,
    EpochsOption,
    EvaluationOption,
    ExpandRatioOption,
    ImagesOption,
    ImportanceOption,
    InputOption,
    JobsOption,
    LabelsOption,
    LossOption,
    MeanOption,
    MetricOption,
    ModelArgument,
    OpsetOption,
    OutOption,
    OutputWeightsOption,
    PerActivationOption,
    PrecisionOption,
    PublishedOption,
    RateOption,
    RayOption,
    ResizeOption,
    RunsOption,
    ScaleOption,
    SearchEpochsOption,
    SeedOption,
    SpeedupOption,
    StdOption,
    StepsOption,
    TargetOption,
    TaskOption,
    ThreadsOption,
    TrainOption,
    TrialStepsOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import (
    as_json,
    current,
    measured_line,
    print_json,
    progress,
    wide_console,
)
from shrinkc.compiler.cli.tasks import asked_of, loss_of
from shrinkc.errors import InputError

if TYPE_CHECKING:
    from shrinkc.compiler.api.shrink import Shrunk
    from shrinkc.compiler.cost.goal import Goal
    from shrinkc.compiler.depth.trained import Trained
    from shrinkc.compiler.recover.recipe import Recipe
    from shrinkc.compiler.support.choices import DepthMethod
    from shrinkc.compiler.support.jobs import Parallel


@app.command(cls=Command)
def shrink(
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
    keep_blocks: BlocksOption = None,
    keep_ratio: BlockShareOption = None,
    method: DepthMethodOption = "closed-form",
    per_activation: PerActivationOption = False,
    importance: ImportanceOption = None,
    alpha: AlphaOption = 1.0,
    search: BlockSearchOption = "learned",
    expand_ratio: ExpandRatioOption = 2.0,
    images: ImagesOption = None,
    labels: LabelsOption = False,
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
    search_epochs: SearchEpochsOption = None,
    trial_steps: TrialStepsOption = 50,
    steps: StepsOption = None,
    batch: BatchOption = 128,
    learning_rate: RateOption = 0.02,
    published: PublishedOption = False,
    anneal: AnnealOption = 0.0,
    chain_ratio: ChainRatioOption = 0.0,
    seed: SeedOption = 0,
    parallel: JobsOption = None,
    ray: RayOption = None,
    precision: PrecisionOption = None,
    out: OutOption = None,
    opset: OpsetOption = 17,
    threads: ThreadsOption = None,
    runs: RunsOption = 30,
) -> None:
    """Shrink depth within a latency budget: from unlabelled images alone, or with training."""
    from shrinkc.compiler.depth.trained import Trained

    lengths = epochs, search_epochs, batch, learning_rate
    recipe = _recipe(method, published, lengths, trial_steps, seed, side_by_side(parallel, ray))
    trains = train is not None or labels
    _refuse_epochs(epochs, trains)
    judged = asked_of(task, metric, output_weights)
    asked = Asked(model, inputs, arch, trust, target, precision, out, opset, threads, runs, judged)
    reading = Reading(classes, resize, mean, std, bgr, scale, cache_gb, annotations=annotations)
    seen = _Seen(reading, images, labels, evaluation, train, loss_of(loss))
    recipe = replace(recipe, chain_ratio=chain_ratio)
    how = importance, alpha, search, anneal
    blocks = keep_blocks, keep_ratio
    options = Trained(recipe, per_activation, expand_ratio, *blocks, *how)
    _run(asked, target, seen, method, _goal(speedup, budget_ms), options, steps)


def _refuse_epochs(epochs: int | None, trains: bool) -> None:
    from shrinkc.compiler.support.unread import refuse_unread

    refuse_unread(("epochs", epochs is not None, trains, "training: give `train`, or `labels`"))


def _recipe(
    method: DepthMethod,
    published: bool,
    lengths: tuple[int | None, int | None, int, float],
    trial_steps: int,
    seed: int,
    parallel: Parallel,
) -> Recipe:
    """`lengths`: epochs, those of the search, batch, learning rate. Raises InputError for a
    published schedule of a method without one, or beside another."""
    from shrinkc.compiler.depth.masks import depthshrinker, layer_folding
    from shrinkc.compiler.recover.recipe import Recipe

    schedules = {
        "depthshrinker": depthshrinker.PUBLISHED,
        "layer-folding": layer_folding.PUBLISHED,
    }

    epochs, search_epochs, batch, rate = lengths
    plain = Recipe(steps=trial_steps, seed=seed, parallel=parallel)
    given = Recipe(epochs or plain.epochs, search_epochs, batch=batch, learning_rate=rate)
    made = replace(given, steps=trial_steps, seed=seed, parallel=parallel)
    if not published:
        return made
    if method not in schedules:
        names = " and ".join(schedules)
        raise InputError(f"`published` is the schedule of {names}, not of {method}")
    if epochs is not None or made != plain:
        raise InputError(
            "`published` sets `epochs`, `search_epochs`, `batch` and `learning_rate`",
            "leave them out",
        )
    return replace(schedules[method], steps=trial_steps, seed=seed, parallel=parallel)


@dataclass(frozen=True)
class _Seen:
    """Images, and what they are for."""

    reading: Reading
    images: Path | None
    labels: bool
    evaluation: Path | None
    train: Path | None
    loss: Any


def _goal(speedup: float | None, budget_ms: float | None) -> Goal | None:
    """None where the method counts blocks, or makes nothing faster. Raises InputError for both."""
    from shrinkc.compiler.cost.goal import Goal

    if speedup is None and budget_ms is None:
        return None
    return Goal.of(speedup=speedup, budget_ms=budget_ms)


def _run(
    asked: Asked,
    target: str,
    seen: _Seen,
    method: DepthMethod,
    goal: Goal | None,
    options: Trained,
    steps: int | None,
) -> None:
    from shrinkc.compiler.api.shrink import shrink as shrunk

    if seen.images is None:
        raise InputError("shrinking looks at images", "give `images`; no labels are needed")
    folder = output_folder(asked.out, asked.model, target, "-shrunk")
    found = shrunk(
        asked.file,
        shapes_of(asked.inputs),
        target=target,
        images=seen.reading.folder(seen.images),
        goal=goal,
        method=method,
        train=seen.reading.if_given(seen.train),
        labels=seen.labels,
        evaluation=seen.reading.if_given(seen.evaluation),
        options=options,
        steps=steps,
        task=asked.task,
        loss=seen.loss,
        precision=asked.precision or "fp32",
        opset=asked.opset,
        threads=asked.threads or 1,
        runs=asked.runs,
        folder=work_folder(folder),
        command=current().typed,
        progress=progress(),
    )
    found.save(folder)
    _show(method, found, folder)


def _show(method: str, shrunk: Shrunk, folder: Path) -> None:
    from shrinkc.compiler.cli.show.report import report as show_report
    from shrinkc.compiler.cli.show.report import report_json
    from shrinkc.compiler.cli.show.shrink import shrunk_json, shrunk_report

    report = shrunk.report
    if as_json():
        print_json({"shrunk": shrunk_json(method, shrunk), "compiled": report_json(report)})
        return
    shrunk_report(shrunk)
    if shrunk.measured_speedup is not None:
        wide_console().print(measured_line(shrunk.measured_speedup, report.precision))
    show_report(report, folder)
