"""Sets of choices: the least damage within a budget, and the shape that they leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch
from torch import Tensor, fx

from shrinkc.compiler.cost.budget import measured_within, predicted_ms, predicted_within
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.choices import Choice
from shrinkc.compiler.depth.select import Option, most, select
from shrinkc.compiler.depth.sets.fitting import fitting
from shrinkc.compiler.recover.divergence import Damage
from shrinkc.passes.algebra.intervals import region_order
from shrinkc.passes.analysis.linear.spans import Span
from shrinkc.passes.base import Pass
from shrinkc.passes.merge.replace_span import DenseSpan, DropSpan, NarrowSpan

ATTEMPTS = 12  # to meet the budget by the whole network's own prediction


@dataclass(frozen=True, eq=False)
class Plans:
    """What can be done to one network in one precision. Sets of choices go by their numbers.

    damages    of each choice alone; None before they are measured
    keep_fp32  layers that compute in fp32 although the precision is int8
    """

    graph: fx.GraphModule
    table: CostTable
    precision: str
    found: Sequence[Choice]
    damages: Sequence[Damage] | None = None
    keep_fp32: Sequence[str] = ()

    def judged(self, damages: Sequence[Damage]) -> Plans:
        return replace(self, damages=damages)

    @cached_property
    def before_ms(self) -> float:
        """Of the network as it is, by the table."""
        return self.predicted(self.graph)

    @cached_property
    def most(self) -> float:
        """Milliseconds that all choices together can save."""
        return most(self.options)

    @cached_property
    def options(self) -> list[Option]:
        order = {node.name: i for node, i in region_order(self.graph.graph.nodes).items()}
        return [
            Option(
                min(order[name] for name in c.span.nodes),
                order[c.span.sink],
                c.saving_ms,
                0.0 if self.damages is None else max(0.0, self.damages[i].loss),  # rounding
            )
            for i, c in enumerate(self.found)
        ]

    def within(
        self,
        budget_ms: float,
        measured_ms: Callable[[fx.GraphModule], float] | None = None,
        *,
        thorough: bool = False,
    ) -> list[int]:
        """The least damage within a budget, by the table or by measuring; nothing where the network
        fits as it is. `thorough`: by the table other sets are tried where sums of savings lead to
        none. Raises UnreachableGoalError where it cannot be met."""
        saving = self.before_ms - budget_ms
        if measured_ms is None:
            if saving <= 0:
                return []
            given = self.cost, saving, budget_ms, ATTEMPTS
            if thorough:
                chosen, _ = fitting(self.options, self.saving, *given)
            else:
                chosen, _ = predicted_within(self.saving, *given)
        else:
            asked = (0.0, max(saving, 0.0), self.most)
            chosen, _ = measured_within(self.saving, self._costing(measured_ms), asked, budget_ms)
        return chosen

    def saving(self, ms: float) -> list[int]:
        """The least damage that saves so much, operator by operator."""
        return select(self.options, ms)

    def cost(self, chosen: Sequence[int]) -> float:
        """Milliseconds of the network that a set leads to, by the table."""
        return self.predicted(self.shape(chosen))

    def shape(self, chosen: Sequence[int]) -> fx.GraphModule:
        """The network that a set leads to; its numbers mean nothing."""
        return outline(self.graph, [self.found[i] for i in chosen])

    def damage(self, chosen: Sequence[int]) -> float:
        return sum(self.options[i].damage for i in chosen)

    def predicted(self, graph: fx.GraphModule) -> float:
        """Milliseconds of a changed network."""
        return predicted_ms(graph, self.table, self.precision, self.keep_fp32)

    def _costing(self, ms: Callable[[fx.GraphModule], float]) -> Callable[[Sequence[int]], float]:
        """Of the networks that choices lead to."""
        return lambda chosen: ms(self.shape(chosen))


def outline(graph: fx.GraphModule, chosen: Sequence[Choice]) -> fx.GraphModule:
    """The network's shape, with numbers of no meaning where something was chosen."""
    gone: dict[str, str] = {}
    for choice in in_order(graph, chosen):
        span = renamed(choice.span, gone)
        graph = _placeholder(replace(choice, span=span))(graph).graph_module
        if choice.kind == "drop":
            gone[span.sink] = span.source
    return graph


def in_order(graph: fx.GraphModule, chosen: Sequence[Choice]) -> list[Choice]:
    """As the network computes them."""
    order = {node.name: i for i, node in enumerate(graph.graph.nodes)}
    return sorted(chosen, key=lambda choice: order[choice.span.sink])


def renamed(span: Span, gone: dict[str, str]) -> Span:
    """Reads what a dropped span in front of it read."""
    return replace(span, source=gone.get(span.source, span.source))


def _placeholder(choice: Choice) -> Pass:
    span, window = choice.span, choice.span.window
    match choice.kind:
        case "merge":
            weight = _random(*window.weight_shape)
            return DenseSpan(span, weight, torch.ones(window.out_channels))
        case "drop":
            return DropSpan(span)
        case "narrow":
            side = span.hidden.kernel if span.hidden else 1
            root = round(side**0.5)
            weight = _random(window.out_channels, choice.channels, root, side // root)
            kept = torch.arange(choice.channels)
            return NarrowSpan(span, kept, weight, torch.ones(window.out_channels))


def _random(*shape: int) -> Tensor:
    """Values that int8 can be calibrated on."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64) / prod(shape[1:]) ** 0.5
