"""ABCPruner: an artificial bee colony over widths (Lin et al., Channel Pruning via Automatic
Structure Search, IJCAI 2020).

A source of nectar is a code word c ∈ {1 … α}^L: of layer j stay c_j / 10 of the channels, α = 9 of
ten steps. A few sources get better in cycles (their algorithm 1):

    employed   every source i is tried beside itself: v_j = x_ij + U(−1, 1)·(x_ij − x_kj) in two
               random dimensions j, k another source; rounded towards zero, clipped to 1 … α
    onlookers  as many more, beside source i with probability 0.9·fit_i / max fit + 0.1
    scout      the source that failed most often, if that is the limit or more, is drawn anew

and v takes the place of x_i where it is fitter. The fitness is the accuracy after two epochs of
training from a random subset of the trained filters.

What differs: every code word meets the goal, since its shares are scaled by one factor (in the
paper α alone limits a network's size); all groups of channels are searched, not a block's first
layer alone; fitness is judged on held-out images of the training set (the authors' code judges on
test images), without a training on recalibrated batch norms or compensated readers; bees of one
phase fly together, so that their candidates are judged side by side. `criterion` random takes
random filters, as published; l1, which the authors' code has for an option, those of large norm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shrinkc.compiler.width.search.task import SearchTask

STEPS = 10  # of a group's width
EVALUATIONS = 10 + 10 * (10 + 10 + 1)  # ten sources, ten cycles
Code = npt.NDArray[np.int64]  # (groups,) each 1 … most


@dataclass(frozen=True)
class BeeColony:
    """The paper's numbers: sources, failures before a scout comes, dimensions that a bee changes,
    α. Ten cycles take `EVALUATIONS` candidates; other numbers of candidates, other cycles."""

    sources: int = 10
    limit: int = 5
    changed: int = 2
    most: int = 9

    def search(self, task: SearchTask) -> None:
        each = 2 * self.sources + 1
        hive = Hive(self, task)
        for _ in range(max(1, -(-(task.fitness.most - self.sources) // each))):
            hive.employed()
            hive.onlookers()
            hive.scout()


class Hive:
    """Sources, their fitness, and how often each failed since it got better."""

    def __init__(self, colony: BeeColony, task: SearchTask) -> None:
        self.colony, self.task = colony, task
        self.random = np.random.default_rng(task.seed)
        shape = (colony.sources, len(task.names))
        self.codes = self.random.integers(1, colony.most, shape, endpoint=True)
        self.fitness = self._judged(list(self.codes))
        self.failed = [0] * colony.sources

    def employed(self) -> None:
        self._fly(range(self.colony.sources))

    def onlookers(self) -> None:
        """Source after source is offered until as many bees have chosen one as there are."""
        taken, offered = list[int](), 0
        odds = chances(self.fitness)
        while len(taken) < self.colony.sources:
            if self.random.random() < odds[offered]:
                taken.append(offered)
            offered = (offered + 1) % self.colony.sources
        self._fly(taken)

    def scout(self) -> None:
        worst = max(range(self.colony.sources), key=lambda i: self.failed[i])
        if self.failed[worst] >= self.colony.limit:
            size = len(self.task.names)
            self.codes[worst] = self.random.integers(1, self.colony.most, size, endpoint=True)
            (self.fitness[worst],) = self._judged([self.codes[worst]])
            self.failed[worst] = 0

    def _fly(self, to: Sequence[int]) -> None:
        found = [self._beside(source) for source in to]
        for source, code, fitness in zip(to, found, self._judged(found), strict=True):
            if fitness > self.fitness[source]:
                self.codes[source], self.fitness[source], self.failed[source] = code, fitness, 0
            else:
                self.failed[source] += 1

    def _beside(self, source: int) -> Code:
        colony, random, size = self.colony, self.random, len(self.task.names)
        other = (source + 1 + int(random.integers(colony.sources - 1))) % colony.sources
        places = random.choice(size, min(colony.changed, size), replace=False)
        moves = random.uniform(-1, 1, len(places))
        return beside(self.codes[source], self.codes[other], places, moves, colony.most)

    def _judged(self, codes: Sequence[Code]) -> list[float]:
        names, task = self.task.names, self.task
        shares = [dict(zip(names, (code / STEPS).tolist(), strict=True)) for code in codes]
        return task.fitness.of([task.candidate(one) for one in shares])


def beside(
    code: Code, other: Code, places: Iterable[int], moves: Iterable[float], most: int
) -> Code:
    """v = x + r·(x − other) at these places, towards zero, clipped to 1 … most."""
    found = code.copy()
    for place, move in zip(places, moves, strict=True):
        found[place] = int(code[place] + move * (code[place] - other[place]))
    return np.clip(found, 1, most)


def chances(fitness: Sequence[float]) -> list[float]:
    """That an onlooker takes a source: 0.9·fit / max + 0.1. A metric below 0 counts as 0; where
    nothing is fit all are as good."""
    fits = [max(one, 0.0) for one in fitness]
    best = max(fits)
    return [0.9 * (one / best if best > 0 else 1.0) + 0.1 for one in fits]
