"""`shrinkc prune`: less width within a budget, with training or without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    AllocationOption,
    ArchOption,
    BatchOption,
    BudgetOption,
    CandidatesOption,
    ChannelsOption,
    ClassesOption,
    CompensateOption,
    CriterionOption,
    EpochsOption,
    EvaluationOption,
    EveryOption,
    FloorOption,
    ImagesOption,
    InOrderOption,
    InputOption,
    KeepOption,
    LabelsOption,
    LimitOption,
    MacsOption,
    MeanOption,
    ModelArgument,
    MultipleOption,
    NormaliseOption,
    OpsetOption,
    OutOption,
    ParamsOption,
    PlotOption,
    PrecisionOption,
    RateOption,
    ResizeOption,
    RoundEpochsOption,
    RoundsOption,
    RunsOption,
    SeedOption,
    SpeedupOption,
    StdOption,
    StepsOption,
    StrengthOption,
    TargetOption,
    ThreadsOption,
    TrainOption,
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
from shrinkc.errors import InputError

if TYPE_CHECKING:
    from shrinkc.compiler.api.prune import PruneArguments
    from shrinkc.compiler.images.preprocessing import Preprocessing
    from shrinkc.passes.criteria.spec import CriterionSpec


@app.command(cls=Command)
def prune(
    model: ModelArgument,
    *,
    inputs: InputOption = None,
    arch: ArchOption = None,
    trust: TrustOption = False,
    target: TargetOption,
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
    candidates: CandidatesOption = 16,
    compensate: CompensateOption = None,
    in_order: InOrderOption = False,
    images: ImagesOption = None,
    labels: LabelsOption = False,
    limit: LimitOption = 500,
    evaluation: EvaluationOption = None,
    classes: ClassesOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    train: TrainOption = None,
    epochs: EpochsOption = None,
    rounds: RoundsOption = 1,
    round_epochs: RoundEpochsOption = 1,
    every: EveryOption = None,
    strength: StrengthOption = 1e-4,
    steps: StepsOption = None,
    batch: BatchOption = 128,
    learning_rate: RateOption = 0.02,
    seed: SeedOption = 0,
    precision: PrecisionOption = None,
    out: OutOption = None,
    opset: OpsetOption = 17,
    plot: PlotOption = None,
    threads: ThreadsOption = None,
    runs: RunsOption = 30,
) -> None:
    """Remove channels until the network fits a budget: at once, or in rounds with training."""
    from shrinkc.compiler.api.prune import PruneArguments
    from shrinkc.compiler.api.steps.request import CompileArguments
    from shrinkc.compiler.cost.goal import Goal
    from shrinkc.compiler.recover.recipe import Recipe
    from shrinkc.compiler.width.allocation import Allocation
    from shrinkc.compiler.width.prune import Pruning

    compiled = CompileArguments(
        *(model, target, tuple(inputs or ()), images, None, classes, resize, mean, std, out),
        *(precision or "fp32", opset, "none", arch, trust, threads or 1, runs, as_json()),
        command=current().typed,
    )
    widths = Allocation(allocation, normalise, multiple, floor, candidates)
    recipe = Recipe(epochs or 10, round_epochs, batch=batch, learning_rate=learning_rate, seed=seed)
    goal = None
    if any(value is not None for value in (speedup, budget_ms, macs, params, channels)):
        goal = Goal.of(
            speedup=speedup, budget_ms=budget_ms, macs=macs, params=params, channels=channels
        )
    pruning = Pruning(widths, rounds, recipe, _shares(keep or []))
    _run(
        PruneArguments(
            *(compiled, criterion, goal, pruning, limit, labels, train),
            *(epochs, compensate, steps, strength, evaluation, plot, every, in_order),
        )
    )


def _shares(texts: list[str]) -> dict[str, float]:
    """GROUP=SHARE, several times. Raises InputError."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise InputError(f"`keep` {text}: give a channel group and a share, GROUP=0.5")
    return found


def _run(a: PruneArguments) -> None:
    """Prune, compile what is left, print both reports."""
    from shrinkc.compiler.api.prune import _Work
    from shrinkc.compiler.api.steps.changed_network import Changed, compile_changed
    from shrinkc.compiler.api.steps.network import captured, input_shapes, require_convolutions
    from shrinkc.compiler.api.steps.target import cost_table
    from shrinkc.compiler.cli.show.prune import pruned_json, pruned_report, times
    from shrinkc.compiler.cli.show.report import report as show_report
    from shrinkc.compiler.load.load import load_model
    from shrinkc.compiler.report.plots import widths_before_and_after
    from shrinkc.compiler.width.methods import spec_of

    given, method = a.compile, spec_of(a.criterion)
    _check(a, method)
    table = cost_table(given.target, given.threads)
    model = load_model(given.model, arch=given.arch, trust=given.trust)
    shapes = input_shapes(model, given.shapes)
    preprocessing = _preprocessing(a, shapes)
    reporter = progress()
    with reporter.task("Capturing"):
        graph = captured(model, shapes)
        require_convolutions(graph)
    out = given.out or Path(f"{given.model.stem}-{Path(given.target).name}-pruned")
    work = _Work(a, method, graph, preprocessing, table, out, reporter)
    pruned, skipped = work.pruned()
    changed = Changed(pruned.graph_module, pruned.original, "pruned")
    report, judged = compile_changed(
        given, changed, shapes, preprocessing, a.evaluation, out, reporter
    )
    if a.plot is not None:
        title = f"{given.model.name}, {a.criterion}: {times(pruned)}"
        rows = [(w.group, w.before, w.after) for w in pruned.widths]
        widths_before_and_after(title, rows, a.plot)
    speedup = work.measured_ms.speedup(pruned.graph_module) if work.measured_ms else None
    if as_json():
        found = pruned_json(a, pruned, skipped, judged) | {"measured_speedup": speedup}
        print_json({"pruned": found, "compiled": report.to_json()})
        return
    pruned_report(pruned, skipped, judged)
    if speedup is not None:
        wide_console().print(measured_line(speedup, given.precision))
    show_report(report, out)


def _check(a: PruneArguments, method: CriterionSpec) -> None:
    """What can be known to fail before anything is loaded."""
    from shrinkc.compiler.report.plots import require_matplotlib
    from shrinkc.compiler.train.compute import require_training
    from shrinkc.compiler.width.methods import CRITERIA
    from shrinkc.compiler.width.prune import check_goal

    check_goal(a.goal, a.pruning.keep)
    if method.needs != "nothing" and a.compile.images is None:
        without = ", ".join(c.name for c in CRITERIA if c.needs == "nothing")
        raise InputError(
            f"`criterion` {a.criterion} looks at images",
            f"give `images`, or a criterion that needs none: {without}",
        )
    if a.compensate and a.compile.images is None:
        raise InputError("`compensate` looks at images", "give `images`; no labels are needed")
    if a.in_order and a.compile.images is None:
        raise InputError("`in_order` looks at images", "give `images`; no labels are needed")
    if a.in_order and a.compensate is False:
        raise InputError("`in_order` compensates every layer", "leave out `compensate`")
    if a.in_order and a.every is not None:
        raise InputError("`in_order` decides at once, `every` during a training", "give one")
    if a.pruning.allocation.normalise == "measured" and a.compile.images is None:
        raise InputError("`normalise` measured looks at images", "give `images`")
    if method.needs == "labels" and not a.labels:
        raise InputError(
            f"`criterion` {a.criterion} needs labels",
            "give `labels` when the folders of `images` are classes",
        )
    if a.labels and a.compile.images is None:
        raise InputError("`labels` says that the folders of `images` are classes", "give `images`")
    if a.steps and (a.trains or not a.compensates(method)):
        raise InputError("`steps` of distillation follow `compensate`, where nothing is trained")
    if a.every is not None and not (method.scheduled and a.trains):
        some = ", ".join(c.name for c in CRITERIA if c.scheduled)
        raise InputError(f"`every` belongs to `criterion` {some} with `train`, or `epochs`")
    if a.epochs is not None and not a.trains:
        raise InputError("`epochs` of what?", "give `train`, or `images` and `labels`")
    if a.compile.precision == "int8" and a.compile.images is None:
        raise InputError("`precision` int8 needs images to calibrate on", "give `images`")
    if a.trains:
        require_training()
    if a.plot is not None:
        require_matplotlib()


def _preprocessing(a: PruneArguments, shapes: list[tuple[int, ...]]) -> Preprocessing | None:
    """None where no images are read."""
    from shrinkc.compiler.cli.inputs import preprocessing_of

    read = a.compile.images or a.train or a.evaluation
    if read is None:
        return None
    if len(shapes) > 1:
        raise InputError("images are read for networks with one input; leave them out here")
    return preprocessing_of(replace(a.compile, images=read), shapes)
