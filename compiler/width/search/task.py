"""What a search method is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import fx

from shrinkc.compiler.recover.recipe import Trainer
from shrinkc.compiler.width.search.fitness import Fitness
from shrinkc.compiler.width.search.within import Within
from shrinkc.passes.analysis.channels.channel_groups import Keep


@dataclass(frozen=True, eq=False)
class SearchTask:
    """
    graph    batch norms as they are; to be left as it is
    names    of the groups that may change, in execution order
    within   brings any code word within the goal
    fitness  judges candidates, and ends the search when enough were judged
    rates    other values of the goal that are searched for at once, by methods that can
    trainer  for methods that learn, with labels; epochs: None: as published
    """

    graph: fx.GraphModule
    names: tuple[str, ...]
    within: Within
    fitness: Fitness
    seed: int = 0
    rates: tuple[float, ...] = ()
    trainer: Trainer | None = None
    epochs: int | None = None

    def candidate(self, shares: Mapping[str, float]) -> Keep:
        """The channels that stay where groups have these shares of their widths, scaled to the
        goal."""
        return self.within.keep(partial(self.within.scaled, shares))

    @staticmethod
    def named(rate: float) -> str:
        """The goal of this value, where several are searched for."""
        return f"{rate:g}"


Method = Callable[[SearchTask], None]  # everything it found lies in the task's fitness
