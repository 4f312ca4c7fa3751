"""The evolution of widths, with the numbers of the authors' code.

A gene says which of 31 scales, 0.10, 0.13 … 1.00, a group has of its width. Fifty code words are
drawn between 0.46 and 0.79; then, 20 times in all, fifty are judged and the next fifty made:

    parents    the best 10 of all that were judged
    mutation   25: every gene of a parent becomes another scale with probability 0.1
    crossover  25: of two parents, every gene from one of them, each as likely
    random     what is missing, where those have been seen before
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shrinkc.compiler.width.search.task import SearchTask

SCALES = tuple((10 + 3 * step) / 100 for step in range(31))
GENERATIONS = 20
EVALUATIONS = GENERATIONS * 50
TRIES = 10  # draws for every code word that is wanted

Code = tuple[int, ...]  # (groups,) places in `SCALES`


@dataclass(frozen=True)
class Evolution:
    """The authors' numbers; `drawn`: first and last place that random genes have."""

    population: int = 50
    parents: int = 10
    mutated: int = 25
    crossed: int = 25
    chance: float = 0.1
    drawn: tuple[int, int] = (12, 23)

    def search(self, task: SearchTask) -> None:
        """Until as many candidates were judged as the task's fitness judges: for twenty
        generations, or more where that takes more. It ends before where no new code word is found.
        """
        line = Line(self, task)
        for _ in range(max(GENERATIONS, -(-task.fitness.most // self.population))):
            if not line.generation():
                return


class Line:
    """All that was judged, the fittest first."""

    def __init__(self, options: Evolution, task: SearchTask) -> None:
        self.options, self.task = options, task
        self.random = np.random.default_rng(task.seed)
        self.judged: list[tuple[float, Code]] = []
        self.seen: set[Code] = set()

    def generation(self) -> bool:
        """Whether there was anything new to judge."""
        codes = self.next()
        found = self.task.fitness.of([self.task.candidate(self.shares(code)) for code in codes])
        self.judged += zip(found, codes, strict=True)
        self.judged.sort(key=lambda one: -one[0])  # of equally fit ones the earlier stays in front
        return bool(codes)

    def next(self) -> list[Code]:
        options, found = self.options, list[Code]()
        if len(self.judged) > 1:
            found += self._new(self._mutated, options.mutated)
            found += self._new(self._crossed, options.crossed)
        return found + self._new(self._drawn, options.population - len(found))

    def shares(self, code: Code) -> dict[str, float]:
        return {name: SCALES[gene] for name, gene in zip(self.task.names, code, strict=True)}

    def _new(self, make: Callable[[], Code], count: int) -> list[Code]:
        """Up to so many that were not seen."""
        found: list[Code] = []
        for _ in range(TRIES * count):
            if len(found) == count:
                break
            code = make()
            if code not in self.seen:
                self.seen.add(code)
                found.append(code)
        return found

    def _drawn(self) -> Code:
        low, high = self.options.drawn
        size = len(self.task.names)
        return tuple(self.random.integers(low, high, size, endpoint=True).tolist())

    def _mutated(self) -> Code:
        parent = self._parents(1)[0]
        changes = self.random.random(len(parent)) < self.options.chance
        steps = self.random.integers(1, len(SCALES), len(parent))
        return moved(parent, (changes * steps).tolist())

    def _crossed(self) -> Code:
        first, second = self._parents(2)
        return crossed(first, second, (self.random.random(len(first)) < 0.5).tolist())

    def _parents(self, count: int) -> list[Code]:
        best = self.judged[: self.options.parents]
        places = self.random.choice(len(best), count, replace=False)
        return [best[place][1] for place in places]


def moved(code: Code, steps: list[int]) -> Code:
    """Genes so many scales further, the first behind the last: 0 leaves one as it is."""
    return tuple((gene + step) % len(SCALES) for gene, step in zip(code, steps, strict=True))


def crossed(first: Code, second: Code, from_first: list[bool]) -> Code:
    return tuple(
        one if own else other for one, other, own in zip(first, second, from_first, strict=True)
    )
