"""Depth, width and precision in one decision.

    candidates of every precision → damage of each choice alone, of int8 alone (measured once) →
    the least damage within the budget, in fp32 and every variant of int8 (int8_variants.py): of
    the spans exactly, of channel groups one by one (slicings.py) → the best of them → groups
    sliced and spans fitted in execution order → judged on images that no fit saw

Time is the target's, over the original in fp32: int8 spends nothing of the budget but accuracy.
Where the target is this machine, operators are timed one by one, the original and every set that is
to be taken as whole files, and sums of operators are scaled to that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from torch import Tensor, fx

from shrinkc.compiler.cost.budget import predicted_ms, price_of
from shrinkc.compiler.cost.goal import PLAN_GOALS, Goal
from shrinkc.compiler.cost.predict import AsMeasured, CostTable
from shrinkc.compiler.depth.choice_sets import Plans, outline
from shrinkc.compiler.depth.choices import Choice, choices
from shrinkc.compiler.depth.closed_form import ClosedForm, TakenChoice, fitted
from shrinkc.compiler.depth.importance import measure
from shrinkc.compiler.devices import is_host
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.images.sanity import Sanity
from shrinkc.compiler.measure.speedup import int8_file
from shrinkc.compiler.options import PRECISIONS
from shrinkc.compiler.pipeline.deployed import channels_last, deployed
from shrinkc.compiler.plan.drop import Answer, answers, answers_of_file, promise_of
from shrinkc.compiler.plan.file_timing import FEW, FileTiming
from shrinkc.compiler.plan.group_choices import (
    GroupChoice,
    group_choices,
    measure_groups,
    sliced_and_fitted,
)
from shrinkc.compiler.plan.int8_variants import Int8Damage, PrecisionVariant, int8_variants
from shrinkc.compiler.plan.plan_file import INT8, Plan, Promise, Step, plan_files, read_plan
from shrinkc.compiler.plan.replay import changed_tensors, model_digest, replay
from shrinkc.compiler.plan.slicings import SLACK, Slicing, Slicings
from shrinkc.compiler.quantise.noise import LayerNoise
from shrinkc.compiler.quantise.options import Int8
from shrinkc.compiler.quantise.prepare import Prepared, prepare
from shrinkc.compiler.recover.divergence import Damage, loss
from shrinkc.compiler.recover.layer_problems import Sample, size_of
from shrinkc.compiler.support.atomic_files import atomic_folder
from shrinkc.compiler.support.journal import Journal, digest_of
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.errors import InputError, TableError, UnreachableGoalError
from shrinkc.passes.analysis.linear.spans import NoSpan, find_spans

CALIBRATED = 100  # images that tell the ranges of int8
GLANCED = 32  # images, whether they are all alike
ADVICE = "a plan is fitted to them and may not suit others: give real images of many classes"
Train = Callable[[fx.GraphModule, fx.GraphModule], fx.GraphModule]
MOST_POINTS = 20  # of a frontier
POINTS = 8  # speedups that a search for an accuracy looks at


@dataclass(frozen=True)
class Planning:
    """How to plan.

    precisions  that may be chosen
    closed      how spans are fitted
    threads     of measurements here
    training    what training comes after the fits, in words: tells kept plans apart
    folder      keeps finished plans: a run that was stopped goes on; None: nothing is kept
    groups      whether channel groups that no span hides may be sliced
    """

    precisions: tuple[str, ...] = PRECISIONS
    closed: ClosedForm = field(default_factory=ClosedForm)
    threads: int = 1
    training: str = ""
    folder: Path | None = None
    groups: bool = True


@dataclass(frozen=True, eq=False)
class Planned:
    """A plan and its network. `noise`: of every layer in int8, where the plan was made just now."""

    plan: Plan
    tensors: dict[str, Tensor]
    graph_module: fx.GraphModule
    noise: tuple[LayerNoise, ...] = ()


def check_points(count: int) -> None:
    """Of a frontier. Raise InputError."""
    if not 3 <= count <= MOST_POINTS:
        raise InputError(f"`pareto` {count}: give 3 to {MOST_POINTS} points")


class Planner:
    """Plans for one network and target."""

    def __init__(
        self,
        captured: fx.GraphModule,
        images: Images,
        table: CostTable,
        planning: Planning | None = None,
        *,
        held_out: Images | None = None,
        train: Train | None = None,
        progress: Progress | None = None,
    ) -> None:
        """`images`: to fit to, no labels needed. `held_out`: to judge on; without them every
        fourth of `images` is kept for it. `train`: (fitted, original) → trained, before a plan is
        judged. Raises InputError, TableError.
        """
        self.captured, self.table, self.train = captured, table, train
        self.planning, self.progress = planning or Planning(), progress or Silent()
        self.original = deployed(captured)
        size = size_of(self.original)
        sample = Sample(images, size, self.planning.closed.images)
        if held_out is None:
            self.sample, self.held = sample.split()
        else:
            self.sample, self.held = sample, Sample(held_out, size, len(held_out))
        self.notes: list[str] = []
        self.precisions = tuple(self._available())
        if is_host(table.target):
            factors = self._files.factors(table, ("fp32", *self.precisions))
            self.table = AsMeasured(table, factors)
        self.before_ms = predicted_ms(self.original, self.table, "fp32")
        self._look_at_images()

    def _look_at_images(self) -> None:
        """Note where they are all alike."""
        sanity, answer = Sanity({"x"}, "y", "images", ADVICE), answers(self.original)
        few = self.sample.at_most(GLANCED)
        with self.progress.task("Looking at the images"):
            for x, _ in few.batches():
                sanity.see("x", x)
                sanity.see("y", answer(x))
        self.notes += sanity.notes()

    # --- what there is to choose from --------------------------------------------------------

    def _available(self) -> list[str]:
        """Of the precisions that were allowed, those that target and installation have."""
        found: list[str] = []
        for precision in self.planning.precisions:
            try:
                predicted_ms(self.original, self.table, precision)
            except TableError as error:
                self.notes.append(f"not planned in {precision}: {error}")
                continue
            if precision == "int8" and find_spec("ai_edge_quantizer") is None:
                self.notes.append("not planned in int8: pip install 'shrinkc[int8]'")
                continue
            found.append(precision)
        if not found:
            raise InputError("; ".join(self.notes))
        return found

    @cached_property
    def _files(self) -> FileTiming:
        how = self._inputs, self.planning.threads, self._plans_folder
        return FileTiming(self.original, *how, self.progress)

    @cached_property
    def _choices(self) -> dict[str, tuple[list[Choice], list[NoSpan]]]:
        """Precision → what saves time, and which spans stay."""
        spans, kinds = find_spans(self.original), self.planning.closed.kinds
        with self.progress.task("Pricing what can be done", len(self.precisions)) as done:
            found: dict[str, tuple[list[Choice], list[NoSpan]]] = {}
            for precision in self.precisions:
                found[precision] = choices(spans, price_of(self.table, precision), kinds)
                done()
        return found

    def _slices(self, precision: str) -> list[GroupChoice]:
        """Widths of channel groups that no span's choices are about."""
        if not self.planning.groups:
            return []
        found, _ = self._choices[precision]
        hidden = {c.span.hidden.producer for c in found if c.channels and c.span.hidden}
        with self.progress.task("Pricing channel groups"):
            return group_choices(self.original, self.table, precision, hidden)

    @cached_property
    def _unjudged(self) -> dict[str, Slicings]:
        """Precision → what can be done; tells times, and no damages."""
        kinds = self.planning.closed.kinds
        return {
            p: Slicings(Plans(self.original, self.table, p, found), self._slices(p), None, kinds)
            for p, (found, _) in self._choices.items()
        }

    @cached_property
    def slicings(self) -> dict[str, Slicings]:
        """Precision → what can be done, judged; every choice once for both."""
        how = self.sample, self.planning.closed.cache, self.progress
        every = [choice for found, _ in self._choices.values() for choice in found]
        labels = [choice.label for choice in every]
        damages = dict(zip(labels, measure(self.original, every, *how), strict=True))
        wanted = {c.label: c for slicings in self._unjudged.values() for c in slicings.slices}
        slices = measure_groups(self.original, list(wanted.values()), *how)
        damages |= {label: damage for label, (_, damage) in slices.items()}

        def judged(slicings: Slicings) -> Slicings:
            some = [c for c in slicings.slices if c.label in slices]
            whole = slicings.whole.judged([damages[c.label] for c in slicings.whole.found])
            kept = [replace(c, keep=slices[c.label][0].keep) for c in some]
            return Slicings(whole, kept, damages, slicings.kinds)

        return {p: judged(slicings) for p, slicings in self._unjudged.items()}

    @property
    def refused(self) -> tuple[NoSpan, ...]:
        """Spans that stay in every precision, and why."""
        per = [refused for _, refused in self._choices.values()]
        names = [{r.node for r in refused} for refused in per]
        return tuple(r for r in per[0] if all(r.node in found for found in names))

    @cached_property
    def variants(self) -> list[PrecisionVariant]:
        """In what to compute, with the divergence that nothing but the precision causes."""
        found = [PrecisionVariant("fp32")] if "fp32" in self.precisions else []
        return found + (int8_variants(self._as_int8) if "int8" in self.precisions else [])

    def _as_int8(self, how: Int8) -> Int8Damage:
        """What the original loses by it; kept."""
        seen = f"int8 {self.sample.images.digest} {self.sample.size} {self.sample.indices}"
        journal = Journal(self.planning.closed.cache, digest_of(self.original, f"{seen} {how}"))
        if "" not in journal.entries:
            prepared = prepare(self.original, self._inputs(CALIBRATED), how, self.progress)
            quantised, answer = self._quantised(prepared), answers(self.original)
            total = count = 0.0
            with self.progress.task("Measuring what int8 costs"):
                for x, _ in self._judging(self.sample.split()[1]):
                    total += float(loss(quantised(x), answer(x))) * len(x)
                    count += len(x)
            for layer in prepared.noise:
                journal.put(layer.layer, [layer.snr_db])
            journal.put("", [total / count])
        noise = {layer: found[0] for layer, found in journal.entries.items() if layer}
        return Int8Damage(journal.entries[""][0], noise)

    @property
    def most(self) -> float:
        """The largest speedup that is sure to be reached."""
        return self.before_ms / min(b.fastest_ms(SLACK) for b in self._unjudged.values())

    @property
    def _useful(self) -> float:
        """The largest speedup of a frontier: by what is done to spans, where that is anything. All
        groups at their narrowest leave nothing of a network."""
        slicings = self._unjudged.values()
        fastest = [b.of(()).fastest_ms(SLACK) for b in slicings if b.whole.found]
        return self.before_ms / min(fastest) if fastest else self.most

    # --- plans ---------------------------------------------------------------------------------

    def reach(self, goal: Goal) -> Planned:
        """The best plan for a speedup, milliseconds or what may be lost. Raises InputError for any
        other goal and for one that cannot be met."""
        if goal.among(PLAN_GOALS).kind == "max_drop":
            return self.dropping(goal.value / 100)
        return self.within(goal.budget(self.before_ms))

    def within(self, budget_ms: float) -> Planned:
        """The plan of least damage. Raises InputError for a budget that cannot be met; it says
        what is the fastest."""
        name = f"{budget_ms:.6g}"
        return self._kept(name) or self._planned(name, *self.chosen(budget_ms))

    def chosen(self, budget_ms: float) -> tuple[PrecisionVariant, Slicing, list[int]]:
        """What `within` takes, not fitted: of one slicing's plans the numbers of the choices."""
        if not is_host(self.table.target):  # where measuring may find more
            fastest = min(slicings.fastest_ms(1) for slicings in self._unjudged.values())
            if budget_ms < fastest:
                raise self._unreachable(budget_ms)
        best: tuple[float, PrecisionVariant, Slicing, list[int]] | None = None
        for expected, variant, slicing in self.by_table(budget_ms):
            if best is not None and best[0] <= expected:
                break  # measuring takes time
            try:
                chosen = slicing.plans.within(budget_ms, self._measured(variant))
            except InputError:
                continue
            damage = variant.damage + slicing.damage + slicing.plans.damage(chosen)
            if best is None or damage < best[0]:
                best = damage, variant, slicing, chosen
        if best is None:
            raise self._unreachable(budget_ms)
        return best[1:]

    def _unreachable(self, budget_ms: float) -> InputError:
        return UnreachableGoalError(
            f"a budget of {budget_ms:.4g} ms cannot be reached: from {self.before_ms:.4g} ms "
            f"the fastest is {self.before_ms / self.most:.4g} ms, {self.most:.2f}×"
        )

    def by_table(self, budget_ms: float) -> list[tuple[float, PrecisionVariant, Slicing]]:
        """What the budget costs in every variant, with groups sliced and without, the least first;
        what the table does not reach, measuring may."""
        alone: list[tuple[float, PrecisionVariant, Slicings]] = []
        for variant in self.variants:
            slicings, kept = self.slicings[variant.precision], variant.int8.keep_fp32
            slicings = slicings.with_fp32(kept) if kept else slicings
            alone.append((variant.damage + slicings.of(()).total(budget_ms), variant, slicings))
        alone.sort(key=lambda one: one[0])
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
        return sorted(found, key=lambda one: one[0])

    def frontier(self, count: int) -> list[Planned]:
        """Plans from the most accurate to the fastest."""
        found: dict[str, Planned] = {}
        for speedup in self._speedups(count):
            planned = self.within(self.before_ms / speedup)
            key = f"{planned.plan.precision} {planned.plan.steps}"
            found.setdefault(key, planned)
        return list(found.values())

    def dropping(self, share: float) -> Planned:
        """The fastest plan that loses at most this share of top-1, by halving: the faster, the
        less accurate."""
        speedups = self._speedups(POINTS)
        low, high = 0, len(speedups) - 1
        best: Planned | None = None
        while low <= high:
            middle = (low + high) // 2
            planned = self.within(self.before_ms / speedups[middle])
            promise = planned.plan.promise
            if promise is not None and promise.drop <= share:
                best, low = planned, middle + 1
            else:
                high = middle - 1
        if best is None:
            self.notes.append(f"nothing lost at most {100 * share:g} points; it stays as it is")
            variant = self.variants[0]
            best = self._planned("exact", variant, self.slicings[variant.precision].of(()), [])
        return best

    def _speedups(self, count: int) -> list[float]:
        """What is free (the network as it is, in every precision), then up to the most, closer
        together where less is lost."""
        free = self.before_ms / min(b.whole.before_ms for b in self._unjudged.values())
        found = [1.0, free] if free > 1 else [1.0]
        rest = count - len(found)
        if rest < 1:
            raise InputError(f"a frontier of {count} points; give {len(found) + 1} or more")
        ratio = self._useful / free
        return found + [free * ratio ** ((i / rest) ** 1.5) for i in range(1, rest + 1)]

    # --- applying ------------------------------------------------------------------------------

    def _planned(
        self, name: str, variant: PrecisionVariant, slicing: Slicing, chosen: Sequence[int]
    ) -> Planned:
        plans, slices, sample = slicing.plans, slicing.slices, self.sample
        if slices:
            start = sliced_and_fitted(self.original, slices, sample, self.progress).graph_module
            plans = replace(plans, graph=channels_last(start))
        teacher = self.original if slices else None
        shrunk = fitted(
            *(plans, chosen, sample, self.planning.closed, self.progress), teacher=teacher
        )
        graph = shrunk.graph_module
        if self.train is not None and (chosen or slices):
            graph = self.train(graph, self.original)
        graph.meta.update(self.captured.meta)
        tensors, speedup = changed_tensors(self.original, graph), None
        if is_host(self.table.target):
            shape = outline(slicing.plans.graph, [plans.found[i] for i in chosen])
            speedup = self._files.speedup(shape, variant)
        prepared = None
        if variant.precision == "int8":
            prepared = prepare(
                graph, self._inputs(CALIBRATED), variant.int8_options(graph), self.progress
            )
            corrected = changed_tensors(graph, prepared.graph_module)
            tensors |= {f"{INT8}{name}": tensor for name, tensor in corrected.items()}
        plan = Plan(
            shrinkc=_version(),
            model=model_digest(self.captured),
            target=self.table.target,
            precision="int8" if variant.precision == "int8" else "fp32",
            before_ms=self.before_ms,
            after_ms=shrunk.after_ms,
            measured_speedup=speedup,
            promise=self._promise(graph, prepared),
            steps=(*map(_slice, slices, slicing.damages), *map(_step, shrunk.taken)),
            ranges=dict(prepared.quantisation.ranges) if prepared else {},
            keep_fp32=tuple(sorted(prepared.quantisation.keep_fp32)) if prepared else (),
        )
        planned = Planned(plan, tensors, graph, prepared.noise if prepared else ())
        self._keep(name, planned)
        return planned

    def _promise(self, graph: fx.GraphModule, prepared: Prepared | None) -> Promise:
        """By the int8 file, where it is one."""
        with self.progress.task("Judging the plan on other images"):
            changed = answers(graph) if prepared is None else self._quantised(prepared)
            return promise_of(answers(self.original), changed, self._judging(self.held))

    def _judging(self, sample: Sample) -> list[tuple[Tensor, Tensor | None]]:
        labels = sample.images.labels
        return [(x, None if labels is None else labels[rows]) for x, rows in sample.batches()]

    def _quantised(self, prepared: Prepared) -> Answer:
        file = int8_file(prepared, self._inputs(FEW))
        return answers_of_file(file, prepared.graph_module, self.planning.threads)

    def _inputs(self, count: int) -> list[tuple[Tensor, ...]]:
        """Single images, evenly spread over those that fits see."""
        few = self.sample.at_most(count)
        return [(row[None],) for x, _ in few.batches() for row in x]

    def _measured(self, variant: PrecisionVariant) -> Callable[[fx.GraphModule], float] | None:
        """Milliseconds of a network, where the target is this machine."""
        if not is_host(self.table.target):
            return None
        return lambda graph: self.before_ms / self._files.speedup(graph, variant)

    # --- what is kept --------------------------------------------------------------------------

    @property
    def _plans_folder(self) -> Path | None:
        folder = self.planning.folder
        return None if folder is None else folder / "plans"

    def _place(self, name: str) -> Path | None:
        folder = self._plans_folder
        if folder is None:
            return None
        planning = self.planning
        told = (
            *(name, self.precisions, self.table.target, self.before_ms, planning.threads),
            *(
                planning.training,
                planning.groups,
                planning.closed,
                self.sample.images.digest,
                self.sample.indices,
            ),
            *(self.held.images.digest, self.held.indices),
        )
        return folder / digest_of(self.captured, str(told))

    def _kept(self, name: str) -> Planned | None:
        place = self._place(name)
        if place is None or not (place / "plan.json").exists():
            return None
        plan, tensors = read_plan(place)
        return Planned(plan, tensors, replay(self.captured, plan, tensors)[1])

    def _keep(self, name: str, planned: Planned) -> None:
        place = self._place(name)
        if place is not None:
            with atomic_folder(place) as folder:
                for file, content in plan_files(planned.plan, planned.tensors).items():
                    (folder / file).write_bytes(content)


def _step(row: TakenChoice) -> Step:
    return Step(
        kind=row.kind,
        source=row.source,
        sink=row.sink,
        channels=row.channels,
        channels_before=row.channels_before,
        saving_ms=row.saving_ms,
        loss=row.loss,
        agreement=row.agreement,
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
        agreement=damage.agreement,
        kept=tuple(np.flatnonzero(choice.keep).tolist()),
    )


def _version() -> str:
    from shrinkc import __version__

    return __version__
