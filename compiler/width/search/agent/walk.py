"""AMC's environment: an agent goes from layer to layer and says how much of each stays.

Before a group is decided the agent sees (He et al., 2018, section 3.2)

    (t, n, c, h, w, stride, k, cost[t], reduced, rest, a_{t−1})

its number, what its first layer makes, reads, and over which map, all relative to the largest of
any group; what that group's layers cost; what is saved already and what is still to come, of the
network's cost; and the last action. Of a share of the group the nearest width is taken, or less:
the widest with which the goal can still be met when everything behind becomes as narrow as it may
(their algorithm 1, exact in the prices of whatever the goal counts).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import fsum
from typing import Any

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.width.allocation import UnreachableError, nearest
from shrinkc.compiler.width.knapsack import cheapest, without_cliffs
from shrinkc.compiler.width.search.within import Within
from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.ir import module_of

Act = Callable[[int, Tensor], float]  # number and state of a group → the share that stays


@dataclass(frozen=True, eq=False)
class Walk:
    """One episode. states: (groups, numbers); actions: shares as they were asked for."""

    states: Tensor
    actions: tuple[float, ...]
    widths: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Layers:
    """
    names   of the groups, in execution order
    facts   (groups, 8): what the agent sees of each that does not change
    told    what it is told besides, in every state
    """

    within: Within
    names: tuple[str, ...]
    facts: Tensor
    told: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        graph: fx.GraphModule,
        within: Within,
        names: tuple[str, ...],
        told: tuple[float, ...] = (),
    ) -> Layers:
        made = [_made(graph, within.space.groups[name]) for name in names]
        costs = [_cost(within, name) for name in names]
        rows = [(t, *m, cost) for t, (m, cost) in enumerate(zip(made, costs, strict=True))]
        facts = torch.tensor(rows, dtype=torch.float32)
        return cls(within, names, facts / facts.amax(0).clamp(min=1e-12), told)

    @property
    def size(self) -> int:
        """Numbers in a state."""
        return self.facts.shape[1] + 3 + len(self.told)

    @cached_property
    def lowest(self) -> dict[str, int]:
        """The widths of the lowest price."""
        return cheapest(self.within.problem)

    def walk(self, act: Act, asked: float) -> Walk:
        """To widths that cost at most `asked`. Raises UnreachableError."""
        problem, price = self.within.problem, self.within.problem.price
        lowest, whole = self.lowest, price.total({})
        if price.total(lowest) > asked:
            raise UnreachableError(asked, price.total(lowest))
        costs = [_cost(self.within, name) / whole for name in self.names]
        widths, last, states, actions = dict[str, int](), 1.0, list[Tensor](), list[float]()
        for number, name in enumerate(self.names):
            reduced = 1 - price.total(widths) / whole
            seen = (reduced, fsum(costs[number + 1 :]), last, *self.told)
            states.append(torch.cat((self.facts[number], torch.tensor(seen))))
            actions.append(act(number, states[-1]))
            behind = {n: lowest[n] for n in self.names[number + 1 :]}
            widths[name] = self._widest(name, actions[-1], {**widths, **behind}, lowest, asked)
            last = widths[name] / price.sizes[name]
        if self.within.timed:
            widths = without_cliffs(problem, widths)
        return Walk(torch.stack(states), tuple(actions), widths)

    def _widest(
        self,
        name: str,
        share: float,
        others: Mapping[str, int],
        lowest: Mapping[str, int],
        asked: float,
    ) -> int:
        candidates, price = self.within.space.candidates[name], self.within.problem.price
        wanted = nearest(candidates, share * candidates[-1])
        for width in reversed(candidates):
            if width <= wanted and price.total({**others, name: width}) <= asked:
                return width
        return lowest[name]


def _cost(within: Within, name: str) -> float:
    """Of all operators that change with the group, everything whole."""
    price = within.problem.price
    whole = dict.fromkeys(price.sizes, 0)
    return fsum(term.at(whole) for term in price.touching[name])


def _made(graph: fx.GraphModule, group: ChannelGroup) -> tuple[float, ...]:
    """n, c, h, w, stride, k of the first layer that makes the group."""
    nodes = {node.name: node for node in graph.graph.nodes}
    node = next((nodes[made.node] for made in group.made), None)
    module = None if node is None else module_of(graph, node)
    if node is None or not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        return (group.size, 0, 1, 1, 1, 1)
    if isinstance(module, nn.Linear):
        return (group.size, module.in_features, 1, 1, 1, 1)
    height, width = shapes(graph)[node.all_input_nodes[0].name][2:4]
    stride: Any = module.stride[0]
    return (group.size, module.in_channels, height, width, stride, module.kernel_size[0])
