"""A search on a network's images: what `prune` asks for widths instead of an allocation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import fx

from shrinkc.compiler.images.decoded import Samples
from shrinkc.compiler.recover.recipe import Trainer
from shrinkc.compiler.support.jobs import Parallel
from shrinkc.compiler.support.journal import digest_of
from shrinkc.compiler.support.progress import Advance, Progress
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.width.search import genetic
from shrinkc.compiler.width.search.fitness import Fitness, SpentError
from shrinkc.compiler.width.search.judge import Judge, Lesson, Repair, fitness_of, judge_for
from shrinkc.compiler.width.search.methods import Search, method_of
from shrinkc.compiler.width.search.task import SearchTask
from shrinkc.compiler.width.search.within import Choose, Within
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Groups, channel_groups
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.criteria.shared.data import Batch

HELD_OUT = 4  # one image of so many judges
FITTED = 96  # images, at most, that a candidate's repair looks at
LEAST = 4  # images


def parted(images: Samples) -> tuple[Samples, Samples]:
    """Those that repairs look at, and those that judge: a quarter, at random, but always the same,
    since images may lie in any order of classes. Raises InputError for too few."""
    if len(images) < LEAST:
        raise InputError(
            f"{counted(len(images), 'image')} to search with: give {LEAST} or more; a quarter of "
            "them judges candidates, the others repair them"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    count = len(images) // HELD_OUT
    return images.part(order[count:].sort().values), images.part(order[:count].sort().values)


@dataclass(eq=False)
class Searcher:
    """
    fit, held  batches for repairs, and those that judge
    repair     of candidates
    about      images and recipe, for what `folder` keeps
    trainer    for methods that learn, and for how many epochs; None: as published
    known      what earlier searches found: (network, value of the goal) → widths, and a note
    notes      how the search went, for the user
    """

    options: Search
    fit: Sequence[Batch]
    held: Sequence[Batch]
    task: Task
    repair: Repair
    about: str
    folder: Path | None
    progress: Progress
    lesson: Lesson | None = None
    parallel: Parallel = 1
    seed: int = 0
    known: dict[tuple[str, float], tuple[dict[str, int], str]] = field(
        default_factory=dict[tuple[str, float], tuple[dict[str, int], str]]
    )
    trainer: Trainer | None = None
    epochs: int | None = None
    notes: list[str] = field(default_factory=list[str])

    def __call__(self, graph: fx.GraphModule, within: Within) -> Choose:
        """The best network's widths, or narrower ones in the same proportions. Raises
        UnreachableGoalError, which names the closest, where no code word meets the goal."""
        key = digest_of(graph, within.goal.kind)
        if (key, within.goal.value) not in self.known:
            self._search(graph, within, key)
        widths, note = self.known[key, within.goal.value]
        self.notes.append(note)
        return partial(within.at_most, widths)

    def _search(self, graph: fx.GraphModule, within: Within, key: str) -> None:
        """Fills `known`."""
        options, method = self.options, method_of(self.options.method)
        assert method.search is not None
        names = tuple(g.name for g in channel_groups(graph).groups if g.name in within.space.groups)
        text = f"Searching widths by {options.method}"
        with self.progress.task(text, options.most) as done:
            fitness = self._fitness(graph, options.most, done)
            task = SearchTask(
                *(graph, names, within, fitness, self.seed, options.rates, self.trainer),
                epochs=self.epochs,
            )
            with suppress(SpentError):
                method.search(task)
        for rate in {within.goal.value, *options.rates}:
            found = fitness.best(task.named(rate) if method.several else "")
            note = self._note("widths", fitness, found.fitness)
            self.known[key, rate] = within.widths(found.keep), note

    def masks(self, graph: fx.GraphModule, groups: Groups, selection: Selection) -> Selection:
        """As many channels of every group as were chosen, but which of them is searched for."""
        method, count = genetic.Genetic(), len(selection.keep)
        most = self.options.evaluations or method.evaluations(count)
        with self.progress.task(f"Searching channels by {self.options.method}", most) as done:
            fitness = self._fitness(graph, most, done)
            found = method.search(groups, selection, fitness, self._few, self.seed)
        self.notes.append(self._note("channels", fitness, fitness_of(fitness.judge, found.keep)[0]))
        return found

    def _fitness(self, graph: fx.GraphModule, most: int, done: Advance) -> Fitness:
        return Fitness(self._judge(graph), most, self.parallel, self.folder, self.about, done)

    @property
    def _few(self) -> list[Batch]:
        """Batches that repairs look at."""
        each = len(self.fit[0][0][0])
        return list(self.fit[: max(FITTED // each, 1)])

    def _judge(self, graph: fx.GraphModule) -> Judge:
        return judge_for(graph, self._few, self.held, self.task, self.repair, self.lesson)

    def _note(self, what: str, fitness: Fitness, best: float) -> str:
        labelled = self.held[0][1] is not None
        judges = self.task.judges(fitness.judge.wanted[0])
        metric = self.task.metric if labelled else self.task.likeness
        metric = metric if labelled or judges else "exp(−divergence from the original)"
        return (
            f"{what} by {self.options.method}: {counted(fitness.count, 'network')} judged on "
            f"{counted(fitness.images, 'image')} held out of `images`; the one taken has "
            f"{best:.3f} of {metric}, the original {fitness.original():.3f}"
        )
