"""`shrinkc.plan`, `frontier`: depth, width and precision decided together; `apply`: once more."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import fx

from shrinkc.compiler.api.resolutions.planning import (
    decoded,
    planned_at,
    resizing,
    subjects_at,
    with_sizes,
)
from shrinkc.compiler.api.steps.much_lost import much_promised
from shrinkc.compiler.api.steps.network import Inputs, Model, Subject, subject_of
from shrinkc.compiler.api.steps.request import Request, plan_section
from shrinkc.compiler.api.steps.results import Compiled, Transformed
from shrinkc.compiler.api.steps.target import Target, cost_table, options_of, target_name
from shrinkc.compiler.api.steps.work_folder import alone_in_folder
from shrinkc.compiler.capture.structure import Structure
from shrinkc.compiler.cost.goal import PLAN_GOALS, Goal, required
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.closed_form import ClosedForm
from shrinkc.compiler.formats.base import FILE_PRECISIONS
from shrinkc.compiler.images.augment import Size
from shrinkc.compiler.images.decoded import Images, Samples
from shrinkc.compiler.images.source import Given
from shrinkc.compiler.options import Options
from shrinkc.compiler.pipeline.deployed import deployed
from shrinkc.compiler.plan.drop import estimates
from shrinkc.compiler.plan.finished_plans import Planned as Found
from shrinkc.compiler.plan.plan_file import Plan, plan_files, read_plan
from shrinkc.compiler.plan.planner import (
    Bound,
    Planner,
    Planning,
    check_points,
    prepare_planning,
)
from shrinkc.compiler.plan.replay import replay, stored_calibration
from shrinkc.compiler.recover.recipe import TRAINING, Recipe
from shrinkc.compiler.recover.retrain import retrain
from shrinkc.compiler.report.sections import FrontierPoint, Judged, ResolutionRow, Sections
from shrinkc.compiler.support.checks import check_kind, path_of
from shrinkc.compiler.support.choices import Precision
from shrinkc.compiler.support.disk.cache import kept
from shrinkc.compiler.support.jobs import require_workers
from shrinkc.compiler.support.progress import Progress, shown_by
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.support.unread import refuse_unread
from shrinkc.compiler.tasks.asked import AskedTask, asked_task
from shrinkc.compiler.tasks.own_metric import Metric
from shrinkc.compiler.tasks.tally import Estimate
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.tasks.wording import error_words
from shrinkc.compiler.train.compute import require_training
from shrinkc.compiler.train.settings.own_loss import Loss
from shrinkc.errors import InputError
from shrinkc.passes.base import Skip


@dataclass(frozen=True)
class Times:
    """Milliseconds by a target's table: of the original in fp32, of the planned network."""

    before_ms: float
    after_ms: float

    @property
    def speedup(self) -> float:
        return self.before_ms / self.after_ms


class Planned(Transformed):
    """The network that a plan leaves, in fp32, and its files in the plan's precision.

    plan    what was decided, and what it is promised to cost; `files` holds it as plan.json
    notes   what planning noticed: precisions that were not to be had, images that are all alike
    on      target → what the same network takes there, where it was planned for several at once
    """

    def __init__(
        self,
        graph_module: fx.GraphModule,
        structure: Structure,
        compiled: Compiled,
        judged: Judged | None,
        plan: Plan,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(graph_module, structure, compiled, judged)
        self.plan = plan
        self.notes = notes
        self.on: Mapping[str, Times] = {}

    @property
    def label(self) -> str:
        """Names a folder for it among others: "2.53x-int8", as measured where it was, and
        "2.53x-int8-192" where images are smaller."""
        size = "" if self.plan.resolution is None else f"-{min(self.plan.resolution.size)}"
        speed = self.plan.measured_speedup or self.plan.speedup
        return f"{speed:.2f}x-{self.plan.precision}{size}"

    def summary(self) -> str:
        plan, promise = self.plan, self.plan.promise
        speed = f"{plan.measured_speedup or plan.speedup:.2f}× on {plan.target} in {plan.precision}"
        drop = ""
        if promise is not None and promise.drop is not None:
            points = self.report.task.points * promise.drop
            unit = "dB" if self.report.task.style == "dB" else "points"
            drop = f", {abs(points):.2f} {unit} {'lost' if points >= 0 else 'gained'}"
        elif promise is not None:
            drop = f", {error_words(estimates(promise), briefly=True)}"
        steps = counted(len(plan.steps), "step")
        steps = steps if plan.resolution is None else f"{plan.resolution}, {steps}"
        return f"{speed}, {steps}{drop}"


@alone_in_folder
def plan(
    model: Model,
    inputs: Inputs = None,
    *,
    target: Target,
    goal: Goal,
    images: Given,
    precision: Precision | None = None,
    evaluation: Given | None = None,
    train: Given | None = None,
    recipe: Recipe | None = None,
    task: Task | AskedTask | None = None,
    metric: Metric | None = None,
    loss: Loss | None = None,
    opset: int = 17,
    threads: int = 1,
    runs: int = 30,
    resolutions: Sequence[int] | None = None,
    folder: str | os.PathLike[str] | None = None,
    name: str | None = None,
    command: str | None = None,
    progress: Progress | bool = False,
) -> Planned:
    """The least damage that reaches `goal`, by merging, dropping, narrowing and int8 together.

    Args:
        model: a module, a captured graph, or the path of a file that `load` reads.
        inputs: an example (N, C, H, W) or its shape.
        target: a latency table's name or folder, or "host" (this machine, measured).
        goal: Goal.speedup, Goal.budget_ms, Goal.max_drop, or for outputs that are no classes
            Goal.max_error.
        images: that the plan is fitted to, no labels needed; without `evaluation` every fourth
            judges it instead.
        precision: "fp32", "int8", or None: whichever loses less.
        evaluation: other images, to judge on; class folders or labels give top-1.
        train: images to train on after the fits; `recipe`: how, and what is measured side by side.
        task: what the outputs mean, by which plans and files are judged; None: told by them, and
            by labels. `Classification()` where one output (n, k) holds class scores, `Regression()`
            for numbers and maps.
        metric: your own in place of the task's: of all outputs and labels; higher is better.
        loss: your own in place of cross-entropy, of the network in training, which returns what
            the model did, and a batch (inputs, labels); or an object with Lightning's
            `training_step` that `model` is a part of.
        opset: of the ONNX file.
        threads: of measurements here.
        runs: of each file when it is timed; 0 times nothing.
        resolutions: sizes of smaller images that the network may read instead: of the shorter side,
            in pixels, such as [192, 160]. Its own size is always among them.
        folder: keeps finished plans and checkpoints: a call that was stopped goes on there.
        name: of the network, in reports.
        command: as it was typed, for the report.
        progress: True shows bars on stderr.

    Raises:
        InputError: a goal that cannot be reached (says what can), images or inputs that do not fit.
        TableError, CaptureError, ModelRunError, VerificationError, TrainingError.
    """
    goal = required(goal, PLAN_GOALS)
    options = options_of(target, precision or "fp32", opset, threads, runs)
    plans = Plans.of(
        *(model, inputs, options, precision, images),
        evaluation=evaluation,
        train=train,
        recipe=recipe,
        folder=folder,
        name=name,
        command=command,
        progress=progress,
        task=asked_task(task, metric),
        loss=loss,
        goal=goal,
        resolutions=resolutions,
    )
    return plans.made(plans.planner.reach(goal))


@alone_in_folder
def frontier(
    model: Model,
    inputs: Inputs = None,
    *,
    points: int,
    target: Target,
    images: Given,
    precision: Precision | None = None,
    evaluation: Given | None = None,
    train: Given | None = None,
    recipe: Recipe | None = None,
    task: Task | AskedTask | None = None,
    metric: Metric | None = None,
    loss: Loss | None = None,
    opset: int = 17,
    threads: int = 1,
    runs: int = 30,
    resolutions: Sequence[int] | None = None,
    folder: str | os.PathLike[str] | None = None,
    name: str | None = None,
    command: str | None = None,
    progress: Progress | bool = False,
) -> tuple[Planned, ...]:
    """`points` plans, from the most accurate to the fastest; fewer where some are the same.

    The other arguments, and what is raised, are those of `plan`.
    """
    check_points(points)
    options = options_of(target, precision or "fp32", opset, threads, runs)
    plans = Plans.of(
        *(model, inputs, options, precision, images),
        evaluation=evaluation,
        train=train,
        recipe=recipe,
        folder=folder,
        name=name,
        command=command,
        progress=progress,
        task=asked_task(task, metric),
        loss=loss,
        resolutions=resolutions,
    )
    found = plans.planner.frontier(points)
    return tuple(
        plans.made(one, tuple(_point(other.plan, other is one) for other in found)) for one in found
    )


def apply(
    model: Model,
    plan: str | os.PathLike[str],
    inputs: Inputs = None,
    *,
    target: Target | None = None,
    images: Given | None = None,
    task: Task | AskedTask | None = None,
    metric: Metric | None = None,
    opset: int = 17,
    threads: int = 1,
    runs: int = 30,
    name: str | None = None,
    command: str | None = None,
    progress: Progress | bool = False,
) -> Planned:
    """Do again what a plan did: the same network, without device and images.

    Args:
        model: the network that the plan was made for.
        plan: a plan.json with its plan.safetensors beside it, or their folder.
        inputs: an example (N, C, H, W) or its shape.
        target: that is predicted for; None: the plan's.
        images: to judge on; a plan needs none.
        task, metric, opset, threads, runs, name, command, progress: as of `plan`.

    Raises:
        LoadError: no plan of shrinkc's, or one that does not fit the network.
        InputError: a plan of another network.
        TableError, CaptureError, ModelRunError, VerificationError.
    """
    asked = asked_task(task, metric)
    found, tensors = read_plan(path_of("plan", plan))
    options = options_of(target or found.target, found.precision, opset, threads, runs)
    cost_table(options.target, threads)
    subject, shown = subject_of(model, inputs, name), shown_by(progress)
    known, sources = subject.images({"images": (images, "read")}, asked)
    options, source = replace(options, task=known), sources["images"]
    with shown.task("Capturing"):
        graph = subject.graph
    request = Request(subject, options, shown, source, source, command=command)
    request = planned_at(model, request, found)
    smaller = None if request.whole is None else request.subject.graph
    with shown.task("Applying the plan"):
        original, changed = replay(graph, found, tensors, smaller)
        original = original if smaller is None else deployed(graph)
    return _planned(request, Found(found, tensors, changed), original)


@dataclass(frozen=True, eq=False)
class Plans:
    """A planner, and what its plans' files are made with; `smaller`: where images are that;
    `fitting`: what the planner was made of, for other targets."""

    planner: Planner
    request: Request
    smaller: Mapping[Size, Request]
    fitting: _Fitting

    @classmethod
    def of(
        cls,
        model: Model,
        inputs: Inputs,
        options: Options,
        precision: Precision | None,
        images: Given,
        *,
        evaluation: Given | None,
        train: Given | None,
        recipe: Recipe | None,
        folder: str | os.PathLike[str] | None,
        name: str | None,
        command: str | None,
        progress: Progress | bool,
        task: AskedTask,
        loss: Loss | None,
        goal: Goal | None = None,
        resolutions: Sequence[int] | None,
    ) -> Plans:
        if train is not None:
            require_training()
        if train is not None and resolutions is not None:
            raise InputError("`train` and `resolutions` do not go together yet; leave out one")
        recipe = Recipe() if recipe is None else recipe
        check_kind("recipe", recipe, Recipe, "a Recipe")
        training = "a training: give `train`"
        readers = training if train is None else "other methods"
        refuse_unread(("loss", loss is not None, train is not None, training))
        read = ("parallel", *(() if train is None else TRAINING))
        refuse_unread(*recipe.unread(read, readers))
        table = cost_table(options.target, options.threads)
        require_workers(recipe.parallel)
        request = Request.of(
            *(model, inputs, options, images, evaluation),
            folder=folder,
            name=name,
            command=command,
            progress=progress,
            task=task,
            train=train,
        )
        recipe = request.with_loss(recipe, loss)
        if goal is not None:
            _check_goal(goal, request)
        _, shown = request.needed_images, request.progress
        graph = request.subject.layered(shown)
        smaller = subjects_at(resolutions, model, request)
        fitted, held_out = decoded(request)
        teaching = None if train is None else request.training_images()
        planning = Planning(
            FILE_PRECISIONS if precision is None else (precision,),
            ClosedForm(cache=kept("damages"), parallel=recipe.parallel),
            options.threads,
            training="" if teaching is None else f"{teaching.digest} {recipe}",
            folder=request.folder,
        )
        training = None if teaching is None else _training(request, teaching, recipe)
        notes = () if teaching is None else recipe.notes(len(teaching))
        fitting = _Fitting(graph, fitted, held_out, planning, training, smaller, notes)
        return fitting.plans(request, table)

    def on(self, target: Target, bounds: Sequence[Bound] = ()) -> Plans:
        """The same for another target; `bounds`: others that its plans keep to. Raises
        TableError."""
        options = replace(self.request.options, target=target_name(target))
        table = cost_table(target, options.threads)
        request = replace(self.request, options=options)
        return self.fitting.plans(request, table, self.planner, bounds)

    def made(
        self, found: Found, frontier: tuple[FrontierPoint, ...] = (), told: tuple[str, ...] = ()
    ) -> Planned:
        """With its files; `told`: what the report's notes say besides."""
        size = found.plan.resolution
        request = self.request if size is None else self.smaller[size.size]
        refused = tuple(Skip(r.node, r.reason) for r in self.planner.candidates.refused)
        original, notes = self.planner.original, tuple(self.planner.notes)
        return _planned(request, found, original, refused, frontier, notes, told)


@dataclass(frozen=True, eq=False)
class _Fitting:
    """What plans for any target are made of."""

    graph: fx.GraphModule
    fitted: Samples
    held_out: Samples | None
    planning: Planning
    train: Callable[[fx.GraphModule, fx.GraphModule], fx.GraphModule] | None
    smaller: Mapping[Size, Subject]
    notes: tuple[str, ...]

    def plans(
        self,
        request: Request,
        table: CostTable,
        beside: Planner | None = None,
        bounds: Sequence[Bound] = (),
    ) -> Plans:
        """`beside`: the planner for another target."""
        planner = prepare_planning(
            *(self.graph, self.fitted, table, self.planning),
            held_out=self.held_out,
            train=self.train,
            task=request.options.task,
            progress=request.progress,
            beside=beside,
            bounds=bounds,
        )
        planner.notes += self.notes
        planner, requests = with_sizes(planner, table, request, self.smaller)
        return Plans(planner, request, requests, self)


def _check_goal(goal: Goal, request: Request) -> None:
    """Raises InputError where points of a metric may be lost, and nothing tells how many are."""
    task, judged = request.options.task, request.evaluation
    if goal.kind != "max_drop" or (judged is not None and judged.labelled):
        return
    if not task.expects:
        raise InputError(
            f"`max_drop` counts points of {task.metric}, which needs labels",
            "give `evaluation` with labels",
        )
    if not request.subject.scored(task):
        raise InputError(
            f"`max_drop` counts points of {task.metric}, and without labels the outputs of "
            f"{task.name} have none",
            "give `evaluation` with labels, or `max_error`, `speedup`, `budget_ms`, or `task` "
            "classification if they are class scores",
        )


def _training(
    request: Request, images: Images, recipe: Recipe
) -> Callable[[fx.GraphModule, fx.GraphModule], fx.GraphModule]:
    """Batch norms put back, self-distillation from the original, as `shrink` does."""
    folder, progress, task = request.folder, request.progress, request.options.task

    def train(fitted: fx.GraphModule, original: fx.GraphModule) -> fx.GraphModule:
        return retrain(fitted, original, images, recipe, folder, progress, task=task)

    return train


def _planned(
    request: Request,
    found: Found,
    original: fx.GraphModule,
    refused: tuple[Skip, ...] = (),
    frontier: tuple[FrontierPoint, ...] = (),
    notes: tuple[str, ...] = (),
    told: tuple[str, ...] = (),
) -> Planned:
    """With its files, in the plan's precision."""
    plan = found.plan
    section = plan_section("planned, closed form", plan.steps, plan.precision, refused)
    section = replace(section, promise=_promised(plan, request), resolution=_resized(plan))
    request = replace(request, options=replace(request.options, precision=plan.precision))
    compiled, judged = request.compiled(
        *(found.graph_module, original, "planned"),
        stored=stored_calibration(plan, found.tensors),
        sections=Sections(
            plan=section, frontier=frontier, noise=found.noise, notes=resizing(plan, request) + told
        ),
        extras=plan_files(plan, found.tensors),
    )
    structure = request.subject.structure
    planned = Planned(found.graph_module, structure, compiled, judged, plan, notes)
    planned.warning = much_promised(plan, request.options.task)
    return planned


def _promised(plan: Plan, request: Request) -> Judged | None:
    """For the report."""
    found = plan.promise
    if found is None:
        return None
    drop = None if found.drop is None else Estimate(found.drop, *(found.interval or (None, None)))
    task = request.options.task
    return Judged(
        *(found.images, found.agreement, None, None, task.metric, drop, estimates(found)),
        *(task.style, task.likeness),
    )


def _resized(plan: Plan) -> ResolutionRow | None:
    """For the report."""
    found = plan.resolution
    if found is None:
        return None
    sizes = found.size, found.size_before
    return ResolutionRow(*sizes, plan.precision, found.saving_ms, found.loss, found.agreement)


def _point(plan: Plan, chosen: bool) -> FrontierPoint:
    measured = plan.measured_speedup and plan.before_ms / plan.measured_speedup
    agreement = plan.promise and plan.promise.agreement
    errors = [one.error for one in plan.promise.outputs] if plan.promise else []
    return FrontierPoint(
        *(plan.speedup, plan.after_ms, measured, None, agreement, plan.precision, chosen),
        error=max(errors, default=None),
    )
