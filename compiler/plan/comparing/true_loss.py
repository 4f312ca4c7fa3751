"""Sets of choices near the least damage, judged by what they really lose.

Damages of single choices are added up, though a dozen spans change at once and every fit makes up
for what those in front of it lost: of two sets with the same sum one may lose twice as much as the
other. So sets are fitted quickly, by least squares alone, and judged by their divergence on images
that these fits do not see, as SPDY (Frantar and Alistarh, ICML 2022) and ZipLM (Kurtic et al.,
NeurIPS 2023) do; their random coefficients are learnt here. The set of least damage, and the same
without each of its choices, tell by how much single damages mislead; with damages put right the
exact program finds another set, which is judged in turn. For another budget or target the sets that
were judged before tell it. Where few sets keep the budget all of them are judged.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

from torch import fx

from shrinkc.compiler.depth.choice_sets import Plans
from shrinkc.compiler.depth.closed_form import apply
from shrinkc.compiler.depth.sets.fitting import compatible_sets
from shrinkc.compiler.pipeline.deployed import channels_last
from shrinkc.compiler.plan.comparing.span_factors import Factors, SeenSet, SpanFactors
from shrinkc.compiler.plan.group_choices import sliced_and_fitted
from shrinkc.compiler.plan.judging import Judge
from shrinkc.compiler.plan.slicings import Slicing
from shrinkc.compiler.recover.layer_problems import Sample
from shrinkc.compiler.recover.rebuild_span import Rebuilding
from shrinkc.compiler.recover.resumed import Remembered
from shrinkc.compiler.support.journal import Journal, digest_of
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.errors import UnreachableGoalError
from shrinkc.passes.analysis.linear.spans import Span

SEEN = 80  # images that quick fits look at, at least, where there are twice as many
LOOKED_AT = 240  # at most; the others judge: few of them would be fitted by the choice of sets
ENOUGH = 64  # sets of which all are looked at, whether they keep the budget
PATIENCE = 4  # sets that are judged without finding a better one
DRAWS, STRAYING = 20, 0.1  # of factors for one set, each time so much further from the likeliest
TEXT = "Comparing sets of choices"

Set = tuple[int, ...]  # of choices, by their numbers


@dataclass(eq=False)
class QuickFits:
    """Sets of choices in one slicing, fitted by least squares on a few images: a fraction of the
    time that a plan takes. `start`: what choices are made in."""

    slicing: Slicing
    start: fx.GraphModule
    judge: Judge

    @cached_property
    def _samples(self) -> tuple[Sample, Sample]:
        """(seen, judged); of fewer images most are seen."""
        few = self.judge.sample.at_most(LOOKED_AT)
        if len(few) < 2 * SEEN:
            return few.split()
        judged, seen = few.split(len(few) // SEEN)
        return seen, judged

    @cached_property
    def plans(self) -> Plans:
        """Of the network whose groups are sliced."""
        slices, plans = self.slicing.slices, self.slicing.plans
        if not slices:
            return plans
        narrowed = sliced_and_fitted(self.start, slices, self._samples[0], Silent())
        return replace(plans, graph=channels_last(narrowed.graph_module))

    @cached_property
    def _teacher(self) -> Remembered:
        return Remembered(self.plans.graph, {choice.span.sink for choice in self.plans.found})

    @cached_property
    def _journal(self) -> Journal:
        (seen, judged), held, whole = self._samples, self.judge.held, self.judge.whole
        about = f"true loss {self.judge.task!r} {seen.images.digest} {seen.size}"
        about += f" {seen.indices} {judged.indices} {[c.label for c in self.slicing.slices]}"
        about += f" {held.images.digest} {held.indices} {whole and whole.held.size}"
        return Journal(self.judge.cache, digest_of(self.start, about), count=1)

    def fitted(self, chosen: Sequence[int]) -> fx.GraphModule:
        taken, quick = [self.plans.found[i] for i in chosen], Rebuilding(steps=0)
        given = self.plans.graph, taken, self._samples[0], quick, Silent()
        return apply(*given, teacher=self._teacher).graph_module

    def loss(self, chosen: Sequence[int]) -> float:
        """How far the answers are from the original's, on images that the fit did not see; kept."""
        label = self._label(chosen)
        if label not in self._journal.entries:
            self._judge(self.fitted(chosen), label)
        return self._journal.entries[label][0]

    def held_out_loss(self, chosen: Sequence[int]) -> float:
        """The same as a plan is judged: on other images, beside the user's network at its own size.
        What `loss` tells is found on the way."""
        label = self._label(chosen)
        held = f"held out: {label}"
        if held not in self._journal.entries:
            fitted = self.fitted(chosen)
            self._judge(fitted, label)
            self._journal.put(held, [self.judge.loss(fitted)])
        return self._journal.entries[held][0]

    def _label(self, chosen: Sequence[int]) -> str:
        return "; ".join(sorted(self.plans.found[i].label for i in chosen))

    def _judge(self, fitted: fx.GraphModule, label: str) -> None:
        self._journal.put(label, [self.judge.loss_on(fitted, self._samples[1])])


def nearest(
    quick: QuickFits,
    chosen: Sequence[int],
    limit_ms: float,
    sets: int,
    progress: Progress,
    seen: list[SeenSet] | None = None,
) -> list[int]:
    """The set that loses least by quick fits, `chosen` among them.

    limit_ms  of every set, by the table
    sets      within it that are judged beside `chosen`, at most
    seen      sets of the same network that were judged before; those that are judged here join them
    """
    first = tuple(sorted(chosen))
    if not first or not sets:
        return list(chosen)
    few = _all(quick.slicing.plans, first, limit_ms, sets)
    if few is None:
        seen = [] if seen is None else seen
        return list(_learning(quick, first, limit_ms, sets, progress, seen))
    if not few:
        return list(first)
    losses: dict[Set, float] = {}
    with progress.task(TEXT, 1 + len(few)) as done:
        for some in (first, *few):
            losses[some] = quick.loss(some)
            done()
    return list(min(losses, key=lambda some: losses[some]))


def _learning(
    quick: QuickFits,
    first: Set,
    limit_ms: float,
    sets: int,
    progress: Progress,
    seen: list[SeenSet],
) -> Set:
    """The best of those that seem best, one after the other, by what the ones before lost."""
    plans = quick.slicing.plans
    losses: dict[Set, float] = {}

    def judged(some: Set) -> SeenSet:
        losses[some] = quick.loss(some)
        done()
        alone = {plans.found[i].span: plans.options[i].damage for i in some}
        return SeenSet(alone, losses[some])

    known, strangers = list(seen), len(seen) < len(first)
    patience = PATIENCE if strangers else sets  # others were chosen for another budget
    without = [tuple(i for i in first if i != one) for one in first] if strangers else []
    without = [some for some in without if some]
    with progress.task(TEXT, 1 + len(without) + sets) as done:
        begun = judged(first)
        if not begun.tells:
            return first
        factors = SpanFactors(_in_order(plans, [begun, *known]), begun)
        for one in known:
            factors.saw(one)
        seen.append(begun)
        best, since = first, 0
        for some in without:
            seen.append(judged(some))
            factors.saw(seen[-1])
        for _ in range(sets):
            some = _another(plans, factors, losses, limit_ms)
            if some is None or since == patience:
                break
            seen.append(judged(some))
            factors.saw(seen[-1])
            best, since = (some, 0) if losses[some] < losses[best] else (best, since + 1)
    return best


def _in_order(plans: Plans, seen: Sequence[SeenSet]) -> list[Span]:
    """Spans of all choices and of all sets, as the network computes them."""
    place = {node.name: number for number, node in enumerate(plans.graph.graph.nodes)}
    every = {choice.span: None for choice in plans.found}
    every |= dict.fromkeys(span for one in seen for span in one.alone)
    return sorted(every, key=lambda span: (place[span.sink], place[span.source]))


def _another(
    plans: Plans, factors: SpanFactors, seen: Collection[Set], limit_ms: float
) -> Set | None:
    """The set that is expected to lose least; where it was seen, by factors as they may also be."""
    for number in range(DRAWS):
        given = factors.drawn(min(1.0, number * STRAYING)) if number else factors.expected()
        with suppress(UnreachableGoalError):
            found = tuple(sorted(_weighted(plans, given).within(limit_ms)))
            if found not in seen:
                return found
    return None


def _weighted(plans: Plans, factors: Factors) -> Plans:
    both = zip(plans.found, plans.damages or (), strict=True)
    return plans.judged([replace(d, loss=factors[c.span] * d.loss) for c, d in both])


def _all(plans: Plans, first: Set, limit_ms: float, sets: int) -> list[Set] | None:
    """All sets within the limit but the first, where these are few."""
    every = list(islice(compatible_sets(plans.options), ENOUGH + 1))
    if len(every) > ENOUGH:
        return None
    others = (found for one in every if (found := tuple(sorted(one))) != first)
    keeping = list(islice((s for s in others if plans.cost(s) <= limit_ms), sets + 1))
    return keeping if len(keeping) <= sets else None
