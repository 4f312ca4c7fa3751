"""`shrinkc prune`: less width within a budget, with training or without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from shrinkc.compiler.api.prune import PruneArguments, _Work
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
from shrinkc.compiler.cli.show.prune import _json, _show, _times
from shrinkc.compiler.cli.show.report import report as show_report
from shrinkc.compiler.images.preprocessing import Preprocessing
from shrinkc.compiler.load.load import load_model
from shrinkc.compiler.report.plots import require_matplotlib, widths_before_and_after
from shrinkc.compiler.train.compute import require_training
from shrinkc.compiler.width.allocation import Kind, Normalise
from shrinkc.compiler.width.methods import CRITERIA, spec_of
from shrinkc.compiler.width.prune import check_goal
from shrinkc.errors import InputError
from shrinkc.passes.criteria.spec import CriterionSpec


@app.command()
def prune(
    context: typer.Context,
    model: ModelArgument,
    target: TargetOption,
    criterion: Annotated[
        str,
        typer.Option(
            help="Without images: l1, l2, slimming, ssl, random, equal; with --images: hrank, "
            "dropnet, cap, he; with labels too: group-fisher."
        ),
    ] = "l1",
    speedup: SpeedupOption = None,
    budget_ms: BudgetOption = None,
    macs: Annotated[
        float | None, typer.Option(help="Share of the multiply-accumulates to keep, 0 to 1.")
    ] = None,
    params: Annotated[
        float | None, typer.Option(help="Share of the parameters to keep, 0 to 1.")
    ] = None,
    keep_ratio: Annotated[
        float | None, typer.Option(help="Share of the channels to keep, 0 to 1.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="GROUP=RATIO: this group alone; several times. See shrinkc inspect."),
    ] = None,
    allocation: Annotated[
        str | None,
        typer.Option(
            help="knapsack (least importance for the cost), global (one threshold), uniform. "
            "Default: knapsack; uniform for --keep-ratio."
        ),
    ] = None,
    normalise: Annotated[
        str | None,
        typer.Option(
            help="How groups compare: share, mean, sum, none, cumulative; measured: each pruned "
            "alone and judged on --images. Default: as the criterion needs."
        ),
    ] = None,
    multiple: Annotated[
        int | None, typer.Option(help="Widths are multiples of it. Default: the target's.")
    ] = None,
    floor: Annotated[float, typer.Option(help="Share of each group that stays.")] = 0.1,
    candidates: Annotated[
        int, typer.Option(help="Widths of a group that are priced, at most.")
    ] = 16,
    images: Annotated[
        Path | None,
        typer.Option(help="Images for criteria and --compensate: a folder, a tar."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Of those images.")] = 500,
    labels: Annotated[
        bool, typer.Option("--labels", help="Folders of --images are classes.")
    ] = False,
    compensate: Annotated[
        bool | None,
        typer.Option(
            "--compensate/--no-compensate",
            help="Fit what is left to what the network computed, by least squares. "
            "Default: cap, he.",
        ),
    ] = None,
    steps: StepsOption = None,
    train: Annotated[
        Path | None,
        typer.Option(help="Images to train on, labelled by folders or not."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Of fine-tuning; 10 with --train. With --labels: on --images."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Prune a little, tune a little.")] = 1,
    round_epochs: Annotated[
        int, typer.Option(min=1, help="Of training between rounds, or with a penalty.")
    ] = 1,
    every: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="group-fisher with --train: a channel goes every so many steps of --round-epochs "
            "of training, as published (25).",
        ),
    ] = None,
    strength: Annotated[float, typer.Option(help="slimming, ssl: weight of the penalty.")] = 1e-4,
    batch: BatchOption = 128,
    learning_rate: RateOption = 0.02,
    seed: Annotated[int, typer.Option(help="Of training and random scores.")] = 0,
    evaluation: EvaluationOption = None,
    classes: ClassesOption = None,
    input: InputOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Output folder. Default: MODEL-TARGET-pruned."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="PNG of the widths before and after to write.")
    ] = None,
    precision: PrecisionOption = "fp32",
    opset: OpsetOption = 17,
    arch: ArchOption = None,
    trust: TrustOption = False,
    threads: ThreadsOption = 1,
    runs: RunsOption = 30,
    as_json: JsonOption = False,
) -> None:
    """Remove channels until the network fits a budget: at once, or in rounds with training."""
    from shrinkc.compiler.api.prune import PruneArguments
    from shrinkc.compiler.api.steps.request import CompileArguments
    from shrinkc.compiler.cli.commands.prune import (
        allocation_named,
        normalise_named,
        run_prune,
        shares,
    )
    from shrinkc.compiler.cost.goal import Goal
    from shrinkc.compiler.recover.recipe import Recipe
    from shrinkc.compiler.width.allocation import Allocation
    from shrinkc.compiler.width.prune import Pruning

    compiled = CompileArguments(
        *(model, target, tuple(input or ()), images, None, classes, resize, mean, std, out),
        *(precision, opset, "none", arch, trust, threads, runs, as_json, context.obj),
    )
    widths = Allocation(
        *(allocation_named(allocation), normalise_named(normalise), multiple, floor, candidates)
    )
    recipe = Recipe(epochs or 10, round_epochs, batch=batch, learning_rate=learning_rate, seed=seed)
    pruning = Pruning(widths, rounds, recipe, shares(keep or []))
    goal = None
    if any(v is not None for v in (speedup, budget_ms, macs, params, keep_ratio)):
        goal = Goal.of(
            speedup=speedup, budget_ms=budget_ms, macs=macs, params=params, channels=keep_ratio
        )
    run_prune(
        PruneArguments(
            *(compiled, criterion, goal, pruning, limit, labels, train),
            *(epochs, compensate, steps, strength, evaluation, plot, every),
        )
    )


def allocation_named(text: str | None) -> Kind | None:
    """`--allocation`. Raises InputError."""
    if text is not None and text not in get_args(Kind):
        raise InputError(f"--allocation {text}: give one of {', '.join(get_args(Kind))}")
    return cast("Kind | None", text)


def normalise_named(text: str | None) -> Normalise | None:
    """`--normalise`. Raises InputError."""
    if text is not None and text not in get_args(Normalise):
        raise InputError(f"--normalise {text}: give one of {', '.join(get_args(Normalise))}")
    return cast("Normalise | None", text)


def shares(texts: list[str]) -> dict[str, float]:
    """`--keep GROUP=RATIO`, several times. Raises InputError."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise InputError(f"--keep {text}: give a channel group and a share, GROUP=0.5")
    return found


def run_prune(a: PruneArguments) -> None:
    """Prune, compile what is left, print both reports."""
    given, method = a.compile, spec_of(a.criterion)
    _check(a, method)
    table = cost_table(given.target, given.threads)
    model = load_model(given.model, arch=given.arch, trust=given.trust)
    shapes = input_shapes(model, given.shapes)
    preprocessing = _preprocessing(a, shapes)
    reporter = progress(given.as_json)
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
        title = f"{given.model.name}, {a.criterion}: {_times(pruned)}"
        rows = [(w.group, w.before, w.after) for w in pruned.widths]
        widths_before_and_after(title, rows, a.plot)
    speedup = work.measured_ms.speedup(pruned.graph_module) if work.measured_ms else None
    if given.as_json:
        found = _json(a, pruned, skipped, judged) | {"measured_speedup": speedup}
        print_json({"pruned": found, "compiled": report.to_json()})
        return
    _show(pruned, skipped, judged)
    if speedup is not None:
        show_wide_console().print(measured_line(speedup, given.precision))
    show_report(report, out)


def _check(a: PruneArguments, method: CriterionSpec) -> None:
    """What can be known to fail before anything is loaded."""
    check_goal(a.goal, a.pruning.keep)
    if method.needs != "nothing" and a.compile.images is None:
        without = ", ".join(c.name for c in CRITERIA if c.needs == "nothing")
        raise InputError(
            f"--criterion {a.criterion} looks at images; give --images DIR, or a criterion that "
            f"needs none: {without}"
        )
    if a.compensate and a.compile.images is None:
        raise InputError("--compensate looks at images; give --images DIR (no labels are needed)")
    if a.pruning.allocation.normalise == "measured" and a.compile.images is None:
        raise InputError("--normalise measured looks at images; give --images DIR")
    if method.needs == "labels" and not a.labels:
        raise InputError(
            f"--criterion {a.criterion} needs labels; give --labels when the folders of --images "
            "are classes"
        )
    if a.labels and a.compile.images is None:
        raise InputError(
            "--labels says that the folders of --images are classes; give --images DIR"
        )
    if a.steps and (a.trains or not a.compensates(method)):
        raise InputError("--steps of distillation follow --compensate, where nothing is trained")
    if a.every is not None and not (method.scheduled and a.trains):
        some = ", ".join(c.name for c in CRITERIA if c.scheduled)
        raise InputError(f"--every belongs to --criterion {some} with --train, or --epochs")
    if a.epochs is not None and not a.trains:
        raise InputError("--epochs of what? Give --train DIR, or --images DIR --labels")
    if a.compile.precision == "int8" and a.compile.images is None:
        raise InputError("--precision int8 needs images to calibrate on; give --images DIR")
    if a.trains:
        require_training()
    if a.plot is not None:
        require_matplotlib()


def _preprocessing(a: PruneArguments, shapes: list[tuple[int, ...]]) -> Preprocessing | None:
    """None where no images are read."""
    read = a.compile.images or a.train or a.evaluation
    if read is None:
        return None
    if len(shapes) > 1:
        raise InputError("images are read for networks with one input; leave them out here")
    return preprocessing_of(replace(a.compile, images=read), shapes)
