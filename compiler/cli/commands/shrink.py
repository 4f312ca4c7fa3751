"""`shrinkc shrink`: less depth within a latency budget, with training or without."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrinkc.compiler.api.shrink import ShrinkArguments, _images, _Work
from shrinkc.compiler.api.steps.changed_network import Changed, compile_changed
from shrinkc.compiler.api.steps.network import captured, input_shapes, require_convolutions
from shrinkc.compiler.api.steps.target import cost_table
from shrinkc.compiler.cli.app import app
from shrinkc.compiler.cli.inputs import preprocessing_of
from shrinkc.compiler.cli.options import (
    ArchOption,
    BatchOption,
    BudgetOption,
    ClassesOption,
    EvaluationOption,
    InputOption,
    JsonOption,
    MeanOption,
    ModelArgument,
    OpsetOption,
    PrecisionOption,
    RateOption,
    ResizeOption,
    RunsOption,
    SpeedupOption,
    StdOption,
    StepsOption,
    TargetOption,
    ThreadsOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import measured_line, print_json, progress
from shrinkc.compiler.cli.output import wide_console as show_wide_console
from shrinkc.compiler.cli.show.report import report as show_report
from shrinkc.compiler.cli.show.shrink import _json, _show
from shrinkc.compiler.depth.methods import METHODS
from shrinkc.compiler.depth.trained import check_goal, labels_missing
from shrinkc.compiler.load.load import load_model
from shrinkc.compiler.report.sections import Sections
from shrinkc.compiler.support.jobs import Parallel
from shrinkc.compiler.train.compute import require_training
from shrinkc.errors import InputError


@app.command()
def shrink(
    context: typer.Context,
    model: ModelArgument,
    target: TargetOption,
    images: Annotated[
        Path | None,
        typer.Option(help="Images to fit and calibrate on, no labels needed: a folder, a tar."),
    ] = None,
    speedup: SpeedupOption = None,
    budget_ms: BudgetOption = None,
    method: Annotated[
        str,
        typer.Option(
            help="closed-form (no labels), or with training: depthshrinker, two-stage-dp, "
            "layermerge, layer-pruning; expand trains for accuracy at equal speed."
        ),
    ] = "closed-form",
    train: Annotated[
        Path | None, typer.Option(help="Images to train on, a folder for every class.")
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Train on --images: their folders are classes.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Of fine-tuning.")] = 10,
    search_epochs: Annotated[
        int | None, typer.Option(min=1, help="Of depthshrinker's search; default: --epochs.")
    ] = None,
    trial_steps: Annotated[
        int, typer.Option(min=1, help="Of training before the DP methods judge an option.")
    ] = 50,
    batch: BatchOption = 128,
    learning_rate: RateOption = 0.02,
    jobs: Annotated[
        str, typer.Option(help="Options tried side by side: a number of processes, or ray.")
    ] = "1",
    seed: Annotated[int, typer.Option(help="Of the training.")] = 0,
    keep: Annotated[
        int | None,
        typer.Option(help="depthshrinker: blocks that keep their activations, not a budget."),
    ] = None,
    keep_ratio: Annotated[
        float | None, typer.Option(help="depthshrinker: their share, 0 to 1, not a budget.")
    ] = None,
    per_activation: Annotated[
        bool, typer.Option("--per-activation", help="depthshrinker: a mask for each activation.")
    ] = False,
    expand_ratio: Annotated[float, typer.Option(help="expand: hidden channels over inputs.")] = 2.0,
    evaluation: EvaluationOption = None,
    classes: ClassesOption = None,
    steps: StepsOption = None,
    input: InputOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Output folder. Default: MODEL-TARGET-shrunk."),
    ] = None,
    precision: PrecisionOption = "fp32",
    opset: OpsetOption = 17,
    arch: ArchOption = None,
    trust: TrustOption = False,
    threads: ThreadsOption = 1,
    runs: RunsOption = 30,
    as_json: JsonOption = False,
) -> None:
    """Shrink depth within a latency budget: from unlabelled images alone, or with training."""
    from shrinkc.compiler.api.shrink import ShrinkArguments
    from shrinkc.compiler.api.steps.request import CompileArguments
    from shrinkc.compiler.cli.commands.shrink import run_shrink, side_by_side
    from shrinkc.compiler.cost.goal import Goal
    from shrinkc.compiler.depth.trained import Trained
    from shrinkc.compiler.recover.recipe import Recipe

    compiled = CompileArguments(
        *(model, target, tuple(input or ()), images, None, classes, resize, mean, std, out),
        *(precision, opset, "none", arch, trust, threads, runs, as_json, context.obj),
    )
    recipe = Recipe(
        epochs,
        search_epochs,
        trial_steps,
        batch,
        learning_rate,
        parallel=side_by_side(jobs),
        seed=seed,
    )
    goal = None
    if speedup is not None or budget_ms is not None:
        goal = Goal.of(speedup=speedup, budget_ms=budget_ms)
    trained = Trained(recipe, per_activation, expand_ratio, keep, keep_ratio)
    run_shrink(ShrinkArguments(compiled, method, goal, evaluation, steps, train, labels, trained))


def side_by_side(text: str) -> Parallel:
    """`--jobs`. Raises InputError."""
    if text == "ray":
        return "ray"
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--jobs {text}: give a number of processes, or ray")
    return int(text)


def run_shrink(a: ShrinkArguments) -> None:
    """Shrink, compile what is left, print both reports."""
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
    reporter = progress(given.as_json)
    with reporter.task("Capturing"):
        graph = captured(model, shapes)
        require_convolutions(graph)
    out = given.out or Path(f"{given.model.stem}-{Path(given.target).name}-shrunk")
    images = _images(a, preprocessing, out, reporter)
    work = _Work(a, graph, images, table, preprocessing, out, reporter)
    outcome = work.closed_form() if a.method == "closed-form" else work.trained()
    outcome.shrunk.meta.update(graph.meta)
    changed = Changed(outcome.shrunk, outcome.original, "shrunk")
    report, judged = compile_changed(
        *(given, changed, shapes, preprocessing, a.evaluation, out, reporter),
        sections=Sections(plan=outcome.plan),
    )
    speedup = work.measured_ms.speedup(outcome.shrunk) if work.measured_ms else None
    if given.as_json:
        shrunk = _json(a, outcome, judged) | {"measured_speedup": speedup}
        print_json({"shrunk": shrunk, "compiled": report.to_json()})
        return
    _show(outcome, judged)
    if speedup is not None:
        show_wide_console().print(measured_line(speedup, given.precision))
    show_report(report, out)


def _check(a: ShrinkArguments) -> None:
    if a.method not in METHODS:
        raise InputError(f"--method {a.method}: give one of {', '.join(METHODS)}")
    if a.compile.images is None:
        raise InputError("shrinking looks at images; give --images DIR (no labels are needed)")
    learns = a.method != "closed-form"
    if learns and a.steps is not None:
        raise InputError(f"--steps belongs to closed-form; {a.method} takes --epochs")
    check_goal(a.method, a.goal, a.trained)
    if learns or a.trains:
        require_training()
    if learns and not a.trains:
        raise labels_missing(a.method)
