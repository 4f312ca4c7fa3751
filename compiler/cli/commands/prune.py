"""`shrinkc prune`: less width within a budget, with training or without."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.inputs import (
    LABELS_READ,
    Asked,
    Reading,
    output_folder,
    shapes_of,
    side_by_side,
    work_folder,
)
from shrinkc.compiler.cli.options import (
    AllocationOption,
    AnnotationsOption,
    ArchOption,
    BatchOption,
    BgrOption,
    BudgetOption,
    CacheGbOption,
    CandidatesOption,
    ChainRatioOption,
    ChannelsOption,
    ClassesOption,
    CompensateOption,
    CriterionOption,
    DropBelowOption,
    EpochsOption,
    EvaluationOption,
    EvaluationsOption,
    EveryOption,
    FloorOption,
    FromScratchOption,
    ImagesOption,
    InitialOption,
    InOrderOption,
    InputOption,
    JobsOption,
    KeepOption,
    LabelsOption,
    LimitOption,
    LossOption,
    MacsOption,
    MeanOption,
    MetricOption,
    ModelArgument,
    MultipleOption,
    NormaliseOption,
    OneByOneOption,
    OpsetOption,
    OptionalTargetOption,
    OutOption,
    OutputWeightsOption,
    ParamsOption,
    PerOption,
    PlotOption,
    PrecisionOption,
    RateOption,
    RatesOption,
    RayOption,
    ResizeOption,
    RoundEpochsOption,
    RoundsOption,
    RunsOption,
    ScaleOption,
    SearchStepOption,
    SeedOption,
    SpeedupOption,
    StdOption,
    StepsOption,
    StrengthOption,
    TaskOption,
    ThreadsOption,
    TrainOption,
    TrustOption,
    WidthSearchOption,
)
from shrinkc.compiler.cli.output import (
    NOT_JUDGED,
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
    from torch import fx

    from shrinkc.compiler.api.prune import Pruned
    from shrinkc.compiler.cost.goal import Goal
    from shrinkc.compiler.support.choices import CriterionName, Per, Scratch, SearchName
    from shrinkc.compiler.width.prune import Pruning
    from shrinkc.compiler.width.search.methods import Search


@app.command(cls=Command)
def prune(
    model: ModelArgument,
    *,
    inputs: InputOption = None,
    arch: ArchOption = None,
    trust: TrustOption = False,
    task: TaskOption = "auto",
    metric: MetricOption = None,
    output_weights: OutputWeightsOption = None,
    target: OptionalTargetOption = None,
    speedup: SpeedupOption = None,
    budget_ms: BudgetOption = None,
    macs: MacsOption = None,
    params: ParamsOption = None,
    channels: ChannelsOption = None,
    keep: KeepOption = None,
    criterion: CriterionOption = "l1",
    allocation: AllocationOption = None,
    normalise: NormaliseOption = None,
    multiple: MultipleOption = None,
    floor: FloorOption = 0.1,
    candidates: CandidatesOption = None,
    search_step: SearchStepOption = 0.1,
    compensate: CompensateOption = None,
    in_order: InOrderOption = False,
    method: WidthSearchOption = None,
    evaluations: EvaluationsOption = None,
    rates: RatesOption = None,
    images: ImagesOption = None,
    labels: LabelsOption = False,
    limit: LimitOption = 500,
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
    rounds: RoundsOption = 1,
    round_epochs: RoundEpochsOption = None,
    one_by_one: OneByOneOption = False,
    initial: InitialOption = None,
    from_scratch: FromScratchOption = None,
    every: EveryOption = None,
    per: PerOption = None,
    strength: StrengthOption = None,
    drop_below: DropBelowOption = None,
    steps: StepsOption = None,
    batch: BatchOption = 128,
    learning_rate: RateOption = 0.02,
    chain_ratio: ChainRatioOption = 0.0,
    seed: SeedOption = 0,
    parallel: JobsOption = None,
    ray: RayOption = None,
    precision: PrecisionOption = None,
    out: OutOption = None,
    opset: OpsetOption = 17,
    plot: PlotOption = None,
    threads: ThreadsOption = None,
    runs: RunsOption = 30,
) -> None:
    """Remove channels until the network fits a budget: at once, or in rounds with training.
    Without --target nothing is compiled: --out holds model.safetensors, for shrinkc compile.
    """
    judged = asked_of(task, metric, output_weights)
    asked = Asked(model, inputs, arch, trust, target, precision, out, opset, threads, runs, judged)
    reading = Reading(classes, resize, mean, std, bgr, scale, cache_gb, annotations=annotations)
    seen = _Seen(reading, images, labels, limit, evaluation, train, loss_of(loss))
    choosing = every, per, in_order, _search(method, evaluations, rates)
    how = _How(criterion, compensate, epochs, steps, strength, drop_below, *choosing)
    goal = _goal(speedup, budget_ms, macs, params, channels)
    widths = allocation, normalise, multiple, floor, candidates, search_step
    turns = rounds, one_by_one, initial and _initial(asked, initial), from_scratch
    learning = epochs, round_epochs, batch, learning_rate, seed, (parallel, ray), chain_ratio
    _run(asked, seen, how, goal, _pruning(widths, turns, learning, keep), plot)


def _initial(asked: Asked, path: Path) -> fx.GraphModule:
    """Captured as the model is."""
    from shrinkc.compiler.api.steps.network import subject_of

    subject = subject_of(replace(asked.file, path=path), shapes_of(asked.inputs))
    return subject.layered(progress())


@dataclass(frozen=True)
class _Seen:
    """Images, and what they are for."""

    reading: Reading
    images: Path | None
    labels: bool
    limit: int
    evaluation: Path | None
    train: Path | None
    loss: Any


@dataclass(frozen=True)
class _How:
    """What is said of the criterion and what follows it."""

    criterion: CriterionName
    compensate: bool | None
    epochs: int | None
    steps: int | None
    strength: float | None
    drop_below: float | None
    every: int | None
    per: Per | None
    in_order: bool
    search: Search | None


def _pruning(
    widths: tuple[Any, Any, int | None, float, int | None, float],
    turns: tuple[int, bool, fx.GraphModule | None, Scratch | None],
    learning: tuple[int | None, int | None, int, float, int, tuple[str | None, str | None], float],
    keep: list[str] | None,
) -> Pruning:
    """`widths` as of `Allocation`; `turns`: rounds, one by one, the initial network, from scratch;
    `learning`: from `epochs` to `chain_ratio`. Raises InputError."""
    from shrinkc.compiler.recover.recipe import Recipe
    from shrinkc.compiler.width.allocation import Allocation
    from shrinkc.compiler.width.prune import Pruning

    epochs, round_epochs, batch, rate, seed, beside, wide = learning
    recipe = Recipe(
        *(epochs or 10, round_epochs),
        batch=batch,
        learning_rate=rate,
        parallel=side_by_side(*beside),
        seed=seed,
        chain_ratio=wide,
    )
    rounds, one_by_one, initial, scratch = turns
    shares = _shares(keep or [])
    return Pruning(Allocation(*widths), rounds, recipe, shares, one_by_one, initial, scratch)


def _search(method: SearchName | None, evaluations: int | None, rates: str | None) -> Search | None:
    """Raises InputError for what is said of no search."""
    from shrinkc.compiler.support.unread import refuse_unread
    from shrinkc.compiler.width.search.methods import Search

    for name, given in (("evaluations", evaluations), ("rates", rates)):
        refuse_unread((name, given is not None, method is not None, "`method`"))
    try:
        values = tuple(float(text) for text in rates.split(",")) if rates else ()
    except ValueError:
        raise InputError(f"`rates` {rates}: give numbers, such as 0.3,0.7") from None
    return None if method is None else Search(method, evaluations, values)


def _goal(
    speedup: float | None,
    budget_ms: float | None,
    macs: float | None,
    params: float | None,
    channels: float | None,
) -> Goal | None:
    """None where single groups are named instead. Raises InputError for several."""
    from shrinkc.compiler.cost.goal import Goal

    if all(value is None for value in (speedup, budget_ms, macs, params, channels)):
        return None
    return Goal.of(
        speedup=speedup, budget_ms=budget_ms, macs=macs, params=params, channels=channels
    )


def _refuse_early(asked: Asked, seen: _Seen, plot: Path | None) -> None:
    """Raises InputError for a plot that cannot be drawn, and for what would be read of images that
    are not given: those to look at, to judge and to train on."""
    from shrinkc.compiler.report.plots import require_plot
    from shrinkc.compiler.support.unread import refuse_unread

    if plot is not None:
        require_plot(plot)
    reading, others = seen.reading, (seen.evaluation, seen.train)
    reading.refuse_unread(seen.images, *others)
    labelled = seen.labels or asked.target is not None or others != (None, None)
    refuse_unread(("classes", reading.classes is not None, labelled, LABELS_READ))


def _run(
    asked: Asked, seen: _Seen, how: _How, goal: Goal | None, options: Pruning, plot: Path | None
) -> None:
    from shrinkc.compiler.api.prune import prune as pruned

    _refuse_early(asked, seen, plot)
    if seen.labels and seen.images is None:
        raise InputError("`labels` says that the folders of `images` are classes", "give `images`")
    if asked.precision == "int8" and seen.images is None:
        raise InputError("`precision` int8 needs images to calibrate on", "give `images`")
    folder = output_folder(asked.out, asked.model, asked.target, "-pruned")
    found = pruned(
        asked.file,
        shapes_of(asked.inputs),
        goal=goal,
        criterion=how.criterion,
        target=asked.target,
        images=seen.reading.if_given(seen.images),
        labels=seen.labels,
        limit=seen.limit,
        evaluation=seen.reading.if_given(seen.evaluation),
        train=seen.reading.if_given(seen.train),
        epochs=how.epochs,
        options=options,
        compensate=how.compensate,
        steps=how.steps,
        strength=how.strength,
        drop_below=how.drop_below,
        every=how.every,
        per=how.per,
        in_order=how.in_order,
        method=how.search,
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
    for rate, other in found.others.items():
        other.save(_beside(folder, rate))
    if plot is not None:
        found.plot(plot)
    _show(found, folder)


def _beside(folder: Path, rate: float) -> Path:
    """Where the network for another value of the goal lies."""
    return folder.with_name(f"{folder.name}-{rate:g}")


def _show(pruned: Pruned, folder: Path) -> None:
    from shrinkc.compiler.cli.show.prune import pruned_json, pruned_report
    from shrinkc.compiler.cli.show.report import report as show_report
    from shrinkc.compiler.cli.show.report import report_json

    report = None if pruned.compiled is None else pruned.compiled.report
    if as_json():
        compiled = None if report is None else report_json(report)
        others = {str(_beside(folder, r)): pruned_json(o) for r, o in pruned.others.items()}
        print_json({"pruned": pruned_json(pruned), "compiled": compiled, "others": others})
        return
    pruned_report(pruned)
    for rate, other in pruned.others.items():
        words = f"{_beside(folder, rate)}/: {other.summary()}; {other.judged or NOT_JUDGED}"
        wide_console().print(escape(words), soft_wrap=True)
    if report is None:
        wide_console().print(escape(f"{folder}/: model.safetensors"), soft_wrap=True)
        return
    if pruned.measured_speedup is not None:
        wide_console().print(measured_line(pruned.measured_speedup, report.precision))
    show_report(report, folder)


def _shares(texts: list[str]) -> dict[str, float]:
    """GROUP=SHARE, several times. Raises InputError."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            name, share = "", 0.0
        if not name:
            raise InputError(f"`keep` {text}: give a channel group and a share, GROUP=0.5")
        if name in found:
            raise InputError(f"`keep` {name}: two shares for one group; give one")
        found[name] = share
    return found
