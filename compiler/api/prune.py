"""`shrinkc.prune`: less width within a budget, with training or without."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from shrinkc.compiler.api.pruning.asked import LIMIT, Asked, Told
from shrinkc.compiler.api.pruning.pruner import TRIED, Pruner
from shrinkc.compiler.api.steps.much_lost import SPARED, milder_goal, much_lost
from shrinkc.compiler.api.steps.network import Inputs, Model
from shrinkc.compiler.api.steps.request import Request
from shrinkc.compiler.api.steps.results import Compiled, Transformed
from shrinkc.compiler.api.steps.target import Target, cost_table, options_of
from shrinkc.compiler.api.steps.work_folder import alone_in_folder
from shrinkc.compiler.capture.structure import Structure
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.images.source import Given
from shrinkc.compiler.report.plots import require_matplotlib, widths_before_and_after
from shrinkc.compiler.report.sections import Judged
from shrinkc.compiler.support.checks import check_kind
from shrinkc.compiler.support.choices import Per, Precision
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.tasks.asked import AskedTask, asked_task
from shrinkc.compiler.tasks.own_metric import Metric
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.train.settings.own_loss import Loss
from shrinkc.compiler.width.methods import spec_of
from shrinkc.compiler.width.prune import Pruned as Found
from shrinkc.compiler.width.prune import Pruning, Width
from shrinkc.compiler.width.published.from_scratch import FromScratch
from shrinkc.compiler.width.search.methods import Search, search_of
from shrinkc.passes.base import Skip
from shrinkc.passes.criteria.base import Criterion
from shrinkc.passes.criteria.spec import CriterionSpec


class Pruned(Transformed):
    """A network of less width, batch norms kept where nothing was fitted behind folding them.

    criterion             its name
    widths                of every channel group, before and after
    before_ms, after_ms, speedup  by the target's table; None without a target
    measured_speedup      of its TFLite file over the original's, where the target is this machine
    skipped               groups that stay whole, and why
    not_compensated       layers that were not compensated, and why
    history               of training
    from_scratch          how it was trained anew, where that was asked for
    notes                 how it was helped, and what else a user should know
    others                networks for other values of the goal, where one search was for several
    """

    def __init__(
        self,
        structure: Structure,
        compiled: Compiled | None,
        judged: Judged | None,
        found: Found,
        name: str,
        criterion: str,
        *,
        not_compensated: tuple[Skip, ...],
        measured_speedup: float | None,
        tuned: bool,
        notes: tuple[str, ...],
    ) -> None:
        graph = found.graph_module if tuned else found.trainable
        super().__init__(graph, structure, compiled, judged)
        self.name, self.criterion = name, criterion
        self.widths: tuple[Width, ...] = found.widths
        self.before_ms, self.after_ms, self.speedup = found.before_ms, found.after_ms, found.speedup
        self.skipped, self.history = found.skipped, found.history
        self.from_scratch: FromScratch | None = found.from_scratch
        self.not_compensated = not_compensated
        self.measured_speedup = measured_speedup
        self.notes = notes
        self.others: dict[float, Pruned] = {}

    @classmethod
    def for_all(cls, pruner: Pruner) -> Pruned:
        """For the goal, and for others that were searched for at once."""
        found, search = cls.by(pruner), pruner.asked.search
        for rate in () if search is None else search.rates:
            found.others[rate] = cls.by(pruner.at(rate))
        return found

    @classmethod
    def by(cls, pruner: Pruner) -> Pruned:
        """Prune, and compile where there is a target."""
        started = time.monotonic()
        found, not_compensated = pruner.pruned()
        pruning_s = time.monotonic() - started
        request, compiled, judged, speedup = pruner.request, None, None, None
        if pruner.table is not None:
            compiled, judged = request.compiled(found.graph_module, found.original, "pruned")
        else:
            judged = request.judged(found.graph_module, found.original)
        if pruner.measured_ms is not None:
            speedup = pruner.measured_ms.speedup(found.graph_module)
        pruned = cls(
            *(request.subject.structure, compiled, judged, found),
            *(request.subject.name, pruner.asked.spec.name),
            not_compensated=not_compensated,
            measured_speedup=speedup,
            tuned=pruner.tunes,
            notes=pruner.notes(found.from_scratch),
        )
        share = 1.0 if pruner.seen is None else min(1.0, TRIED / len(pruner.seen))
        pruned.warning = much_lost(
            judged,
            lambda lost: milder_goal(
                *(pruner.asked.goal, lost, found.before_ms),
                (lambda part: pruner.attempt(part, found.before_ms)) if pruner.tries else None,
                first_s=pruning_s * share,
                most_s=SPARED * (time.monotonic() - started),
            ),
        )
        return pruned

    @property
    def kept(self) -> float:
        """The share of all groups' channels that is left."""
        return sum(w.after for w in self.widths) / sum(w.before for w in self.widths)

    def times(self) -> str:
        """What the table says, in words; "" without a target."""
        if self.speedup is None:
            return ""
        return f"{self.before_ms:.4g} → {self.after_ms:.4g} ms predicted, {self.speedup:.2f}×"

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Widths before and after, as PNG. Raises InputError without matplotlib."""
        require_matplotlib()
        title = f"{self.name}, {self.criterion}: {self.times() or self.summary()}"
        rows = [(w.group, w.before, w.after) for w in self.widths]
        widths_before_and_after(title, rows, Path(path))

    def summary(self) -> str:
        before, after = (sum(getattr(w, n) for w in self.widths) for n in ("before", "after"))
        groups = counted(len(self.widths), "group")
        times = self.times()
        return f"{before:,} → {after:,} channels in {groups} by {self.criterion}" + (
            f", {times}" if times else ""
        )


@alone_in_folder
def prune(
    model: Model,
    inputs: Inputs = None,
    *,
    goal: Goal | None = None,
    keep: Mapping[str, float] | None = None,
    criterion: str | CriterionSpec | Criterion = "l1",
    target: Target | None = None,
    images: Given | None = None,
    labels: bool = False,
    limit: int = LIMIT,
    evaluation: Given | None = None,
    train: Given | None = None,
    epochs: int | None = None,
    options: Pruning | None = None,
    compensate: bool | None = None,
    steps: int | None = None,
    strength: float | None = None,
    drop_below: float | None = None,
    every: int | None = None,
    per: Per | None = None,
    in_order: bool = False,
    method: str | Search | None = None,
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
) -> Pruned:
    """Remove coupled channels of least importance until `goal` is met.

    Args:
        model, inputs: as of `compile`.
        goal: Goal.macs, Goal.params, Goal.channels; with a target Goal.speedup, Goal.budget_ms.
        keep: instead of a goal: channel group → share of its channels that stays.
        criterion: "l1", "l2", "random", "equal"; with images "hrank", "dropnet", "cap", "he"; with
            labels "slimming", "ssl", "group-sl", "group-fisher", "mseb"; or an object of one's own.
        target: a latency table's name or folder, or "host"; None: no files are made.
        images: for criteria and compensation, which see `limit` of them, and for int8.
        labels: class folders of `images` are labels, trained on with `epochs`; a tensor's are used.
        evaluation, train: other images, to judge and to train on, `epochs` long; options: the rest.
        compensate: fit what is left by least squares; None: with `images`, or as published.
        steps: of distillation behind compensation, where nothing is trained; None: the default.
        strength: of a penalty; None: the authors'. drop_below: ssl drops branches up to this.
        every: steps between removals in training. per: group-fisher's "memory", "flops", "budget".
        in_order: choose layer after layer (He et al., 2017; Xie et al., 2021).
        method: "abc", "ga", "amc", "cacp", "dmcp", "meta" or a `Search`: judge networks on images.
        precision: "fp32" or "int8", of the files and of what the table is asked.
        task, metric, loss, opset, threads, runs, folder, name, command, progress: as of `plan`.

    Raises InputError: a goal out of reach (says what is not), no group that can become narrower
    (says why); TableError, CaptureError, ModelRunError, VerificationError, TrainingError.
    """
    spec, options = spec_of(criterion), Pruning() if options is None else options
    check_kind("options", options, Pruning, "a Pruning")
    if keep:
        check_kind("keep", keep, Mapping, "a dictionary: channel group → share of its channels")
        options = replace(options, keep=keep)
    told = Told(compensate, steps, strength, drop_below, every, per, in_order, labels, limit)
    given = images is not None, train is not None
    asked = Asked.of(spec, goal, options, told, *given, epochs, search_of(method))
    files = options_of(target or "", precision, opset, threads, runs)
    asked.check_files(files)
    table = None if target is None else cost_table(target, threads)
    request = Request.of(
        *(model, inputs, files, images, evaluation, labels),
        folder=folder,
        name=name,
        command=command,
        progress=progress,
        task=asked_task(task, metric),
        train=train,
    )
    return Pruned.for_all(Pruner.of(asked.with_loss(request, loss), request, table))
