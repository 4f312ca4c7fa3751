"""Less width within a budget, with training or without."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, fx

from shrinkc.compiler.api.steps.changed_network import (
    FEW,
    on_this_machine,
    training_images,
    work_folder,
)
from shrinkc.compiler.api.steps.request import CompileArguments
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.images.cache import Reading, load_images
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.images.files import find_images, read_classes
from shrinkc.compiler.images.preprocessing import Preprocessing
from shrinkc.compiler.measure.speedup import Measuring
from shrinkc.compiler.recover.compensate import compensate
from shrinkc.compiler.recover.distil import Tuning
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.width.distil import distilled
from shrinkc.compiler.width.layer_by_layer import in_order
from shrinkc.compiler.width.measured_damage import MeasuredDamage
from shrinkc.compiler.width.methods import chosen_by_cost, comparable
from shrinkc.compiler.width.prune import Compensate, Pruned, Pruning, Stages, prune
from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.base import Skip
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.shared.data import Batch
from shrinkc.passes.criteria.spec import CriterionSpec, Given

BATCH = 32  # images that criteria see at a time


@dataclass(frozen=True)
class PruneArguments:
    """The command line of `shrinkc prune`, as given; `compile.images` are what criteria look at.

    limit       of those images
    labels      their class folders are labels; without `train`, train on them
    train       folder of images to train on
    epochs      of fine-tuning; None: the recipe's, where there is something to train on
    steps       of distillation on `images` behind compensation; None: the default
    strength    of the penalty of criteria that train with one
    every       steps of a training between two removals, for criteria that remove during one
    in_order    which channels stay is decided layer after layer, in the network that the layers
                before leave, compensated
    """

    compile: CompileArguments
    criterion: str
    goal: Goal | None
    pruning: Pruning
    limit: int
    labels: bool
    train: Path | None
    epochs: int | None
    compensate: bool | None
    steps: int | None
    strength: float
    evaluation: Path | None
    plot: Path | None
    every: int | None = None
    in_order: bool = False

    @property
    def trains(self) -> bool:
        return self.train is not None or (self.labels and self.epochs is not None)

    def compensates(self, method: CriterionSpec) -> bool:
        if self.compensate is None:
            return method.compensates or self.in_order
        return self.compensate


@dataclass(frozen=True, eq=False)
class _Work:
    """What was given, loaded."""

    a: PruneArguments
    method: CriterionSpec
    graph: fx.GraphModule
    preprocessing: Preprocessing | None
    table: CostTable
    out: Path
    reporter: Progress

    def pruned(self) -> tuple[Pruned, tuple[Skip, ...]]:
        """The result, and layers that were not compensated."""
        a, method = self.a, self.method
        options = replace(a.pruning, allocation=comparable(a.pruning.allocation, method))
        looked = self._looked_at if self._looks else None
        batches = [] if looked is None else batches_of(looked)
        by_cost = chosen_by_cost(options.allocation, a.goal)
        criterion = method.build(Given(batches, options.recipe.seed, by_cost, a.every))
        skipped: list[Skip] = []
        compensate = None
        if a.in_order:
            compensate = in_order(criterion, batches, skipped, self.reporter)
        elif self._compensates:
            compensate = _compensation(batches, skipped)
        order = " in order" if a.in_order else ""
        result = prune(
            *(self.graph, self.table, a.compile.precision, criterion, a.goal),
            options=options,
            train=self._training() if a.trains else None,
            seen=f"{a.criterion} {by_cost} {looked and looked.digest} {self._compensates}{order}",
            stages=Stages(
                self._penalty,
                self._damage(batches) if looked is not None else None,
                compensate,
            ),
            measured_ms=self.measured_ms if a.goal is not None and a.goal.unit == "ms" else None,
            folder=work_folder(self.out),
            progress=self.reporter,
        )
        if looked is not None and self._compensates and not a.trains:
            tuning = Tuning() if a.steps is None else Tuning(steps=a.steps)
            result = distilled(result, looked, tuning, self.reporter)
        return result, tuple(dict.fromkeys(skipped))

    @cached_property
    def measured_ms(self) -> Measuring | None:
        """Of changed networks, where the target is this machine."""

        def few() -> Tensor:
            images = self._looked_at
            return images.inputs(images.pixels[:FEW])

        return on_this_machine(self.a.compile, self.graph, self.table, few)

    @property
    def _compensates(self) -> bool:
        return self.a.compensates(self.method)

    @property
    def _looks(self) -> bool:
        return self.method.needs != "nothing" or self._compensates or self._measures

    @property
    def _measures(self) -> bool:
        return self.a.pruning.allocation.normalise == "measured"

    def _damage(self, batches: list[Batch]) -> MeasuredDamage:
        looked = self._looked_at
        seen = f"{self.a.criterion} {looked.digest} {len(looked)}"
        folder = work_folder(self.out)
        return MeasuredDamage(batches, self._compensates, seen, folder, self.reporter)

    @property
    def _penalty(self) -> Any:
        penalty = self.method.penalty
        if penalty is None or not self.a.trains:
            return None
        return lambda graph, groups: penalty(graph, groups, self.a.strength)  # pyright: ignore

    @cached_property
    def _looked_at(self) -> Images:
        """For criteria and compensation."""
        assert self.preprocessing is not None
        a = self.a
        return looked_at(a.compile, a.labels, a.limit, self.preprocessing, self.reporter)

    def _training(self) -> Images:
        a, preprocessing = self.a, self.preprocessing
        assert preprocessing is not None
        return training_images(a.compile, a.train, preprocessing, self.out, self.reporter)


def looked_at(
    given: CompileArguments,
    labels: bool,
    limit: int,
    preprocessing: Preprocessing,
    reporter: Progress,
) -> Images:
    """--images as the network reads them, with labels if they are asked for."""
    assert given.images is not None
    known = read_classes(given.classes) if given.classes and labels else None
    image_set = find_images(given.images, classes=known, limit=limit)
    images = load_images(image_set, preprocessing, Reading(), reporter)
    return images if labels else replace(images, labels=None)


def batches_of(images: Images) -> list[Batch]:
    """All of them, in order."""
    found: list[Batch] = []
    for start in range(0, len(images), BATCH):
        rows = slice(start, start + BATCH)
        labels = None if images.labels is None else images.labels[rows]
        found.append(((images.inputs(images.pixels[rows]),), labels))
    return found


def _compensation(batches: list[Batch], skipped: list[Skip]) -> Compensate:
    def fitted(graph: fx.GraphModule, groups: Groups, selection: Selection) -> Selection:
        found = compensate(graph, SliceChannels(selection), batches)
        skipped.extend(found.skipped)
        return found.selection

    return fitted
