"""Which channels stay, by a genetic algorithm (Hu et al., A novel channel pruning method for deep
neural network compression, arXiv 1805.11394, 2018).

The network is pruned layer by layer, in the order of how sensitive layers are; of each a genetic
algorithm searches the binary mask of channels, whose number is given. Fitness is approximated in
two steps: every mask by the error that the layer's output has by its second-order expansion, and
only the best few by the network itself. The pruned network is fine-tuned with its original as
teacher.

For a group whose removed channels are z ∈ {0, 1}ⁿ that error is, summed over the layers r that
read it (they are linear, so the expansion is exact),

    E(z) = zᵀQz,   Q = Σ_r (G_r ∘ W_rᵀW_r) / ‖W_r x‖²,   G_r = Σ xxᵀ

with x what they read in the network that the groups before leave; rows and columns of one channel
are added up. A group's sensitivity is what the
fitness loses with that group alone pruned, by the criterion; the least sensitive comes first.

What differs, or could not be read (the abstract is what was at hand): population, generations,
crossover and mutation are this module's, see `Genetic`; what the criterion keeps is always judged,
too; the number of channels comes from the
allocation, from `keep` or a goal; the network's own judgement is the fitness of all searches, on
held-out images. Distillation is that of every training (`--train`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import fx

from shrinkc.compiler.width.search.fitness import Fitness, SpentError
from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup, Groups, channel_groups
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import most_important
from shrinkc.passes.criteria.shared.data import Batches
from shrinkc.passes.criteria.shared.readers import ReaderSums, reader_sums

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
TINY = 1e-30


@dataclass(frozen=True)
class Genetic:
    """
    population   masks that live, the best of parents and children together
    generations  each with as many children as there are masks
    mutated      share of children that swap a channel
    judged       by the network itself: the best of the last population, and the criterion's mask
    """

    population: int = 40
    generations: int = 60
    mutated: float = 0.3
    judged: int = 5

    def evaluations(self, groups: int) -> int:
        """Candidates for the sensitivities, and of each group the best few."""
        return groups * (1 + self.judged)

    def search(
        self, groups: Groups, selection: Selection, fitness: Fitness, fit: Batches, seed: int
    ) -> Selection:
        """As many channels of each group as `selection` keeps, but which of them is searched."""
        graph, random = fitness.judge.graph, np.random.default_rng(seed)
        done: dict[str, Mask] = {}
        for name in self._order(selection, fitness):
            quadratic = error_of(graph, done, name, fit)
            if quadratic is None:
                done[name] = selection.keep[name]
                continue
            alive = self.evolved(quadratic, selection.keep[name], groups[name], random)
            best = [*alive[: self.judged - 1], selection.keep[name]]
            try:
                found = fitness.of([{**done, name: mask} for mask in best])
            except SpentError:  # the error of the layer has to do
                found = [0.0]
            first = max(range(len(found)), key=found.__getitem__)  # of equals that of least error
            done[name] = best[first]
        return Selection(done, selection.weights)

    def evolved(
        self, quadratic: Floats, start: Mask, group: ChannelGroup, random: np.random.Generator
    ) -> list[Mask]:
        """Distinct masks, that of least error first. The first generation is what the criterion
        keeps (`start`), what the error of each channel alone keeps, and random masks."""
        count = int(start.sum())
        scores = [quadratic.diagonal(), *random.random((self.population - 2, group.size))]
        some = [start, *(most_important(group, np.array(one), count) for one in scores)]
        alive = fittest(some, quadratic)
        for _ in range(self.generations):
            children: list[Mask] = []
            for _ in range(self.population):
                # of two drawn for each parent the fitter
                a, b = (int(random.integers(len(alive), size=2).min()) for _ in range(2))
                one = child(alive[a], alive[b], group, random)
                swaps = random.random() < self.mutated
                children.append(swapped(one, group, random) if swaps else one)
            alive = fittest([*alive, *children], quadratic)[: self.population]
        return alive

    def _order(self, selection: Selection, fitness: Fitness) -> list[str]:
        """The least sensitive first; those that nobody judged any more last."""
        names = [name for name, mask in selection.keep.items() if not mask.all()]
        known: dict[str, float] = {}
        with suppress(SpentError):
            for name in names:
                known[name] = fitness.one({name: selection.keep[name]})
        return sorted(names, key=lambda name: -known.get(name, -np.inf))


def child(a: Mask, b: Mask, group: ChannelGroup, random: np.random.Generator) -> Mask:
    """Keeps what both parents keep, and of what one of them keeps as many, at random, as are
    missing, in every cell of the group."""
    scores = a.astype(np.float64) + b + 0.5 * random.random(group.size)
    return most_important(group, scores, int(a.sum()))


def swapped(mask: Mask, group: ChannelGroup, random: np.random.Generator) -> Mask:
    """With one channel for another of its cell."""
    out = int(random.choice(np.flatnonzero(mask)))
    others = np.flatnonzero(~mask & (group.cells == group.cells[out]))
    found = mask.copy()
    found[[out, int(random.choice(others))]] = False, True
    return found


def fittest(masks: Sequence[Mask], quadratic: Floats) -> list[Mask]:
    """Distinct ones, by their error."""
    distinct = np.unique(np.array(masks), axis=0)
    gone = (~distinct).astype(np.float64)
    errors = ((gone @ quadratic) * gone).sum(1)
    return list(distinct[np.argsort(errors, kind="stable")])


def error_of(
    graph: fx.GraphModule, keep: Mapping[str, Mask], name: str, fit: Batches
) -> Floats | None:
    """Q of a group, in the network that `keep` leaves; None where no layer reads it that mixes
    channels."""
    student = SliceChannels(Selection(keep))(graph).graph_module
    group = channel_groups(student)[name]
    ((_, sums),) = reader_sums(student, (group,), fit)
    return quadratic_of(sums, group.size) if sums else None


def quadratic_of(sums: Sequence[ReaderSums], size: int) -> Floats:
    """(size, size)"""
    total = np.zeros((size, size))
    for one in sums:
        weight = one.block.weight()
        energy = (one.gram * (weight.T @ weight)).numpy()
        known = one.channel >= 0
        places = np.zeros((len(one.channel), size))
        places[known, one.channel[known]] = 1.0
        total += places.T @ energy @ places / max(energy.sum(), TINY)
    return total
