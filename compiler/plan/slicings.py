"""Channel groups and spans in one decision.

A slicing is the network with some of its channel groups sliced. What its spans cost is priced anew,
so that for every slicing the spans are chosen exactly. Which slicing: groups and spans together as
if what they save added up, and nothing sliced, are where the search starts; from there one group at
a time as long as that lessens the damage. What is worth a try is told by the spans' damage as a
function of what they have to save: a group that saves s milliseconds may do as much damage as it
spares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf

from torch import fx

from shrinkc.compiler.cost.budget import price_of
from shrinkc.compiler.depth.choice_sets import Plans
from shrinkc.compiler.depth.choices import Kind, choices
from shrinkc.compiler.depth.select import Option, least_damage, most, select
from shrinkc.compiler.plan.group_choices import GroupChoice, sliced
from shrinkc.compiler.recover.divergence import Damage
from shrinkc.passes.analysis.linear.spans import find_spans

MORE = 1.05  # is asked for, next time
HOPE = 1.3  # of the damage of now, that is expected at most of what is tried
TRIED = 4  # of the most promising slicings, before the best of them is taken
SLACK = 0.97  # of the most that choices save, that a whole network is sure to reach


@dataclass(frozen=True, eq=False)
class Slicing:
    """`slices`: of the network's groups, one each at most. `damages`: of each of them alone, once
    they are measured. `plans`: what can be done to the spans that are then there."""

    slices: tuple[GroupChoice, ...]
    damages: tuple[Damage, ...]
    plans: Plans

    @property
    def damage(self) -> float:
        """Of the slices."""
        return _damage(self.damages)

    def total(self, budget_ms: float) -> float:
        """The least damage within a budget, operator by operator; infinite where there is none."""
        saving = self.plans.before_ms - budget_ms
        return self.damage + least_damage(self.plans.options, [saving])[0]

    def fastest_ms(self, share: float) -> float:
        """With a share of the most that its spans' choices save one by one."""
        return self.plans.before_ms - share * self.plans.most


@dataclass(frozen=True, eq=False)
class Slicings:
    """All slicings of one network in one precision.

    whole    nothing sliced
    slices   that are possible
    damages  by label, of slices and of what is done to spans; None before they are measured
    kinds    what may be done to spans
    """

    whole: Plans
    slices: Sequence[GroupChoice]
    damages: Mapping[str, Damage] | None
    kinds: Sequence[Kind]
    _made: dict[frozenset[str], Slicing] = field(default_factory=dict[frozenset[str], Slicing])

    def of(self, slices: Sequence[GroupChoice]) -> Slicing:
        key = frozenset(choice.label for choice in slices)
        if key not in self._made:
            plans = self._plans(sliced(self.whole.graph, slices)) if slices else self.whole
            alone = self.damages
            damages = () if alone is None else tuple(alone[choice.label] for choice in slices)
            self._made[key] = Slicing(tuple(slices), damages, plans)
        return self._made[key]

    def _plans(self, graph: fx.GraphModule) -> Plans:
        whole, damages = self.whole, self.damages
        price = price_of(whole.table, whole.precision)
        found, _ = choices(find_spans(graph), price, self.kinds)
        if damages is None:
            return replace(whole, graph=graph, found=found)
        found = [choice for choice in found if choice.label in damages]
        alone = [damages[choice.label] for choice in found]
        return replace(whole, graph=graph, found=found, damages=alone)

    def _damage(self, slices: Sequence[GroupChoice]) -> float:
        alone = self.damages or {}
        return _damage([alone[choice.label] for choice in slices])

    def with_fp32(self, layers: Sequence[str]) -> Slicings:
        """The same where these layers compute in fp32."""
        return replace(self, whole=replace(self.whole, keep_fp32=layers), _made={})

    def fastest_ms(self, share: float) -> float:
        """Of every slicing, as there."""
        return min(self.of(some).fastest_ms(share) for some in ((), self._narrowest))

    @cached_property
    def _narrowest(self) -> tuple[GroupChoice, ...]:
        return tuple({choice.group.name: choice for choice in self.slices}.values())

    def best(self, budget_ms: float, limit: float = inf) -> tuple[float, Slicing]:
        """(damage, slicing) of the least damage within a budget, operator by operator; infinite
        where there is none. Nothing is looked for that cannot come below `limit`."""
        whole = self.of(())
        together = self._together(budget_ms, limit)
        found = [
            self._better(slicing, budget_ms, limit) for slicing in dict.fromkeys((whole, together))
        ]
        return min(found, key=lambda one: one[0])

    def _together(self, budget_ms: float, limit: float) -> Slicing:
        """What one dynamic program takes for groups and spans, as if their savings added up; since
        they save less, it is asked for more until the budget is met."""
        options = list(self.whole.options)
        count = len(options)
        end = 1 + max((option.last for option in options), default=0)
        place = {choice.group.name: end + i for i, choice in enumerate(self.slices)}
        for choice in self.slices:
            at = place[choice.group.name]
            options.append(Option(at, at, choice.saving_ms, self._damage((choice,))))
        saving = self.whole.before_ms - budget_ms
        while 0 < saving <= most(options):
            chosen = select(options, saving)
            if sum(options[i].damage for i in chosen) > HOPE * limit:
                break
            slicing = self.of([self.slices[i - count] for i in chosen if i >= count])
            if slicing.total(budget_ms) < inf:
                return slicing
            saving *= MORE
        whole = self.of(())
        return whole if whole.total(budget_ms) < inf else self.of(self._narrowest)

    def _better(self, slicing: Slicing, budget_ms: float, limit: float) -> tuple[float, Slicing]:
        """The same, of what single groups lead to from this slicing."""
        least = slicing.total(budget_ms)
        while least < inf:
            near = self._near(slicing, budget_ms, min(least, limit))
            tried = [(b.total(budget_ms), i, b) for i, b in enumerate(near)]
            if not tried or min(tried)[0] >= least:
                break
            least, _, slicing = min(tried)
        return least, slicing

    def _near(self, slicing: Slicing, budget_ms: float, least: float) -> list[Slicing]:
        """Those of one slice more, less or another that may do less damage than `least`; that a
        sliced group makes merging cheaper only pricing tells."""
        now = {choice.group.name: choice for choice in slicing.slices}
        moves = [now | {c.group.name: c} for c in self.slices if c not in slicing.slices]
        moves += [{name: c for name, c in now.items() if name != gone} for gone in now]
        taken = [tuple(move.values()) for move in moves]
        needed = slicing.plans.before_ms - budget_ms + _saving(slicing.slices)
        left = least_damage(slicing.plans.options, [needed - _saving(slices) for slices in taken])
        total = [damage + self._damage(slices) for damage, slices in zip(left, taken, strict=True)]
        order = sorted(range(len(taken)), key=total.__getitem__)
        return [self.of(taken[i]) for i in order[:TRIED] if total[i] < HOPE * least]


def _saving(slices: Sequence[GroupChoice]) -> float:
    return sum(choice.saving_ms for choice in slices)


def _damage(damages: Sequence[Damage]) -> float:
    return sum(max(0.0, damage.loss) for damage in damages)  # below 0: rounding
