"""`shrinkc.shrink`: less depth within a latency budget, with training or without."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor, fx

from shrinkc.compiler.api.steps.images import require_labels
from shrinkc.compiler.api.steps.much_lost import milder_goal, much_lost
from shrinkc.compiler.api.steps.network import Inputs, Model
from shrinkc.compiler.api.steps.request import FEW, Request, plan_section
from shrinkc.compiler.api.steps.results import Compiled, Transformed
from shrinkc.compiler.api.steps.target import Target, cost_table, options_of
from shrinkc.compiler.api.steps.work_folder import alone_in_folder
from shrinkc.compiler.capture.structure import Structure
from shrinkc.compiler.cost.budget import predicted_ms, price_of
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.closed_form import FITTED, ClosedForm, TakenChoice
from shrinkc.compiler.depth.methods import METHODS, DepthMethod, DepthTask, method_of, readers_of
from shrinkc.compiler.depth.trained import Trained, labels_missing
from shrinkc.compiler.images.decoded import Images, Samples
from shrinkc.compiler.images.source import Given
from shrinkc.compiler.images.tensors import together
from shrinkc.compiler.measure.speedup import Measuring
from shrinkc.compiler.pipeline.deployed import merged
from shrinkc.compiler.recover.distil import Tuning
from shrinkc.compiler.recover.layer_problems import Sample
from shrinkc.compiler.recover.recipe import TRAINING
from shrinkc.compiler.recover.retrain import retrain
from shrinkc.compiler.report.sections import Judged, PlanSection, Sections
from shrinkc.compiler.support.checks import check_kind, check_whole
from shrinkc.compiler.support.choices import DepthMethod as DepthMethodName
from shrinkc.compiler.support.choices import Precision
from shrinkc.compiler.support.disk.cache import kept
from shrinkc.compiler.support.jobs import require_workers
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.support.unread import refuse_unread
from shrinkc.compiler.tasks.asked import AskedTask, asked_task
from shrinkc.compiler.tasks.own_metric import Metric
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.train.compute import require_training
from shrinkc.compiler.train.settings.own_loss import Loss
from shrinkc.errors import InputError
from shrinkc.passes.base import Skip


@dataclass(frozen=True, eq=False)
class Outcome:
    """What every method gives: the folded original and the result, and how it came about.

    choices  what was done, as JSON holds it; `lines`: the same for people
    skipped  what was considered and left, and why
    """

    original: fx.GraphModule
    shrunk: fx.GraphModule
    before_ms: float
    after_ms: float
    choices: tuple[dict[str, Any], ...]
    skipped: tuple[Skip, ...]
    lines: tuple[str, ...]
    plan: PlanSection | None = None


class Shrunk(Transformed):
    """A network of less depth. Times are the target's table's, in ms; before: in fp32.

    measured_speedup  of its TFLite file over the original's, where the target is this machine
    notes             what else a user should know
    """

    def __init__(
        self,
        structure: Structure,
        compiled: Compiled,
        judged: Judged | None,
        outcome: Outcome,
        measured_speedup: float | None,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(outcome.shrunk, structure, compiled, judged)
        self.before_ms, self.after_ms = outcome.before_ms, outcome.after_ms
        self.choices, self.lines = outcome.choices, outcome.lines
        self.skipped = outcome.skipped
        self.measured_speedup = measured_speedup
        self.notes = notes

    @property
    def speedup(self) -> float:
        """By the table."""
        return self.before_ms / self.after_ms

    def summary(self) -> str:
        return f"{self.before_ms:.4g} → {self.after_ms:.4g} ms predicted, {self.speedup:.2f}×"


@alone_in_folder
def shrink(
    model: Model,
    inputs: Inputs = None,
    *,
    target: Target,
    images: Given,
    goal: Goal | None = None,
    method: DepthMethodName | DepthMethod = "closed-form",
    train: Given | None = None,
    labels: bool = False,
    evaluation: Given | None = None,
    options: Trained | None = None,
    steps: int | None = None,
    task: Task | AskedTask | None = None,
    metric: Metric | None = None,
    loss: Loss | None = None,
    precision: Precision = "fp32",
    opset: int = 17,
    threads: int = 1,
    runs: int = 30,
    folder: str | os.PathLike[str] | None = None,
    name: str | None = None,
    command: str | None = None,
    progress: Progress | bool = False,
) -> Shrunk:
    """Merge, drop or narrow blocks until the target's table says that `goal` is met.

    Args:
        model, inputs, target: as of `plan`.
        images: that the network is fitted to and int8 calibrated on; no labels needed.
        goal: Goal.speedup, Goal.budget_ms; None where `options` say how many blocks stay
            (depthshrinker), for expand, and where layer-folding's threshold says what goes.
        method: "closed-form" and "practise" need no labels; "depthshrinker", "two-stage-dp",
            "layermerge", "layer-folding", "layer-pruning", "expand" learn (depth/trained.py).
        train: images to train on, labelled by class folders.
        labels: train on `images`, whose class folders are labels, in place of `train`.
        evaluation: other images, to judge on; labels give top-1.
        options, steps: of training and single methods; of tuning without labels.
        precision: of the files, and what the table is asked for.
        task, metric, loss, opset, threads, runs, folder, name, command, progress: as of `plan`.

    Raises:
        InputError: a goal out of reach (says what is not), no block that can go (says why),
            images or labels missing.
        TableError, CaptureError, ModelRunError, VerificationError, TrainingError.
    """
    how, options = method_of(method), Trained() if options is None else options
    _check(how, goal, options, steps, (train is not None, labels, loss is not None))
    table = cost_table(target, threads)
    request = Request.of(
        *(model, inputs, options_of(target, precision, opset, threads, runs)),
        *(images, evaluation, labels),
        folder=folder,
        name=name,
        command=command,
        progress=progress,
        task=asked_task(task, metric),
        train=train,
    )
    options = replace(options, recipe=request.with_loss(options.recipe, loss))
    source, trains = request.needed_images, train is not None or labels
    require_labels(source if labels else None)
    graph = request.subject.layered(request.progress)
    teaching = request.training_images() if trains else None
    if how.learns and teaching is not None:
        seen = teaching
    else:
        seen = source.without_labels().at_most(FITTED).decoded(request.progress)
    work = _Shrinking(request, graph, table, seen)
    outcome = work.outcome(how, goal, options, steps, teaching)
    outcome.shrunk.meta.update(graph.meta)
    compiled, judged = request.compiled(
        *(outcome.shrunk, outcome.original, "shrunk"), sections=Sections(plan=outcome.plan)
    )
    notes = () if teaching is None else options.recipe.notes(len(teaching))
    shrunk = Shrunk(
        request.subject.structure, compiled, judged, outcome, work.speedup(outcome), notes
    )
    shrunk.warning = much_lost(judged, lambda lost: milder_goal(goal, lost, outcome.before_ms))
    return shrunk


def _check(
    method: DepthMethod,
    goal: Goal | None,
    options: Trained,
    steps: int | None,
    given: tuple[bool, bool, bool],
) -> None:
    """What can be known to fail before anything is loaded. `given`: `train`, `labels`, `loss`."""
    train, labels, loss = given
    trains = train or labels
    refuse_unread(("loss", loss, trains, "a training: give `train`, or `labels`"))
    refuse_unread(("labels", labels, not train, "training on `images`, where there is no `train`"))
    check_kind("options", options, Trained, "a Trained")
    if steps is not None:
        check_whole("steps", steps, 0)
    if method.learns and steps is not None:
        some = " and ".join(known.name for known in METHODS if not known.learns)
        raise InputError(f"`steps` belongs to {some}; {method.name} takes `epochs`")
    method.check(goal, options)
    _refuse_unread(method, options, trains)
    if method.learns or method.tunes or trains:
        require_training()
    if method.learns and not trains:
        raise labels_missing(method.name)
    require_workers(options.recipe.parallel)


def _refuse_unread(method: DepthMethod, options: Trained, trains: bool) -> None:
    """Raises InputError for what `method` does not read."""
    recipe, plain = options.recipe, Trained()
    training = "a training: give `train`, or `labels`"
    for option in recipe.unread(TRAINING if method.learns or trains else (), training):
        special = {"trial_steps": "steps"}.get(option.name, option.name)
        known = special not in TRAINING
        readers = readers_of(special) if known else training
        refuse_unread(option._replace(read=option.read or special in method.reads, readers=readers))
    for name in ("per_activation", "expand_ratio", "importance", "alpha", "search", "anneal"):
        given = getattr(options, name) != getattr(plain, name)
        refuse_unread((name, given, name in method.reads, readers_of(name)))


@dataclass(frozen=True, eq=False)
class _Shrinking:
    """What was given, loaded. `images`: that the method fits to, or trains on."""

    request: Request
    graph: fx.GraphModule
    table: CostTable
    images: Samples

    def outcome(
        self,
        method: DepthMethod,
        goal: Goal | None,
        trained: Trained,
        steps: int | None,
        teaching: Images | None,
    ) -> Outcome:
        request, precision = self.request, self.request.options.precision
        closed = ClosedForm(
            tuning=Tuning() if steps is None else Tuning(steps=steps),
            cache=kept("damages"),
            parallel=trained.recipe.parallel,
        )
        found = method.shrink(
            DepthTask(
                *(self.graph, self.images, self.table, precision, goal, closed, trained),
                *(request.folder, request.progress, self.measured_ms, request.options.task),
            )
        )
        result, section = found.graph_module, None
        if not method.learns:
            fitted = [taken for taken in found.taken if isinstance(taken, TakenChoice)]
            if not method.tunes:
                section = plan_section("closed form", fitted, precision, found.skipped)
            if teaching is not None:
                result = retrain(
                    *(result, found.original, teaching, trained.recipe),
                    *(request.folder, request.progress),
                    task=request.options.task,
                )
        with request.progress.task("Merging what is linear; verified in float64"):
            result = merged(result, price_of(self.table, precision)).graph_module
        after_ms = predicted_ms(result, self.table, precision)
        choices = tuple(
            {name: None if value != value else value for name, value in asdict(taken).items()}
            for taken in found.taken
        )
        return Outcome(
            *(found.original, result, found.before_ms, after_ms, choices, found.skipped),
            lines=tuple(str(taken) for taken in found.taken),
            plan=section,
        )

    def speedup(self, outcome: Outcome) -> float | None:
        return self.measured_ms.speedup(outcome.shrunk) if self.measured_ms else None

    @cached_property
    def measured_ms(self) -> Measuring | None:
        """Of changed networks, where the target is this machine."""

        def few() -> tuple[Tensor, ...]:
            sample = Sample.of(self.images, self.graph, FEW)
            return together(x for x, _ in sample.batches())

        return self.request.on_this_machine(self.table, few)
