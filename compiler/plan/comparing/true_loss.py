"""Sets of choices near the least damage, judged by what they really lose.

Damages of single choices are added up, though a dozen spans change at once and every fit makes up
for what those in front of it lost: of two sets with the same sum one may lose twice as much as the
other. So every span's damages are multiplied by a random coefficient and the exact program is
solved again (Frantar and Alistarh, SPDY, ICML 2022; Kurtic et al., ZipLM, NeurIPS 2023). What it
takes then is fitted quickly, by least squares alone, and judged by its divergence on images that
these fits do not see. The second half of the coefficients are drawn near the best ones so far.
Where few sets keep the budget all of them are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from math import exp
from random import Random

from torch import fx

from shrinkc.compiler.depth.choice_sets import Plans
from shrinkc.compiler.depth.closed_form import apply
from shrinkc.compiler.depth.sets.fitting import compatible_sets
from shrinkc.compiler.pipeline.deployed import channels_last
from shrinkc.compiler.plan.group_choices import sliced_and_fitted
from shrinkc.compiler.plan.judging import Judge
from shrinkc.compiler.plan.slicings import Slicing
from shrinkc.compiler.recover.layer_problems import Sample
from shrinkc.compiler.recover.rebuild_span import Rebuilding
from shrinkc.compiler.recover.resumed import Remembered
from shrinkc.compiler.support.journal import Journal, digest_of
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.passes.analysis.linear.spans import Span

SEEN = 80  # images that quick fits look at; as many others judge
ENOUGH = 64  # sets of which all are looked at, whether they keep the budget
FAR, NEAR, MOVED = 0.5, 0.4, 0.4  # spread of the coefficients' logarithms; share that moves, near
HOPE = 1.5  # times the least sum of damages that is looked at
DRAWS = 20  # of coefficients, before there is said to be no other set

Set = tuple[int, ...]  # of choices, by their numbers
Fits = Callable[[Sequence[int]], bool]
Weights = dict[Span, float]


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
        few = self.judge.sample.at_most(2 * SEEN)
        return few.split(2) if len(few) == 2 * SEEN else few.split()

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
    quick: QuickFits, chosen: Sequence[int], fits: Fits, sets: int, progress: Progress
) -> list[int]:
    """The set that loses least by quick fits, `chosen` among them. `fits`: whether a set keeps the
    budget; `sets`: others that are judged, at most."""
    best = tuple(sorted(chosen))
    if not best or not sets:
        return list(chosen)
    draws = _Draws(quick.slicing.plans, best, fits, sets)
    if not draws.count:
        return list(chosen)
    with progress.task("Comparing sets of choices", draws.count) as done:
        least, weights = quick.loss(best), Weights()
        for number in range(draws.count):
            drawn = draws.another(weights if number >= draws.count // 2 else None)
            if drawn is None:
                break
            lost = quick.loss(drawn[0])
            if lost < least:
                least, (best, weights) = lost, drawn
            done()
    return list(best)


class _Draws:
    """Sets that keep the budget, each once."""

    def __init__(self, plans: Plans, chosen: Set, fits: Fits, sets: int) -> None:
        self.plans, self.fits, self.sets = plans, fits, sets
        self.spans = list(dict.fromkeys(choice.span for choice in plans.found))
        self.saving = sum(plans.options[i].saving for i in chosen)
        self.limit = HOPE * plans.damage(chosen)
        self._seen, self._random = {chosen}, Random(0)
        self._few = self._all()

    @property
    def count(self) -> int:
        return self.sets if self._few is None else len(self._few)

    def another(self, near: Weights | None) -> tuple[Set, Weights] | None:
        """A set, and the logarithms of the coefficients that lead to it; `near` those given, or
        anywhere."""
        if self._few is not None:
            return (self._few.pop(), {}) if self._few else None
        for _ in range(DRAWS):
            weights = {span: self._drawn(span, near) for span in self.spans}
            found = tuple(sorted(self._weighted(weights).saving(self.saving)))
            if found not in self._seen and self.plans.damage(found) <= self.limit:
                self._seen.add(found)
                if self.fits(found):
                    return found, weights
        return None

    def _drawn(self, span: Span, near: Weights | None) -> float:
        if near is None:
            return self._random.gauss(0, FAR)
        moved = self._random.gauss(0, NEAR) if self._random.random() < MOVED else 0.0
        return near.get(span, 0.0) + moved

    def _weighted(self, weights: Weights) -> Plans:
        damages = self.plans.damages or ()
        both = zip(self.plans.found, damages, strict=True)
        times = [(exp(weights[choice.span]), damage) for choice, damage in both]
        return self.plans.judged([replace(one, loss=factor * one.loss) for factor, one in times])

    def _all(self) -> list[Set] | None:
        """All that keep the budget but the first, where these are few."""
        every = list(islice(compatible_sets(self.plans.options), ENOUGH + 1))
        if len(every) > ENOUGH:
            return None
        others = [found for one in every if (found := tuple(sorted(one))) not in self._seen]
        keeping = list(islice(filter(self.fits, others), self.sets + 1))
        return keeping if len(keeping) <= self.sets else None
