"""How wide every channel group becomes, within a budget for the whole network.

knapsack   the least importance is lost; any widths, by cost of each (`knapsack`)
global     all groups' scores in one list, the lowest go, up to one threshold
uniform    the same share of every group
search, sensitivity  as CaP and Pruning Filters publish it (`published/`)

Scores of different groups are made comparable (`normalise`):

share  what counts is the share s of a group's importance that stays. A group that r layers read
       loses −r·log s: the loss of several is that of the product of what each reader still has,
       and nothing ever goes entirely
mean   divided by the group's mean, added up: an average channel counts 1, wherever it is
sum    divided by the group's sum, added up: a whole group counts 1
none   as they are, added up: for criteria whose scores compare (a change of the loss, the scale of
       a batch norm)
cumulative  as they are; a score is what is lost once its channel and all lower ones are gone
measured    by what the network's outputs lose with one group pruned (`measured_damage`);
            scores only say which of its channels go

Everything here is a function of groups, scores and prices; no network is run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from shrinkc.compiler.support.choices import Allocated
from shrinkc.compiler.width.knapsack import (
    Choices,
    Floats,
    Problem,
    cheapest,
    solve,
    without_cliffs,
)
from shrinkc.compiler.width.price import Price
from shrinkc.errors import InputError, UnreachableGoalError
from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup, Groups
from shrinkc.passes.base import Skip
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.criteria.base import Normalise, Scores, most_important, rounded, widths

CANDIDATES = 16  # widths of a group that are priced, where nothing else is asked for
HALVINGS = 40
SMALLEST = 1e-9  # share of a group's importance


@dataclass(frozen=True)
class Allocation:
    """How to choose widths.

    kind        see the module; None: uniform for a keep ratio, otherwise knapsack
    normalise   scores; None: share
    multiple    of channels, as the target's kernels like them; None: the target's own, or a half, a
                quarter … of it where every group is too narrow for that
    floor       share of a group that always stays
    candidates  widths of a group that are priced, at most, evenly spread; None: 16, 64 where no
                latency is asked for
    search_step share of a group's channels, at most, that goes in one round of a search
    """

    kind: Allocated | None = None
    normalise: Normalise | None = None
    multiple: int | None = None
    floor: float = 0.1
    candidates: int | None = None
    search_step: float = 0.1

    def __post_init__(self) -> None:
        if self.multiple is not None and self.multiple < 1:
            raise InputError(f"multiples of {self.multiple} channels; give 1 or more")
        if not 0 <= self.floor < 1:
            raise InputError(f"a floor of {self.floor:g}; give 0 or more, below 1")
        if self.candidates is not None and self.candidates < 2:
            raise InputError(f"{self.candidates} candidate widths; give 2 or more")
        if not 0 < self.search_step <= 1:
            raise InputError(f"`search_step` {self.search_step:g}: give a share above 0, up to 1")

    def multiple_of(self, groups: Groups, target: int) -> int:
        """Of channels; `target`: that its kernels like."""
        if self.multiple is not None:
            return self.multiple
        multiple = target
        while multiple > 1 and not any(
            len(candidate_widths(group, self.floor * group.size, CANDIDATES, multiple)) > 1
            for group in groups.groups
        ):
            multiple //= 2
        return multiple


@dataclass(frozen=True, eq=False)
class Space:
    """The groups that can become narrower, their candidate widths and normalised scores.

    candidates  group → widths, ascending, the last is all of them
    skipped     groups that stay whole, and why
    measured    group → loss at each of its candidates, where that was measured
    """

    groups: Mapping[str, ChannelGroup]
    candidates: Mapping[str, tuple[int, ...]]
    scores: Scores
    normalise: Normalise
    skipped: tuple[Skip, ...]
    measured: Mapping[str, Floats] = field(default_factory=dict[str, Floats])

    @property
    def narrow(self) -> dict[str, int]:
        """A smaller width of every group."""
        return {name: widths[0] for name, widths in self.candidates.items()}

    @cached_property
    def lost(self) -> dict[str, Floats]:
        """Importance that is lost, by the number of channels that go from each cell."""
        cumulative = self.normalise == "cumulative"
        return {n: _lost(g, self.scores[n], cumulative) for n, g in self.groups.items()}

    def problem(self, price: Price) -> Problem:
        choices: dict[str, Choices] = {}
        for name, candidates in self.candidates.items():
            if name in self.measured:
                choices[name] = Choices(candidates, self.measured[name])
                continue
            group, lost = self.groups[name], self.lost[name]
            cells = int(group.cells.max()) + 1
            loss = np.array([lost[(group.size - width) // cells] for width in candidates])
            if self.normalise == "share":
                readers = _readers(group)
                loss = -readers * np.log(np.maximum(1 - loss / readers, SMALLEST))
            choices[name] = Choices(candidates, loss)
        return Problem(choices, price)

    def selection(self, chosen: Mapping[str, int]) -> Selection:
        """The most important channels of every group."""
        return selected(self.groups, self.scores, chosen)


class ByName(Protocol):
    """`Groups`, or some of them."""

    def __getitem__(self, name: str, /) -> ChannelGroup: ...


def selected(groups: ByName, scores: Scores, chosen: Mapping[str, int]) -> Selection:
    """The most important channels of every group, as many as `chosen`."""
    keep = {
        name: most_important(groups[name], scores[name], width)
        for name, width in chosen.items()
        if width < groups[name].size
    }
    return Selection(keep)


def space_of(
    groups: Groups,
    scores: Scores,
    options: Allocation,
    multiple: int,
    whole: Mapping[str, int] | None = None,
) -> Space:
    """`whole`: what the floor is a share of; default: the groups' sizes.

    Raises InputError for scores that are not finite, and where nothing can become narrower; it
    says why.
    """
    whole = whole or {}
    found: dict[str, tuple[int, ...]] = {}
    skipped: list[Skip] = []
    for group in groups.groups:
        least = options.floor * whole.get(group.name, group.size)
        allowed = candidate_widths(group, least, options.candidates or CANDIDATES, multiple)
        if group.name not in scores:
            skipped.append(Skip(group.name, "the criterion says nothing of it"))
        elif len(allowed) > 1:
            found[group.name] = allowed
        else:
            reason = f"none of its smaller widths is a multiple of {multiple} above the floor"
            skipped.append(Skip(group.name, reason))
    if not found:
        first = [p.reason for p in groups.protected[:1]]
        reason = skipped[0].reason if skipped else first[0] if first else "no layer"
        raise InputError(f"no channel group can become narrower: {reason}")
    members = {name: groups[name] for name in sorted(found)}  # in any order the same is chosen
    normalise = options.normalise or "share"
    return Space(
        members,
        {name: found[name] for name in members},
        {name: _normalised(group, scores[name], normalise) for name, group in members.items()},
        normalise,
        tuple(skipped),
    )


def candidate_widths(
    group: ChannelGroup, least: float, count: int, multiple: int
) -> tuple[int, ...]:
    """At most `count` widths of `least` channels or more, evenly spread, ascending; the last is all
    of them."""
    allowed = [n for n in widths(group, multiple) if n >= least]
    if len(allowed) <= count:
        return tuple(allowed)
    last = len(allowed) - 1
    return tuple(allowed[round(i * last / (count - 1))] for i in range(count))


def _normalised(group: ChannelGroup, scores: Floats, normalise: Normalise) -> Floats:
    if not np.isfinite(scores).all() or scores.min() < 0:
        raise InputError(f"channel group '{group.name}' has scores that are negative or no numbers")
    total = math.fsum(scores)
    if normalise in ("none", "cumulative", "measured") or total == 0:
        return scores
    whole = {"mean": group.size, "sum": 1, "share": _readers(group)}[normalise]
    return scores * (whole / total)


def _readers(group: ChannelGroup) -> int:
    """Layers that read the group; what leaves the network counts as read once."""
    return max(len({value.node for value in group.read}), 1)


def _lost(group: ChannelGroup, scores: Floats, cumulative: bool) -> Floats:
    """(n,): entry k is the sum of the k lowest scores of each cell, or their last one."""
    cells = [np.sort(scores[group.cells == cell]) for cell in range(int(group.cells.max()) + 1)]
    shortest = min(map(len, cells))
    lost = [c[:shortest] if cumulative else np.cumsum(c[:shortest]) for c in cells]
    return np.sum([np.concatenate(([0.0], one)) for one in lost], axis=0)


def allocate(space: Space, price: Price, budget: float, kind: Allocated) -> dict[str, int]:
    """Group → width. The price of the whole network is at most `budget`, and no group has a width
    that costs more than a larger one among its candidates.

    Raises InputError where that cannot be; it names the lowest price.
    """
    problem = space.problem(price)
    lowest = price.total(cheapest(problem))
    if lowest > budget:
        raise UnreachableError(budget, lowest)
    if kind == "knapsack":
        found = solve(problem, budget)
    else:
        by_amount = _threshold(space) if kind == "global" else _shares(space)
        found = _most(problem, budget, by_amount)
        if found is None:
            lowest = price.total(without_cliffs(problem, by_amount(1.0)))
    if found is None:
        raise UnreachableError(budget, lowest, f" with `allocation` {kind}")
    return found


class UnreachableError(UnreachableGoalError):
    """`closest` is the lowest price there is."""

    def __init__(self, budget: float, closest: float, limited_by: str = "") -> None:
        self.budget, self.closest, self.limited_by = budget, closest, limited_by
        super().__init__(
            f"a budget of {budget:.4g} cannot be reached{limited_by}; closest: {closest:.4g}"
        )


ByAmount = Callable[[float], dict[str, int]]


def _most(problem: Problem, budget: float, by_amount: ByAmount) -> dict[str, int] | None:
    """The least amount (0: nothing goes, 1: all that may) that meets the budget."""

    def at(amount: float) -> dict[str, int]:
        return without_cliffs(problem, by_amount(amount))

    best = at(1.0)
    if problem.price.total(best) > budget:
        return None
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = at(middle)
        if problem.price.total(found) <= budget:
            best, high = found, middle
        else:
            low = middle
    return best


def _shares(space: Space) -> ByAmount:
    """The same share of every group goes, up to the floor."""

    def at(amount: float) -> dict[str, int]:
        return {
            name: nearest(c, (1 - amount) * space.groups[name].size)
            for name, c in space.candidates.items()
        }

    return at


def _threshold(space: Space) -> ByAmount:
    """The share `amount` of all channels has scores below the threshold."""
    scores = np.sort(np.concatenate([space.scores[name] for name in space.candidates]))

    def at(amount: float) -> dict[str, int]:
        limit = scores[min(int(amount * len(scores)), len(scores) - 1)]
        everything = amount >= 1
        return {
            name: nearest(c, 0 if everything else int((space.scores[name] >= limit).sum()))
            for name, c in space.candidates.items()
        }

    return at


def nearest_to(space: Space, share: float, whole: Mapping[str, int]) -> dict[str, int]:
    """Of every group the candidate nearest to this share of its `whole` width, the larger of two
    equally near."""
    return {n: nearest(c, share * whole[n]) for n, c in space.candidates.items()}


def nearest(candidates: tuple[int, ...], channels: float) -> int:
    """The larger of two equally near."""
    return min(candidates, key=lambda n: (abs(n - channels), -n))


def per_group(
    groups: Groups, ratios: Mapping[str, float], multiple: int
) -> tuple[dict[str, int], tuple[Skip, ...]]:
    """Each named group keeps its own share, the others stay whole. Raises InputError for a name
    that is no group's and for a share of which nothing is left."""
    found: dict[str, int] = {}
    skipped: list[Skip] = []
    known = {group.name: group for group in groups.groups}
    for name, ratio in ratios.items():
        if name not in known:
            raise InputError(f"`keep` {name}: no channel group of that name; see shrinkc inspect")
        if not 0 < ratio < 1:
            what = "would vanish" if ratio <= 0 else "would stay whole"
            raise InputError(f"`keep` {name}={ratio:g}: the group {what}; give 0 to 1, exclusive")
        group = known[name]
        found[name] = rounded(group, ratio * group.size, multiple)
        if found[name] == group.size:
            skipped.append(Skip(name, f"a share of {ratio:g} rounds to all of its channels"))
    return found, tuple(skipped)
