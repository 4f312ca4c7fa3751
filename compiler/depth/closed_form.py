"""Shrinking without labels and without training: spans fitted to images, one after the other.

    candidates → damage of each alone → the least damage within the budget (exact) →
    in execution order, with the student's own inputs: least squares, then by gradient →
    distillation on the same images

"merge": a span becomes one dense convolution, fitted by ridge regression (what removing its
activations leaves is only one of the points that the fit is drawn to). "drop": its shortcut alone
stays. "narrow": hidden channels that least squares misses least go, what reads the others is
refitted (He et al., 2017; Xie et al., CaP, 2021, with exact backward elimination).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import fx

from shrinkc.compiler.cost.budget import check_reachable, predicted_ms, price_of
from shrinkc.compiler.cost.goal import SHRINK_GOALS, Goal
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.choice_sets import Plans, in_order, renamed
from shrinkc.compiler.depth.choices import KINDS, Choice, Kind, choices, nothing_to_shrink
from shrinkc.compiler.depth.importance import fit_span, measure, problems_of
from shrinkc.compiler.images.decoded import Samples
from shrinkc.compiler.pipeline.deployed import channels_last
from shrinkc.compiler.recover.distil import Tuned, Tuning, fitted_and_judged, tune
from shrinkc.compiler.recover.divergence import Damage
from shrinkc.compiler.recover.layer_problems import Sample, accumulate
from shrinkc.compiler.recover.rebuild_span import Rebuilding, rebuild
from shrinkc.compiler.recover.resumed import Resumed
from shrinkc.compiler.support.jobs import Parallel
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.errors import UnreachableGoalError
from shrinkc.passes.analysis.linear.spans import NoSpan, find_spans
from shrinkc.passes.base import Change, PassResult, Skip

FITTED = 1000  # images


@dataclass(frozen=True)
class ClosedForm:
    """How to shrink.

    kinds      what may happen to a span
    rebuilding of every changed span, after its fit; `Rebuilding(steps=0)` for none
    tuning     the distillation at the end; `Tuning(steps=0)` for none
    cache      folder that keeps the measured damages; None: nothing is kept
    images     the most that a fit looks at
    parallel   damages that are measured side by side, in processes or over Ray
    """

    kinds: tuple[Kind, ...] = KINDS
    rebuilding: Rebuilding = field(default_factory=Rebuilding)
    tuning: Tuning = field(default_factory=Tuning)
    cache: Path | None = None
    images: int = FITTED
    parallel: Parallel = field(default=1, repr=False)  # what is kept goes by the rest


@dataclass(frozen=True)
class TakenChoice:
    """One choice that was taken. `channels`: hidden ones that stay, of `channels_before`, where
    some go. `loss`, `agreement`, `error`: `Damage`, of this choice alone."""

    source: str
    sink: str
    kind: Kind
    channels: int
    channels_before: int
    saving_ms: float
    loss: float
    agreement: float
    error: float

    def __str__(self) -> str:
        where = f"{self.kind} {self.source} … {self.sink}: saves {self.saving_ms:.3g} ms, alone "
        if self.agreement != self.agreement:
            return f"{where}its error is {self.loss:.2g} of the outputs' variance"
        return f"{where}it agrees with the original on {self.agreement:.1%} of the images"


@dataclass(frozen=True, eq=False)
class Shrunk:
    """The result. `before_ms` and `after_ms` are the table's. `fitted` is the graph before the
    distillation."""

    graph_module: fx.GraphModule
    fitted: fx.GraphModule
    before_ms: float
    after_ms: float
    taken: tuple[TakenChoice, ...]
    changes: tuple[Change, ...]
    skipped: tuple[Skip, ...]
    tuned: Tuned | None

    @property
    def speedup(self) -> float:
        return self.before_ms / self.after_ms


def shrink_closed_form(
    graph_module: fx.GraphModule,
    images: Samples,
    table: CostTable,
    precision: str,
    goal: Goal,
    *,
    before_ms: float | None = None,
    options: ClosedForm | None = None,
    progress: Progress | None = None,
    measured_ms: Callable[[fx.GraphModule], float] | None = None,
    task: Task = CLASSIFICATION,
) -> Shrunk:
    """Bring a captured network (float32, batch norms folded) within a latency budget.

    `goal`: a speedup over `before_ms`, or milliseconds. `before_ms`: None: what the table predicts
    for the network as it is. `measured_ms`: of a network whose numbers mean nothing yet; where the
    device is at hand, plans meet the budget by it instead of by the table. `task`: what the outputs
    mean.

    Raises InputError: no candidate at all (says why, span by span), a budget that cannot be
    reached (says what can); TableError where the table lacks the precision.
    """
    options, progress = options or ClosedForm(), progress or Silent()
    graph_module = channels_last(graph_module)
    if before_ms is None:
        before_ms = predicted_ms(graph_module, table, precision)
    budget = goal.among(SHRINK_GOALS).budget(before_ms)
    found, refused = candidates(graph_module, table, precision, options.kinds)
    plans = Plans(graph_module, table, precision, found)
    known = _reachable(plans, before_ms, budget, measured_ms)
    sample = Sample.of(images, graph_module, options.images)
    measuring = sample, options.cache, progress
    plans = plans.judged(
        measure(graph_module, found, *measuring, task=task, parallel=options.parallel)
    )
    try:
        chosen = plans.within(budget, measured_ms, thorough=True)
    except UnreachableGoalError:  # what fitted before anything was judged still does
        chosen = known
    result = untuned(plans, chosen, sample, options, progress, refused)
    if chosen:
        result = distilled(result, graph_module, sample, options.tuning, progress, task=task)
    return replace(result, before_ms=before_ms)


def _reachable(
    plans: Plans,
    before_ms: float,
    budget_ms: float,
    measured_ms: Callable[[fx.GraphModule], float] | None,
) -> list[int]:
    """Choices that meet the budget, before any is judged. Raises UnreachableGoalError."""
    try:
        return plans.within(budget_ms, measured_ms, thorough=True)
    except UnreachableGoalError as error:
        if measured_ms is None and error.fastest_ms is not None:
            check_reachable(before_ms, error.fastest_ms, budget_ms)
        raise


def untuned(
    plans: Plans,
    chosen: Sequence[int],
    sample: Sample,
    options: ClosedForm,
    progress: Progress,
    refused: Sequence[NoSpan] = (),
) -> Shrunk:
    """The network with these choices of `plans`, which are judged, before it is distilled."""
    damages = plans.damages or ()
    taken = [plans.found[i] for i in chosen]
    seen, _ = fitted_and_judged(sample, options.tuning)
    shrunk = apply(plans.graph, taken, seen, options.rebuilding, progress)
    return Shrunk(
        graph_module=shrunk.graph_module,
        fitted=shrunk.graph_module,
        before_ms=plans.before_ms,
        after_ms=plans.predicted(shrunk.graph_module),
        taken=tuple(_taken(plans.found[i], damages[i]) for i in chosen),
        changes=shrunk.changes,
        skipped=tuple(Skip(r.node, r.reason) for r in refused),
        tuned=None,
    )


def distilled(
    shrunk: Shrunk,
    teacher: fx.GraphModule,
    sample: Sample,
    options: Tuning,
    progress: Progress,
    *,
    task: Task = CLASSIFICATION,
) -> Shrunk:
    """With all its parameters drawn to the teacher's answers."""
    if options.steps == 0:
        return shrunk
    tuned = tune(shrunk.fitted, teacher, sample, options, progress, task=task)
    return replace(shrunk, graph_module=tuned.graph_module, tuned=tuned)


def candidates(
    graph_module: fx.GraphModule,
    table: CostTable,
    precision: str,
    kinds: Sequence[Kind] = KINDS,
) -> tuple[list[Choice], list[NoSpan]]:
    """Every choice that saves time by the table, and why other spans stay. Raises InputError when
    there is none."""
    found, refused = choices(find_spans(graph_module), price_of(table, precision), kinds)
    if not found:
        raise nothing_to_shrink(refused)
    return found, refused


# --- applying ------------------------------------------------------------------------------------


def apply(
    graph: fx.GraphModule,
    chosen: Sequence[Choice],
    sample: Sample,
    rebuilding: Rebuilding,
    progress: Progress,
    teacher: Resumed | None = None,
) -> PassResult:
    """Fit, replace and rebuild in execution order; the original answers, the student's inputs ask.
    `teacher`: the graph's values on the same images, where they are known.

    Layers that nothing was chosen for stay as they are. Refitting them, too, raised the divergence
    on held-out images (MobileNetV2, fits on 100 images: 0.33 to 0.60).
    """
    changes: list[Change] = []
    gone: dict[str, str] = {}
    student, teacher = Resumed(graph), teacher or Resumed(graph)
    with progress.task("Fitting", len(chosen)) as done:
        for choice in in_order(graph, chosen):
            span = renamed(choice.span, gone)
            student.settle(span.source)
            teacher.settle(choice.span.source)
            wanted = [replace(choice, span=span)]
            problems = problems_of(student.graph_module, wanted)
            sums = accumulate(problems, student, teacher, sample) if problems else []
            (fitted,) = fit_span(student.graph_module, wanted, sums)
            result = fitted.replacement(student.graph_module)
            student = student.moved(result.graph_module)
            if choice.kind == "drop":
                gone[span.sink] = span.source
            elif rebuilding.steps:
                student = student.moved(rebuild(student, teacher, span, sample, rebuilding))
            changes += result.changes
            done()
    return PassResult(student.graph_module, tuple(changes))


def _taken(choice: Choice, damage: Damage) -> TakenChoice:
    hidden = choice.span.hidden
    before = hidden.channels if hidden is not None and choice.kind == "narrow" else 0
    return TakenChoice(
        *(choice.span.source, choice.span.sink, choice.kind, choice.channels, before),
        *(choice.saving_ms, damage.loss, damage.agreement, damage.error),
    )
