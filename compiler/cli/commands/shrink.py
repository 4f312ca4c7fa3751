"""`shrinkc shrink`: less depth within a latency budget, with training or without."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    ArchOption,
    BatchOption,
    BlockShareOption,
    BlocksOption,
    BudgetOption,
    ClassesOption,
    DepthMethodOption,
    EpochsOption,
    EvaluationOption,
    ExpandRatioOption,
    ImagesOption,
    InputOption,
    JobsOption,
    LabelsOption,
    MeanOption,
    ModelArgument,
    OpsetOption,
    OutOption,
    PerActivationOption,
    PrecisionOption,
    RateOption,
    ResizeOption,
    RunsOption,
    SearchEpochsOption,
    SeedOption,
    SpeedupOption,
    StdOption,
    StepsOption,
    TargetOption,
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
from shrinkc.errors import InputError

if TYPE_CHECKING:
    from shrinkc.compiler.api.shrink import ShrinkArguments
    from shrinkc.compiler.support.jobs import Parallel


@app.command(cls=Command)
def shrink(
    model: ModelArgument,
    *,
    inputs: InputOption = None,
    arch: ArchOption = None,
    trust: TrustOption = False,
    target: TargetOption,
    speedup: SpeedupOption = None,
    budget_ms: BudgetOption = None,
    keep_blocks: BlocksOption = None,
    keep_ratio: BlockShareOption = None,
    method: DepthMethodOption = "closed-form",
    per_activation: PerActivationOption = False,
    expand_ratio: ExpandRatioOption = 2.0,
    images: ImagesOption = None,
    labels: LabelsOption = False,
    evaluation: EvaluationOption = None,
    classes: ClassesOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    train: TrainOption = None,
    epochs: EpochsOption = None,
    search_epochs: SearchEpochsOption = None,
    trial_steps: TrialStepsOption = 50,
    steps: StepsOption = None,
    batch: BatchOption = 128,
    learning_rate: RateOption = 0.02,
    seed: SeedOption = 0,
    parallel: JobsOption = "1",
    precision: PrecisionOption = None,
    out: OutOption = None,
    opset: OpsetOption = 17,
    threads: ThreadsOption = None,
    runs: RunsOption = 30,
) -> None:
    """Shrink depth within a latency budget: from unlabelled images alone, or with training."""
    from shrinkc.compiler.api.shrink import ShrinkArguments
    from shrinkc.compiler.api.steps.request import CompileArguments
    from shrinkc.compiler.cost.goal import Goal
    from shrinkc.compiler.depth.trained import Trained
    from shrinkc.compiler.recover.recipe import Recipe

    compiled = CompileArguments(
        *(model, target, tuple(inputs or ()), images, None, classes, resize, mean, std, out),
        *(precision or "fp32", opset, "none", arch, trust, threads or 1, runs, as_json()),
        command=current().typed,
    )
    recipe = Recipe(
        epochs=epochs or 10,
        search_epochs=search_epochs,
        steps=trial_steps,
        batch=batch,
        learning_rate=learning_rate,
        parallel=_side_by_side(parallel),
        seed=seed,
    )
    goal = None
    if speedup is not None or budget_ms is not None:
        goal = Goal.of(speedup=speedup, budget_ms=budget_ms)
    trained = Trained(recipe, per_activation, expand_ratio, keep_blocks, keep_ratio)
    _run(ShrinkArguments(compiled, method, goal, evaluation, steps, train, labels, trained))


def _side_by_side(text: str) -> Parallel:
    """A number of processes, or ray. Raises InputError."""
    if text == "ray":
        return "ray"
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"`parallel` {text}: give a number of processes, or ray")
    return int(text)


def _run(a: ShrinkArguments) -> None:
    """Shrink, compile what is left, print both reports."""
    from shrinkc.compiler.api.shrink import _images, _Work
    from shrinkc.compiler.api.steps.changed_network import Changed, compile_changed
    from shrinkc.compiler.api.steps.network import captured, input_shapes, require_convolutions
    from shrinkc.compiler.api.steps.target import cost_table
    from shrinkc.compiler.cli.inputs import preprocessing_of
    from shrinkc.compiler.cli.show.report import report as show_report
    from shrinkc.compiler.cli.show.shrink import shrunk_json, shrunk_report
    from shrinkc.compiler.load.load import load_model
    from shrinkc.compiler.report.sections import Sections

    given = a.compile
    _check(a)
    table = cost_table(given.target, given.threads)
    model = load_model(given.model, arch=given.arch, trust=given.trust)
    shapes = input_shapes(model, given.shapes)
    if len(shapes) > 1:
        raise InputError("shrinking works for networks with one input")
    preprocessing = preprocessing_of(given, shapes)
    if preprocessing is None:
        raise InputError("shrinking needs a network that reads images (N,C,H,W)")
    reporter = progress()
    with reporter.task("Capturing"):
        graph = captured(model, shapes)
        require_convolutions(graph)
    out = given.out or Path(f"{given.model.stem}-{Path(given.target).name}-shrunk")
    images = _images(a, preprocessing, out, reporter)
    work = _Work(a, graph, images, table, preprocessing, out, reporter)
    outcome = work.shrunk()
    outcome.shrunk.meta.update(graph.meta)
    changed = Changed(outcome.shrunk, outcome.original, "shrunk")
    report, judged = compile_changed(
        *(given, changed, shapes, preprocessing, a.evaluation, out, reporter),
        sections=Sections(plan=outcome.plan),
    )
    speedup = work.measured_ms.speedup(outcome.shrunk) if work.measured_ms else None
    if as_json():
        shrunk = shrunk_json(a, outcome, judged) | {"measured_speedup": speedup}
        print_json({"shrunk": shrunk, "compiled": report.to_json()})
        return
    shrunk_report(outcome, judged)
    if speedup is not None:
        wide_console().print(measured_line(speedup, given.precision))
    show_report(report, out)


def _check(a: ShrinkArguments) -> None:
    from shrinkc.compiler.depth.methods import method_of
    from shrinkc.compiler.depth.trained import labels_missing
    from shrinkc.compiler.train.compute import require_training

    if a.compile.images is None:
        raise InputError("shrinking looks at images", "give `images`; no labels are needed")
    method = method_of(a.method)
    if method.learns and a.steps is not None:
        raise InputError(f"`steps` belongs to closed-form; {a.method} takes `epochs`")
    method.check(a.goal, a.trained)
    if method.learns or a.trains:
        require_training()
    if method.learns and not a.trains:
        raise labels_missing(a.method)
