"""Depth, width and precision in one decision.

    what is linear merged where that pays, which is exact → candidates of every precision →
    damage of each choice alone, of int8 alone (measured once) → the least damage within the
    budget, in fp32 and every variant of int8 (int8_variants.py): of the spans exactly, of channel
    groups one by one (slicings.py) → the nearest of them fitted quickly and compared
    (finalists.py) → groups sliced and spans fitted in execution order → judged on images that no
    fit saw → of all plans that are known and fit the budget, the one that loses least

Time is the target's, over the original in fp32: int8 spends nothing of the budget but accuracy.
Where the target is this machine, operators are timed one by one, the original and every set that is
to be taken as whole files, and sums of operators are scaled to that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import inf, isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
from torch import fx

from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.cost.goal import PLAN_GOALS, SHRINK_GOALS, Goal
from shrinkc.compiler.cost.predict import AsMeasured, CostTable
from shrinkc.compiler.depth.closed_form import (
    ClosedForm,
    Shrunk,
    TakenChoice,
    distilled,
    untuned,
)
from shrinkc.compiler.formats.base import FILE_PRECISIONS
from shrinkc.compiler.images.decoded import Samples
from shrinkc.compiler.pipeline.deployed import ExactMerge, channels_last, deployed
from shrinkc.compiler.plan.candidates import Candidates, available
from shrinkc.compiler.plan.comparing.finalists import (
    NEAR,
    Candidate,
    Ranked,
    finalists,
    ranked,
)
from shrinkc.compiler.plan.comparing.span_factors import SeenSet
from shrinkc.compiler.plan.comparing.true_loss import QuickFits, nearest
from shrinkc.compiler.plan.file_timing import FileTiming
from shrinkc.compiler.plan.finished_plans import FinishedPlans, Planned
from shrinkc.compiler.plan.group_choices import GroupChoice, sliced_and_fitted
from shrinkc.compiler.plan.int8_variants import PrecisionVariant, int8_variants
from shrinkc.compiler.plan.judging import Judge
from shrinkc.compiler.plan.plan_file import INT8, Plan, Promise, Resolution, Step
from shrinkc.compiler.plan.replay import changed_tensors, model_digest
from shrinkc.compiler.plan.slicings import SLACK, Slicing, Slicings
from shrinkc.compiler.recover.distil import fitted_and_judged
from shrinkc.compiler.recover.divergence import Damage
from shrinkc.compiler.recover.layer_problems import Sample, size_of
from shrinkc.compiler.support.choices import is_host
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.errors import InputError, UnreachableGoalError
from shrinkc.version import __version__

Train = Callable[[fx.GraphModule, fx.GraphModule], fx.GraphModule]
MOST_POINTS = 20  # of a frontier
TIGHTER = 4  # times that a way is asked for more, where measuring finds it too slow
POINTS = 8  # speedups that a search for an accuracy looks at, by halving,
CLOSER = 2  # times more between the last that keeps to it and the first that does not


@dataclass(frozen=True)
class Bound:
    """Another target that a network has to keep to. `times`: a millisecond there counts as so many
    of the planner's own target."""

    table: CostTable
    times: float


@dataclass(frozen=True)
class Planning:
    """How to plan.

    precisions  that may be chosen
    closed      how spans are fitted
    threads     of measurements here
    training    what training comes after the fits, in words: tells kept plans apart
    folder      keeps finished plans: a run that was stopped goes on; None: nothing is kept
    groups      whether channel groups that no span hides may be sliced
    sets        of choices that are judged by what they lose together, beside the first
    """

    precisions: tuple[str, ...] = FILE_PRECISIONS
    closed: ClosedForm = field(default_factory=ClosedForm)
    threads: int = 1
    training: str = ""
    folder: Path | None = None
    groups: bool = True
    sets: int = 12


def check_points(count: int) -> None:
    """Of a frontier. Raise InputError."""
    if type(count) is not int or not 3 <= count <= MOST_POINTS:
        raise InputError(f"`points` {count}: give 3 to {MOST_POINTS} points")


def prepare_planning(
    captured: fx.GraphModule,
    images: Samples,
    table: CostTable,
    planning: Planning | None = None,
    *,
    held_out: Samples | None = None,
    train: Train | None = None,
    progress: Progress | None = None,
    task: Task = CLASSIFICATION,
    whole: Planner | None = None,
    closer: float = 1.0,
    beside: Planner | None = None,
    bounds: Sequence[Bound] = (),
) -> Planner:
    """Find out what every plan rests on: which precisions there are, what the network takes as it
    is (timed, where the target is this machine), whether the images are fit for it.

    images    to fit to, no labels needed
    held_out  to judge on; without them every fourth of `images` is kept for it
    train     (fitted, original) → trained, before a plan is judged
    task      what the outputs mean
    whole     for the same network and images at its own size, where these are smaller
    closer    how many times closer these look than those of `whole`
    beside    for the same network and images on another target: what it knows is known here, too
    bounds    other targets that plans keep to

    Raises InputError, TableError.
    """
    planning, progress = planning or Planning(), progress or Silent()
    closed, folder = planning.closed, None if planning.folder is None else planning.folder / "plans"
    larger = (whole and whole.judge), (whole and whole.original)
    if beside is not None:
        original, judge = beside.original, beside.judge
    else:
        original = deployed(captured)
        sample = Sample.of(images, original, closed.images)
        if held_out is None:
            sample, held = sample.split()
        else:
            held = Sample.of(held_out, original, len(held_out))
        shared = closed.cache, planning.threads, progress, task, larger[0]
        judge = Judge(original, sample, held, *shared)
    sample, held = judge.sample, judge.held
    timing = FileTiming(original, judge.inputs, planning.threads, folder, progress, larger[1])
    precisions, notes = available(original, table, planning.precisions)
    for bound in bounds:
        precisions, more = available(original, bound.table, precisions)
        notes += [f"{bound.table.target}: {note}" for note in more]
    if is_host(table.target):
        table = AsMeasured(table, timing.factors(table, ("fp32", *precisions)))
    before_ms = predicted_ms(original, table, "fp32") if whole is None else whole.before_ms
    notes += judge.image_notes() if whole is None else []
    settings = (
        *(precisions, table.target, before_ms, planning.threads, planning.training),
        *(planning.groups, planning.sets, closed, images.digest, sample.indices),
        *(held.images.digest, held.indices, task),
        *(() if whole is None else (held.size, whole.judge.sample.images.digest)),
        *((bound.table.target, bound.times) for bound in bounds),
    )
    users, smaller = (captured, None) if whole is None else (whole.captured, captured)
    return Planner(
        *(captured, original, table, planning, precisions, before_ms),
        Candidates(
            *(original, table, precisions, closed.kinds, planning.groups),
            *(sample, closed.cache, progress, task, whole and whole.candidates),
            closed.parallel,
        ),
        *(judge, timing, FinishedPlans(folder, users, settings, smaller)),
        *(train, notes, progress, whole, closer, {} if beside is None else beside.seen),
        bounds=tuple(bounds),
    )


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A candidate, carried out but not distilled."""

    candidate: Candidate
    shrunk: Shrunk


@dataclass(eq=False)
class Planner:
    """Plans for one network and target; made by `prepare_planning`.

    table      as measured, where the target is this machine
    before_ms  the original's in fp32, by `table`
    notes      what a user should know, one sentence each; plans add to them
    whole      the planner of the network at its own size, where this one's images are smaller
    closer     how many times closer these look
    seen       sets that were judged by quick fits, by what is sliced: for other budgets
    bounds     other targets that plans keep to
    """

    captured: fx.GraphModule
    original: fx.GraphModule
    table: CostTable
    planning: Planning
    precisions: tuple[str, ...]
    before_ms: float
    candidates: Candidates
    judge: Judge
    timing: FileTiming
    finished: FinishedPlans
    train: Train | None
    notes: list[str]
    progress: Progress
    whole: Planner | None = None
    closer: float = 1.0
    seen: dict[tuple[str, ...], list[SeenSet]] = field(default_factory=dict[Any, Any])
    bounds: tuple[Bound, ...] = ()

    @property
    def task(self) -> Task:
        return self.judge.task

    @cached_property
    def variants(self) -> list[PrecisionVariant]:
        """What can be computed in, with the divergence that nothing but the precision causes."""
        found = [PrecisionVariant("fp32")] if "fp32" in self.precisions else []
        if "int8" in self.precisions:
            start = self.candidates.starts["int8"].graph_module
            found += int8_variants(partial(self.judge.int8_damage, start))
        return found

    @cached_property
    def size_damage(self) -> Damage | None:
        """What smaller images alone cost; None for the network's own size."""
        return None if self.whole is None else self.judge.of_the_size()

    def _resolution(self, precision: str) -> Resolution | None:
        """And what they save."""
        if self.whole is None or self.size_damage is None:
            return None
        before, after = (
            predicted_ms(one.original, one.table, precision) for one in (self.whole, self)
        )
        return Resolution(
            size=size_of(self.original),
            size_before=size_of(self.whole.original),
            closer=self.closer,
            saving_ms=before - after,
            loss=self.size_damage.loss,
            agreement=_known(self.size_damage.agreement),
        )

    @property
    def most(self) -> float:
        """The largest speedup that is sure to be reached."""
        return self.before_ms / min(b.fastest_ms(SLACK) for b in self.candidates.priced.values())

    @property
    def useful(self) -> float:
        """The largest speedup of a frontier: by what is done to spans, where that is anything. All
        groups at their narrowest leave nothing of a network."""
        slicings = self.candidates.priced.values()
        fastest = [b.of(()).fastest_ms(SLACK) for b in slicings if b.whole.found]
        return self.before_ms / min(fastest) if fastest else self.most

    # --- plans ---------------------------------------------------------------------------------

    def reach(self, goal: Goal) -> Planned:
        """The best plan for a speedup, milliseconds or what may be lost. Raises InputError for any
        other goal and for one that cannot be met."""
        match goal.among(PLAN_GOALS).kind:
            case "max_drop":
                return self.dropping(goal.value / self.task.points, confident=goal.confident)
            case "max_error":
                return self.erring(goal.value)
            case _:
                return self.within(goal.budget(self.before_ms))

    def require_reach(self, goal: Goal) -> None:
        """Raises UnreachableGoalError for a budget that nothing meets, before any fit."""
        if goal.kind in SHRINK_GOALS:
            self._look(goal.budget(self.before_ms))

    def _look(self, budget_ms: float) -> object:
        return self.chosen(budget_ms)

    def within(self, budget_ms: float, rows: list[Ranked] | None = None) -> Planned:
        """The plan that loses least of those that are known: a faster one that was asked for
        before may lose less. `rows`: what `chosen` says, ranked, where it was asked. Raises
        InputError for a budget that cannot be met; it says what is the fastest."""
        name = f"{budget_ms:.6g}"
        planned = self.finished.get(name)
        if planned is None:
            if rows is None:
                found = self.chosen(budget_ms)
                rows = self.ranked(found) if len(found) > 1 else [(nan, found[0])]
            planned = self._best(rows, budget_ms)
            self.finished.put(name, planned)
        return self.or_known(planned, budget_ms)

    def ranked(self, found: Sequence[Candidate]) -> list[Ranked]:
        """By what each loses fitted quickly, the least first."""
        starts = {p: start.graph_module for p, start in self.candidates.starts.items()}
        return ranked(found, starts, self.judge, self.progress)

    def or_known(self, planned: Planned, budget_ms: float) -> Planned:
        """Another plan that is known, where that loses less within the budget."""
        if self.bounds:  # on other targets it may be slower
            return planned
        fitting = {name: plan for name, plan in self.known().items() if _ms(plan) <= budget_ms}
        least = min(fitting, key=lambda name: lost(fitting[name]), default=None)
        if least is not None and lost(fitting[least]) < lost(planned.plan):
            return self.kept(least) or planned
        return planned

    def known(self) -> dict[str, Plan]:
        """Plans that are finished, by the names that they are kept by."""
        return self.finished.all()

    def kept(self, name: str) -> Planned | None:
        return self.finished.get(name)

    def chosen(self, budget_ms: float) -> list[Candidate]:
        """What may become the plan, not fitted: of every way that comes near the best, the choices
        of least damage."""
        if not is_host(self.table.target):  # where measuring may find more
            fastest = min(slicings.fastest_ms(1) for slicings in self.candidates.priced.values())
            if budget_ms < fastest:
                raise self._unreachable(budget_ms)
        found: list[Candidate] = []
        missed: dict[str, UnreachableGoalError] = {}  # the fastest of each variant
        variants: Sequence[PrecisionVariant] = self.variants
        asked_ms = budget_ms
        for _ in range(TIGHTER + 1):
            self._try(variants, asked_ms, budget_ms, found, missed)
            misses = missed.keys() - {one.variant.label for one in found}
            longest = max((missed[label].fastest_ms or 0.0 for label in misses), default=0.0)
            if not longest > budget_ms:
                break
            variants = [one for one in self.variants if one.label in misses]
            asked_ms *= budget_ms / longest  # the table promises that much too much
        notes = [f"{label}: {error}" for label, error in missed.items()]
        if not found:
            raise self._unreachable(budget_ms, missed)
        if is_host(self.table.target):
            having = {one.variant.label for one in found}
            self.notes += [n for n, label in zip(notes, missed, strict=True) if label not in having]
        return finalists(found)

    def _try(
        self,
        variants: Sequence[PrecisionVariant],
        asked_ms: float,
        budget_ms: float,
        found: list[Candidate],
        missed: dict[str, UnreachableGoalError],
    ) -> None:
        """Add what `variants` offer for `asked_ms` by the table and keeps `budget_ms`."""
        for expected, variant, slicing in self.by_table(asked_ms, variants):
            if found and expected >= NEAR * min(one.damage for one in found):
                break  # measuring takes time
            try:
                chosen = slicing.plans.within(budget_ms, self._measured(variant))
            except UnreachableGoalError as error:
                known = missed.get(variant.label, error)
                fastest = min((known, error), key=lambda one: one.fastest_ms or inf)
                missed[variant.label] = fastest
                continue
            damage = variant.damage + slicing.damage + slicing.plans.damage(chosen)
            found.append(Candidate(variant, slicing, chosen, damage))

    def _unreachable(
        self, budget_ms: float, missed: Mapping[str, UnreachableGoalError] | None = None
    ) -> InputError:
        """`missed`: the fastest of each variant that was tried."""
        missed = missed or {}
        if is_host(self.table.target) and missed:
            return UnreachableGoalError("; ".join(f"{k}: {error}" for k, error in missed.items()))
        fastest = self.before_ms / self.most
        if missed:  # what was tried, and what is judged: not all of what is priced can be
            sure = [b.fastest_ms(SLACK) for b in self.candidates.judged.values()]
            fastest = min([e.fastest_ms for e in missed.values() if e.fastest_ms] or sure)
        return UnreachableGoalError(
            f"a budget of {budget_ms:.4g} ms cannot be reached: from {self.before_ms:.4g} ms "
            f"the fastest is {fastest:.4g} ms, {self.before_ms / fastest:.2f}×",
            fastest_ms=fastest,
        )

    def _best(self, rows: Sequence[Ranked], budget_ms: float) -> Planned:
        """Of the way that a quick fit likes best the set that loses least by quick fits; fitted, as
        are other ways until what is left looks worse. The best is distilled: that takes longest,
        and helps all of them."""
        first = self._searched(rows[0][1], budget_ms)
        if len(rows) == 1:
            return self._planned(self._fitted(first))
        best: tuple[float, _Fitted] | None = None
        for quick, candidate in [(rows[0][0], first), *rows[1:]]:
            if best is not None and best[0] <= quick:
                break
            fitted = self._fitted(candidate)
            graph, prepared = fitted.shrunk.graph_module, None
            if candidate.variant.precision == "int8":
                prepared = self.judge.in_int8(graph, candidate.variant.int8_options(graph))
            loss = self.judge.loss(graph, prepared)
            if best is None or loss < best[0]:
                best = loss, fitted
        assert best is not None
        return self._planned(best[1])

    def _searched(self, one: Candidate, budget_ms: float) -> Candidate:
        """The set of the same way that loses least by quick fits. Where time is measured, sets that
        the table calls as fast are looked at, and the best has to keep the budget."""
        plans, measured = one.slicing.plans, self._measured(one.variant)
        limit = budget_ms if measured is None else plans.cost(one.chosen)
        start = self.candidates.starts[one.variant.precision].graph_module
        chosen = nearest(
            QuickFits(one.slicing, start, self.judge),
            one.chosen,
            limit,
            self.planning.sets,
            self.progress,
            self.seen.setdefault(tuple(slice.label for slice in one.slicing.slices), []),
        )
        if sorted(chosen) == sorted(one.chosen):
            return one
        if measured is not None and measured(plans.shape(chosen)) > budget_ms:
            return one
        damage = one.variant.damage + one.slicing.damage + plans.damage(chosen)
        return replace(one, chosen=chosen, damage=damage)

    def by_table(
        self, budget_ms: float, variants: Sequence[PrecisionVariant] | None = None
    ) -> list[tuple[float, PrecisionVariant, Slicing]]:
        """What the budget costs in every variant, with groups sliced and without, the least first,
        of equals what is faster as it is; what the table does not reach, measuring may."""
        alone: list[tuple[float, PrecisionVariant, Slicings]] = []
        for variant in self.variants if variants is None else variants:
            slicings, kept = self.candidates.judged[variant.precision], variant.int8.keep_fp32
            slicings = slicings.with_fp32(kept) if kept else slicings
            alone.append((variant.damage + slicings.of(()).total(budget_ms), variant, slicings))
        alone.sort(key=lambda one: (one[0], one[2].whole.before_ms))
        found, limit = (
            [(damage, variant, slicings.of(())) for damage, variant, slicings in alone],
            alone[0][0],
        )
        for _, variant, slicings in alone:
            if variant.damage < limit:
                with self.progress.task("Choosing"):
                    damage, slicing = slicings.best(budget_ms, limit - variant.damage)
                limit = min(limit, variant.damage + damage)
                found += [(variant.damage + damage, variant, slicing)] if slicing.slices else []
        return sorted(found, key=lambda one: (one[0], one[2].plans.before_ms))

    def frontier(self, count: int) -> list[Planned]:
        """Plans from the most accurate to the fastest; the fastest that are asked for may be out of
        reach once channels are rounded."""
        found: dict[str, Planned] = {}
        for speedup in self._speedups(count):
            try:
                planned = self.within(self.before_ms / speedup)
            except UnreachableGoalError as error:
                if not found:
                    raise
                self.notes.append(f"no plan for {speedup:.2f}×: {error}")
                break
            key = f"{planned.plan.precision} {planned.plan.resolution} {planned.plan.steps}"
            found.setdefault(key, planned)
        rows = list(found.values())
        return [one for one in rows if not any(_beats(other, one) for other in rows)]

    def dropping(self, share: float, *, confident: bool = False) -> Planned:
        """The fastest known plan that loses at most so much of the metric; `confident`: by the
        upper end of the interval that holds what is lost with 95% confidence."""

        def kept(promise: Promise) -> bool:
            lost = promise.drop
            if confident:
                lost = promise.interval[1] if promise.interval else None
            return lost is not None and lost <= share

        unit = f"{self.task.points * share:g} {self.task.unit}"
        return self._keeping(kept, f"{unit} with 95% confidence" if confident else unit)

    def erring(self, error: float) -> Planned:
        """The fastest known plan of which the error over variance of every output, and of each of
        its columns, is at most this with a confidence of 95%."""

        def kept(promise: Promise) -> bool:
            ends = [one.worst_interval[1] if one.worst_interval else inf for one in promise.outputs]
            return max(ends) <= error

        return self._keeping(kept, f"an error of {error:g} of an output's variance")

    def _keeping(self, kept: Callable[[Promise], bool], most: str) -> Planned:
        """The fastest known plan whose promise is `kept`. Speedups are looked at by halving, the
        last of them between two points: the faster, the less accurate."""

        def keeps(plan: Plan) -> bool:
            return plan.promise is not None and kept(plan.promise)

        speedups = self._speedups(POINTS)
        low, high = 0, len(speedups) - 1
        while low <= high:
            middle = (low + high) // 2
            if keeps(self.within(self.before_ms / speedups[middle]).plan):
                low = middle + 1
            else:
                high = middle - 1
        ends = speedups[max(high, 0) : high + 2]
        for _ in range(CLOSER if len(ends) == 2 else 0):
            between = (ends[0] * ends[1]) ** 0.5
            ends[0 if keeps(self.within(self.before_ms / between).plan) else 1] = between
        known = {name: plan for name, plan in self.known().items() if keeps(plan)}
        if known:
            best = self.kept(min(known, key=lambda name: _ms(known[name])))
            if best is not None:
                return best
        self.notes.append(f"nothing lost at most {most}; it stays as it is")
        variant = self.variants[0]
        whole = self.candidates.judged[variant.precision].of(())
        return self._planned(self._fitted(Candidate(variant, whole, (), variant.damage)))

    def _speedups(self, count: int) -> list[float]:
        """What is free (the network as it is, in every precision), then up to the most, closer
        together where less is lost."""
        free = self.before_ms / min(b.whole.before_ms for b in self.candidates.priced.values())
        found = [1.0, free] if free > 1 else [1.0]
        rest = count - len(found)
        if rest < 1:
            raise InputError(f"a frontier of {count} points; give {len(found) + 1} or more")
        ratio = self.useful / free
        return found + [free * ratio ** ((i / rest) ** 1.5) for i in range(1, rest + 1)]

    # --- applying ------------------------------------------------------------------------------

    def _fitted(self, candidate: Candidate) -> _Fitted:
        """By least squares and span by span."""
        slices, sample = candidate.slicing.slices, self.judge.sample
        plans, start = candidate.slicing.plans, self.candidates.starts[candidate.variant.precision]
        if slices:
            seen, _ = fitted_and_judged(sample, self.planning.closed.tuning)
            narrowed = sliced_and_fitted(start.graph_module, slices, seen, self.progress)
            plans = replace(plans, graph=channels_last(narrowed.graph_module))
        given = (plans, candidate.chosen, sample, self.planning.closed, self.progress)
        return _Fitted(candidate, untuned(*given))

    def _planned(self, fitted: _Fitted) -> Planned:
        """Distilled or trained, made int8, judged."""
        candidate, shrunk, sample = fitted.candidate, fitted.shrunk, self.judge.sample
        variant, slicing, chosen = candidate.variant, candidate.slicing, candidate.chosen
        start, slices = self.candidates.starts[variant.precision], slicing.slices
        if chosen or slices or self.whole is not None:
            teacher = start.graph_module
            if self.whole is not None:  # whose images are larger
                teacher, sample = self.whole.original, self.whole.judge.sample
            given = (sample, self.planning.closed.tuning, self.progress)
            tuned = distilled(shrunk, teacher, *given, task=self.task)
            shrunk = tuned if self.whole is None else self._less_lost(shrunk, tuned)
        graph = shrunk.graph_module
        if self.train is not None and (chosen or slices):
            graph = self.train(graph, self.original)
        graph.meta.update(self.captured.meta)
        tensors, speedup = changed_tensors(self.original, graph), None
        if is_host(self.table.target):
            speedup = self.timing.speedup(slicing.plans.shape(chosen), variant)
        prepared = None
        if variant.precision == "int8":
            prepared = self.judge.in_int8(graph, variant.int8_options(graph))
            corrected = changed_tensors(graph, prepared.graph_module)
            tensors |= {f"{INT8}{name}": tensor for name, tensor in corrected.items()}
        plan = Plan(
            shrinkc=__version__,
            model=model_digest((self.whole or self).captured),
            target=self.table.target,
            precision="int8" if variant.precision == "int8" else "fp32",
            before_ms=self.before_ms,
            after_ms=shrunk.after_ms,
            measured_speedup=speedup,
            promise=self.judge.promise(graph, prepared),
            resolution=self._resolution(variant.precision),
            steps=(
                *map(_exact, start.merges),
                *map(_slice, slices, slicing.damages),
                *map(_step, shrunk.taken),
            ),
            ranges=dict(prepared.quantisation.ranges) if prepared else {},
            keep_fp32=tuple(sorted(prepared.quantisation.keep_fp32)) if prepared else (),
        )
        return Planned(plan, tensors, graph, prepared.noise if prepared else ())

    def _less_lost(self, before: Shrunk, tuned: Shrunk) -> Shrunk:
        """A network for smaller images answers well before it is distilled, and may lose by it."""
        if tuned is before:
            return before
        judged = {one: self.judge.promise(one.graph_module, None) for one in (tuned, before)}
        return min(judged, key=lambda one: cost_of(judged[one]))

    def _measured(self, variant: PrecisionVariant) -> Callable[[fx.GraphModule], float] | None:
        """What counts as a network's milliseconds, where that is not the table's alone: measured on
        this machine, or on the target where they are most."""
        if is_host(self.table.target):
            return lambda graph: self.before_ms / self.timing.speedup(graph, variant)
        if not self.bounds:
            return None
        everywhere = (Bound(self.table, 1.0), *self.bounds)

        def most(graph: fx.GraphModule) -> float:
            kept = variant.int8_options(graph).keep_fp32
            return max(
                bound.times * predicted_ms(graph, bound.table, variant.precision, kept)
                for bound in everywhere
            )

        return most


def cost_of(promise: Promise | None) -> tuple[float, float]:
    """Share of the metric, as `lost`; among equals the outputs' errors tell."""
    if promise is None:
        return 1.0, inf
    return max(0.0, promise.lost), sum(one.error for one in promise.outputs)


def lost(plan: Plan) -> float:
    """Share of the metric; what few images gain is chance."""
    return cost_of(plan.promise)[0]


def _ms(plan: Plan) -> float:
    """As measured, where the target was at hand."""
    return plan.before_ms / (plan.measured_speedup or plan.speedup)


def _beats(a: Planned, b: Planned) -> bool:
    """As fast, and loses less."""
    return _ms(a.plan) <= _ms(b.plan) and lost(a.plan) < lost(b.plan)


def _exact(merge: ExactMerge) -> Step:
    return Step(
        kind="exact",
        source=merge.source,
        sink=merge.sink,
        saving_ms=merge.saving_ms,
        loss=0.0,
        agreement=1.0,
    )


def _step(row: TakenChoice) -> Step:
    return Step(
        kind=row.kind,
        source=row.source,
        sink=row.sink,
        channels=row.channels,
        channels_before=row.channels_before,
        saving_ms=row.saving_ms,
        loss=row.loss,
        agreement=_known(row.agreement),
    )


def _slice(choice: GroupChoice, damage: Damage) -> Step:
    group = choice.group
    return Step(
        kind="slice",
        source=group.name,
        sink=group.name,
        channels=choice.channels,
        channels_before=group.size,
        saving_ms=choice.saving_ms,
        loss=damage.loss,
        agreement=_known(damage.agreement),
        kept=tuple(np.flatnonzero(choice.keep).tolist()),
    )


def _known(agreement: float) -> float | None:
    return None if isnan(agreement) else agreement
