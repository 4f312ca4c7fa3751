"""`shrinkc shrink`: less depth within a latency budget, with training or without."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch
from platformdirs import user_cache_dir
from rich.markup import escape
from torch import Tensor, fx

from ..passes.base import Skip
from ..passes.fold_batch_norm import FoldBatchNorm
from ..passes.simplify import Simplify
from . import show
from .changed import (
    FEW,
    NOT_JUDGED,
    Changed,
    compile_changed,
    measured_line,
    on_this_machine,
    plan_section,
    training_pictures,
    work_folder,
)
from .cli import print_json
from .commands import CompileArguments, images_of, input_shapes, preprocessing_of, progress
from .costs import CostTable
from .errors import InputError
from .load import load_model
from .measuring import Measuring
from .picture import Preprocessing
from .pipeline import run_exact_passes
from .progress import Progress
from .report_sections import Judged, PlanSection, Sections
from .shrink.closed_form import ClosedForm, shrink_closed_form
from .shrink.retrain import retrain
from .shrink.rows import Sample, size_of
from .shrink.trained import Goal, Method, Trained, expand, labels_missing, shrink_trained
from .shrink.tune import Tuning
from .stages import captured, cost_table, require_convolutions
from .train.cache import Reading, load_pictures, with_margin
from .train.compute import require_training
from .train.jobs import Parallel
from .train.pictures import Pictures

TRAINED: dict[str, Method] = {method: method for method in get_args(Method)}
METHODS = ("closed-form", *TRAINED, "expand")


@dataclass(frozen=True)
class ShrinkArguments:
    """The command line of `shrinkc shrink`, as given; `compile.images` are what it is fitted to.

    train    folder of labelled pictures to train on; `labels`: the class folders of --images are;
             closed-form trains only where one of them is given
    steps    of the closed form's distillation
    """

    compile: CompileArguments
    method: str
    goal: Goal
    evaluation: Path | None
    steps: int | None
    train: Path | None
    labels: bool
    trained: Trained

    @property
    def trains(self) -> bool:
        return self.train is not None or self.labels


@dataclass(frozen=True, eq=False)
class Outcome:
    """What every method returns: the folded original and the result, and how it came about."""

    original: fx.GraphModule
    shrunk: fx.GraphModule
    before_ms: float
    after_ms: float
    choices: tuple[dict[str, Any], ...]
    skipped: tuple[Skip, ...]
    lines: tuple[str, ...]
    plan: PlanSection | None = None


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
        raise InputError("shrinking needs a network that reads pictures (N,C,H,W)")
    reporter = progress(given.as_json)
    with reporter.task("Capturing"):
        graph = captured(model, shapes)
        require_convolutions(graph)
    out = given.out or Path(f"{given.model.stem}-{Path(given.target).name}-shrunk")
    pictures = _pictures(a, preprocessing, out, reporter)
    work = _Work(a, graph, pictures, table, preprocessing, out, reporter)
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
        show.wide_console().print(measured_line(speedup, given.precision))
    show.report(report, out)


def _check(a: ShrinkArguments) -> None:
    if a.method not in METHODS:
        raise InputError(f"--method {a.method}: give one of {', '.join(METHODS)}")
    if a.compile.images is None:
        raise InputError("shrinking looks at pictures; give --images DIR (no labels are needed)")
    learns = a.method != "closed-form"
    if learns and a.steps is not None:
        raise InputError(f"--steps belongs to closed-form; {a.method} takes --epochs")
    if a.method != "depthshrinker" and not a.goal.by_time:
        raise InputError("--keep and --keep-ratio belong to --method depthshrinker")
    if a.method == "expand" and a.goal != Goal():
        raise InputError("expand makes nothing faster: leave out the budget")
    if learns or a.trains:
        require_training()
    if learns and not a.trains:
        raise labels_missing(a.method)


def _pictures(
    a: ShrinkArguments, preprocessing: Preprocessing, out: Path, reporter: Progress
) -> Pictures:
    """That the method sees."""
    if a.method != "closed-form":
        return _train_on(a, preprocessing, out, reporter)
    images = images_of(a.compile.images, None, labelled=False)
    assert images is not None
    return load_pictures(images, with_margin(preprocessing), Reading(), reporter)


def _train_on(
    a: ShrinkArguments, preprocessing: Preprocessing, out: Path, reporter: Progress
) -> Pictures:
    return training_pictures(a.compile, a.train, preprocessing, out, reporter)


@dataclass(frozen=True, eq=False)
class _Work:
    """The methods, called with what was given."""

    a: ShrinkArguments
    graph: fx.GraphModule
    pictures: Pictures
    table: CostTable
    preprocessing: Preprocessing
    out: Path
    reporter: Progress

    def closed_form(self) -> Outcome:
        with self.reporter.task("Folding; each pass verified in float64"):
            original = run_exact_passes(self.graph, (Simplify(), FoldBatchNorm()))[0].float()
        tuning = Tuning() if self.a.steps is None else Tuning(steps=self.a.steps)
        cache = Path(user_cache_dir("shrinkc", appauthor=False), "damages")
        goal = self.a.goal
        shrunk = shrink_closed_form(
            *(original, self.pictures, self.table, self.a.compile.precision),
            speedup=goal.speedup,
            budget_ms=goal.budget_ms,
            options=ClosedForm(tuning=tuning, cache=cache),
            progress=self.reporter,
            measured_ms=self.measured_ms,
        )
        lines = (
            f"{row.kind} {row.source} … {row.sink}: saves {row.saving_ms:.3g} ms, alone it agrees "
            f"with the original on {row.agreement:.1%} of the pictures"
            for row in shrunk.rows
        )
        choices = tuple(asdict(row) for row in shrunk.rows)
        result = shrunk.graph_module
        if self.a.trains:
            recipe = self.a.trained.recipe
            teaching = _train_on(self.a, self.preprocessing, self.out, self.reporter)
            folder = work_folder(self.out)
            result = retrain(result, original, teaching, recipe, folder, self.reporter)
        return Outcome(
            *(original, result, shrunk.before_ms, shrunk.after_ms),
            *(choices, shrunk.skipped, tuple(lines)),
            plan_section("closed form", shrunk.rows, self.a.compile.precision, shrunk.skipped),
        )

    @cached_property
    def measured_ms(self) -> Measuring | None:
        """Of changed networks, where the target is this machine."""
        sample = Sample(self.pictures, size_of(self.graph), FEW)

        def few() -> Tensor:
            return torch.cat([x for x, _ in sample.batches()])

        return on_this_machine(self.a.compile, self.graph, self.table, few)

    def trained(self) -> Outcome:
        given = (self.graph, self.pictures, self.table, self.a.compile.precision)
        options, folder = self.a.trained, work_folder(self.out)
        if self.a.method == "expand":
            shrunk = expand(*given, options=options, folder=folder, progress=self.reporter)
        else:
            shrunk = shrink_trained(
                *(*given, TRAINED[self.a.method], self.a.goal),
                options=options,
                folder=folder,
                progress=self.reporter,
                measured_ms=self.measured_ms,
            )
        lines = tuple(_line(t.option, t.saving_ms, t.damage) for t in shrunk.taken)
        choices = tuple(
            asdict(t) | {"damage": t.damage if t.damage == t.damage else None} for t in shrunk.taken
        )
        return Outcome(
            *(shrunk.original, shrunk.graph_module, shrunk.before_ms, shrunk.after_ms),
            *(choices, shrunk.skipped, lines),
        )


def _line(option: str, saving_ms: float, damage: float) -> str:
    saved = f": saves {saving_ms:.3g} ms" if saving_ms else ""
    harm = f", alone it raises the loss by {damage:.3g}" if damage == damage else ""
    return f"{option}{saved}{harm}"


def _json(a: ShrinkArguments, outcome: Outcome, judged: Judged | None) -> dict[str, Any]:
    return {
        "method": a.method,
        "predicted_ms_before": outcome.before_ms,
        "predicted_ms_after": outcome.after_ms,
        "predicted_speedup": outcome.before_ms / outcome.after_ms,
        "choices": outcome.choices,
        "skipped": [asdict(skip) for skip in outcome.skipped],
        "judged": None if judged is None else _judged(judged),
    }


def _judged(judged: Judged) -> dict[str, Any]:
    return {
        "pictures": judged.pictures,
        "agreement": judged.agreement,
        "original_top1": judged.original_top1,
        "shrunk_top1": judged.changed_top1,
    }


def _show(outcome: Outcome, judged: Judged | None) -> None:
    console = show.wide_console()
    for line in outcome.lines:
        console.print(escape(line))
    console.print(
        f"predicted: {outcome.before_ms:.4g} → {outcome.after_ms:.4g} ms, "
        f"{outcome.before_ms / outcome.after_ms:.2f}×; {len(outcome.skipped)} spans declined"
    )
    console.print(NOT_JUDGED if judged is None else str(judged))
