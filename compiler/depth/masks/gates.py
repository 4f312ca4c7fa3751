"""DepthShrinker's search: which blocks can do without their activations (Fu et al., 2022).

Every block has one mask that its activations share; forward

    y = m·act(x) + (1 − m)·x,   m = 1 for the blocks that are kept, 0 for the others,

where those with the largest scores are kept; the gradient goes straight through m to the score.
Scores and weights are trained together. Scores decay, those of blocks that save more time faster
(the paper's latency-aware decay; its published code has the sign the other way round).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.depth.masks.annealing import rewired, take_weights
from shrinkc.compiler.depth.options import DepthOption
from shrinkc.compiler.depth.select import Option, select
from shrinkc.compiler.pipeline.deployed import Network
from shrinkc.compiler.recover.recipe import Trainer
from shrinkc.compiler.train.settings.config import Hooks, Moment
from shrinkc.compiler.train.settings.optimisers import Group
from shrinkc.errors import InputError
from shrinkc.passes.algebra.intervals import Interval, best_disjoint
from shrinkc.passes.analysis.linear.spans import find_spans

Unit = tuple[str, ...]  # activations with one mask
RATE, DECAY = 1.0, 0.02  # of scores: learning rate over the weights', pull towards zero


@dataclass(frozen=True, eq=False)
class Search:
    """What can be searched: units, and the options that are made of whole units."""

    units: tuple[Unit, ...]
    options: tuple[DepthOption, ...]
    members: tuple[tuple[int, ...], ...]  # units of each option

    def savings(self) -> Tensor:
        """Milliseconds by unit: of the option that is made of it alone, else its share of the
        best of those that it is part of."""
        found = torch.zeros(len(self.units))
        for alone in (False, True):
            for option, members in zip(self.options, self.members, strict=True):
                share = option.saving_ms / len(members)
                for unit in members if (len(members) == 1) == alone else ():
                    found[unit] = share if alone else max(share, float(found[unit]))
        return found

    def within(self, saving_ms: float, scores: Sequence[float]) -> list[int]:
        """Options that save enough and cost the smallest scores, exactly."""
        return select(self.priced(scores), saving_ms)

    def priced(self, scores: Sequence[float]) -> list[Option]:
        """An option harms by the scores of its units."""
        costs = [sum(scores[unit] for unit in units) for units in self.members]
        return [o.priced(cost) for o, cost in zip(self.options, costs, strict=True)]

    def keeping(self, count: int, scores: Sequence[float]) -> list[int]:
        """The options that save most while the `count` units with the largest scores stay; where
        the others make no option by themselves, the one of the smallest mean score that is made of
        as many units or fewer."""
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        kept = set(order[:count])
        free = [i for i, units in enumerate(self.members) if kept.isdisjoint(units)]
        chosen = best_disjoint(
            [Interval(o.first, o.last, o.saving_ms) for o in (self.options[i] for i in free)]
        )
        if chosen:
            return [free[i] for i in chosen]
        most = len(scores) - count
        some = [(i, units) for i, units in enumerate(self.members) if 0 < len(units) <= most]
        few = [(mean(scores[unit] for unit in units), i) for i, units in some]
        return [i for _, i in sorted(few)[:1]]

    def closed(self, chosen: Sequence[int]) -> list[int]:
        """The units that the chosen options are made of."""
        return sorted({unit for i in chosen for unit in self.members[i]})


def search_space(
    net: Network, options: Sequence[DepthOption], per_activation: bool = False
) -> Search:
    """Blocks are spans with hidden channels: what lies between two dense layers that others
    see. Activations outside of blocks are units of their own; so is every one if asked for."""
    known = {name for option in options for name in option.plan.removed}
    units: list[Unit] = []
    taken: set[str] = set()
    for span in () if per_activation else find_spans(net.folded).spans:
        if span.hidden is not None and taken.isdisjoint(span.removed):
            units.append(span.removed)
            taken.update(span.removed)
    units += [(name,) for name in sorted(known - taken)]
    whole: list[tuple[DepthOption, tuple[int, ...]]] = []
    for option in options:
        members = _members(units, option.plan.removed)
        if members is not None:
            whole.append((option, members))
    if not whole:
        raise InputError("no block as a whole saves time; try `method` two-stage-dp")
    used = sorted({unit for _, members in whole for unit in members})
    place = {unit: i for i, unit in enumerate(used)}
    return Search(
        tuple(units[i] for i in used),
        tuple(option for option, _ in whole),
        tuple(tuple(place[unit] for unit in members) for _, members in whole),
    )


def _members(units: Sequence[Unit], removed: Unit) -> tuple[int, ...] | None:
    """The units that make up `removed`; None where one is only touched."""
    names = set(removed)
    touched = [i for i, unit in enumerate(units) if not names.isdisjoint(unit)]
    return tuple(touched) if {n for i in touched for n in units[i]} == names else None


class Gates(nn.Module):
    """`scores` are learned; `open` says which units keep their activations now."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.ones(units))
        self.open: Tensor
        self.register_buffer("open", torch.ones(units))

    def mask(self, unit: int) -> Tensor:
        """0 or 1, with the gradient of the score."""
        score = self.scores[unit]
        return self.open[unit] + score - score.detach()


class Gated(nn.Module):
    """An activation behind a mask that others share."""

    def __init__(self, activation: nn.Module, gates: Gates, unit: int) -> None:
        super().__init__()
        self.activation, self.unit = activation, unit
        self.shared = (gates,)  # not a submodule: it belongs to the network

    def forward(self, x: Tensor) -> Tensor:
        mask = self.shared[0].mask(self.unit)
        return mask * self.activation(x) + (1 - mask) * x


def gated(net: Network, search: Search) -> tuple[fx.GraphModule, Gates]:
    """A copy of the network to be trained, with masks."""
    gates = Gates(len(search.units))
    unit_of = {name: i for i, unit in enumerate(search.units) for name in unit}

    def wrap(name: str, activation: nn.Module) -> Gated:
        return Gated(activation, gates, unit_of[name])

    copy = rewired(net.graph, list(unit_of), "gated", wrap)
    copy.add_submodule("gates", gates)
    return copy, gates


def learn(
    net: Network,
    search: Search,
    choose: Callable[[Sequence[float]], list[int]],
    trainer: Trainer,
    epochs: int,
) -> list[float]:
    """Train masks and weights; `net.graph` gets the weights. Returns the scores.

    choose  options that are taken, by the scores
    """
    model, gates = gated(net, search)
    savings = search.savings()
    pull = DECAY * savings / savings.mean()

    def close(*_: object) -> None:
        closed = search.closed(choose(_numbers(gates.scores)))
        gates.open.fill_(1)
        gates.open[closed] = 0

    def penalty(_model: nn.Module, _moment: Moment) -> Tensor:
        return (pull * gates.scores**2).sum() / 2

    with torch.no_grad():
        close()
    hooks = Hooks(penalty=penalty, after_step=close)
    trainer.fit(model, "search", epochs, hooks, (Group("gates.scores", lr_factor=RATE),))
    take_weights(net.graph, model)
    return _numbers(gates.scores)


def _numbers(scores: Tensor) -> list[float]:
    return [float(score) for score in scores.detach()]
