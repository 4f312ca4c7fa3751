"""A network on which widths matter, images that it was made for, and searches without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from by_macs import ByMacs
from torch import Tensor, fx, nn

import shrinkc
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.recover.recipe import Recipe
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.prune import Pruned, Pruning, Stages, prune
from shrinkc.compiler.width.search.fitness import Fitness, Found, SpentError
from shrinkc.compiler.width.search.judge import Judge, judge_for
from shrinkc.compiler.width.search.methods import Search
from shrinkc.compiler.width.search.task import Method, SearchTask
from shrinkc.compiler.width.search.within import Choose, Within
from shrinkc.passes.analysis.channels.channel_groups import Keep, channel_groups
from shrinkc.passes.criteria.magnitude import FilterNorm
from shrinkc.passes.criteria.shared.data import Batch

CLASSES, SIDE = 4, 8


class Chain(nn.Sequential):
    """Three convolutions with batch norms, of 16 channels each."""

    def __init__(self, width: int = 16) -> None:
        layers: list[nn.Module] = []
        for inputs in (3, width, width):
            layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
            layers.append(nn.ReLU())
        head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, CLASSES))
        super().__init__(*layers, *head)


def samples(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Each class brightens one quarter of a noisy image."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, SIDE, SIDE, generator=generator)
    labels = torch.arange(count) % CLASSES
    half = SIDE // 2
    for image, label in zip(x, labels.tolist(), strict=True):
        top, left = (label // 2) * half, (label % 2) * half
        image[:, top : top + half, left : left + half] += 0.4
    return x, labels


def trained() -> fx.GraphModule:
    """Right on nearly all of them."""
    torch.manual_seed(0)
    model = Chain()
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    x, labels = samples(256)
    for step in range(24):
        rows = slice(32 * (step % 8), 32 * (step % 8) + 32)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), labels[rows]).backward()
        optimiser.step()
    return capture(model.eval(), (x[:1],))


def batches(count: int, seed: int, labelled: bool = True) -> list[Batch]:
    x, labels = samples(32 * count, seed)
    parts = zip(x.split(32), labels.split(32), strict=True)
    return [((one,), these if labelled else None) for one, these in parts]


def judge(graph: fx.GraphModule, labelled: bool = True) -> Judge:
    return judge_for(graph, batches(1, 1), batches(4, 2, labelled), CLASSIFICATION, "norms")


class Recorder:
    """A search's fitness, and its best so far behind every candidate."""

    def __init__(self, method: Method, fitness: Fitness, **options: Any) -> None:
        self.method, self.fitness, self.options = method, fitness, options
        self.best: list[float] = []
        self.costs: list[float] = []
        fitness.tell = self._told

    def _told(self, note: str) -> None:
        self.best.append(float(note.split()[-1]))

    def __call__(self, graph: fx.GraphModule, within: Within) -> Choose:
        names = tuple(g.name for g in channel_groups(graph).groups if g.name in within.space.groups)
        with suppress(SpentError):
            self.method(SearchTask(graph, names, within, self.fitness, **self.options))
        return partial(within.at_most, within.widths(self.fitness.best().keep))


def searched(graph: fx.GraphModule, search: Any, goal: Goal, multiple: int = 1) -> Pruned:
    options = Pruning(Allocation(multiple=multiple))
    stages = Stages(search=search)
    return prune(graph, ByMacs(), "fp32", FilterNorm(1), goal, options=options, stages=stages)


def within_of(graph: fx.GraphModule, goal: Goal, names: Sequence[str]) -> Within:
    """What a search over these groups is given."""
    found: list[Within] = []

    def search(graph: fx.GraphModule, within: Within) -> Choose:
        found.append(within)
        return partial(within.scaled, dict.fromkeys(names, 1.0))

    searched(graph, search, goal)
    return found[0]


def in_memory(graph: fx.GraphModule, most: int, folder: Path | None = None) -> Fitness:
    return Fitness(judge(graph), most, folder=folder)


class Tabulated(Fitness):
    """No network runs: the fitness of a candidate is a function of its widths."""

    def __init__(self, value: Any, most: int) -> None:
        self.value, self.most = value, most
        self.asked: list[Keep] = []

    @property
    def count(self) -> int:
        return len(self.asked)

    def of(self, candidates: Sequence[Keep], goal: str = "") -> list[float]:
        found: list[float] = []
        for keep in candidates:
            if self.count >= self.most:
                raise SpentError
            self.asked.append(keep)
            found.append(self.value(keep))
        return found

    def best(self, goal: str = "") -> Found:
        keep = max(self.asked, key=self.value)
        return Found(keep, self.value(keep))


def kept(keep: Keep) -> Mapping[str, int]:
    return {name: int(np.sum(mask)) for name, mask in keep.items()}


def asked_for(method: str, folder: Path) -> list[int]:
    """Widths that a search finds, for a process that may be killed."""
    import shrinkc
    from shrinkc.compiler.width.search.methods import Search

    torch.manual_seed(0)
    found = shrinkc.prune(
        *(Chain().eval(), torch.zeros(1, 3, SIDE, SIDE)),
        goal=Goal.macs(0.5),
        images=samples(48, 5),
        method=Search(method, 8),
        options=Pruning(Allocation(multiple=1)),
        steps=0,
        folder=folder,
    )
    return [width.after for width in found.widths]


def asked(method: str, **options: Any) -> Any:
    """What `shrinkc.prune` finds with a search that learns: little of everything."""
    torch.manual_seed(0)
    recipe = Recipe(epochs=1, search_epochs=1, batch=8)
    x, y = samples(32, 5)
    given = {
        "goal": Goal.macs(0.5),
        "images": (x, y),
        "train": samples(40, 6),
        "method": Search(method, 3),
        "options": Pruning(Allocation(multiple=1), recipe=recipe),
    }
    return shrinkc.prune(Chain().eval(), x[:1], **{**given, **options})
