"""Rethinking's controls (Liu et al., ICLR 2019): the pruned shape, trained as if it were new.

Scratch-E  as many epochs as were asked for
Scratch-B  as many times more as the network computes less, MACs before over after; at most twice as
           many, the authors' limit on ImageNet

The weights are those of a fresh initialisation, by each module's own `reset_parameters`, or those
of the network before it was trained. Labels alone teach, the original does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import fx, nn

from shrinkc.compiler.cost.keys import macs
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.recover.recipe import Recipe, Trainer
from shrinkc.compiler.support.choices import Scratch
from shrinkc.compiler.support.journal import digest_of
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.train.log import Row
from shrinkc.errors import InputError
from shrinkc.passes.base import copy_graph
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm

MOST = 2.0  # times the epochs


@dataclass(frozen=True)
class FromScratch:
    """How the network was trained.

    asked       epochs, before they were lengthened
    macs_ratio  of the network before it was pruned over what is left
    start       "fresh", or "initial": the weights of before it was trained
    """

    kind: Scratch
    epochs: int
    asked: int
    macs_ratio: float
    images: int
    start: str

    def __str__(self) -> str:
        weights = "fresh weights" if self.start == "fresh" else "its initial weights"
        images, epochs = counted(self.images, "image"), counted(self.epochs, "epoch")
        longer, told = "", f"MACs before over after: {self.macs_ratio:.2f}"
        if self.kind == "B":
            limit = ", the limit" if self.macs_ratio > MOST else ""
            factor = min(self.macs_ratio, MOST)
            longer = f", {self.asked} as asked × {factor:.3g}{limit} ({told})"
        return f"Scratch-{self.kind}: trained from {weights} on {images} for {epochs}{longer}"


def check_scratch(
    graph: fx.GraphModule, anew: bool, train: Images | None, recipe: Recipe, task: Task
) -> None:
    """Raises InputError where there is nothing to learn from but the original, and, where weights
    are made anew, for a parameter that no module can initialise."""
    if train is None:
        raise InputError("`from_scratch` is of a training; give `train`")
    if train.labels is None:
        raise InputError(
            "`from_scratch` learns from labels alone, and `train` has none",
            "give class folders, or tensors with labels",
        )
    if recipe.loss is None and not task.classifies:
        raise InputError(
            f"`from_scratch` learns from class labels, and the task is {task.name}",
            "give a `loss` of your own",
        )
    if not anew:
        return
    modules: dict[str, nn.Module] = dict(cast(Any, graph).named_modules())
    for path, module in modules.items():
        own = [name for name, _ in module.named_parameters(path, recurse=False)]
        if own and not callable(getattr(module, "reset_parameters", None)):
            raise InputError(
                f"`from_scratch` cannot initialise '{own[0]}': its module has no reset_parameters",
                "give `initial`, the network before it was trained",
            )


def fresh(graph: fx.GraphModule, seed: int) -> fx.GraphModule:
    """A copy whose modules have initialised themselves, statistics too."""
    made = copy_graph(graph)
    with cast(Any, torch.random).fork_rng(devices=[]):
        cast(Any, torch).manual_seed(seed)
        for module in made.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    return made


def lengthened(kind: Scratch, epochs: int, macs_ratio: float) -> int:
    """Epochs of the training."""
    return epochs if kind == "E" else round(epochs * min(max(macs_ratio, 1.0), MOST))


def train_from_scratch(
    kind: Scratch,
    graph: fx.GraphModule,
    before: fx.GraphModule,
    trainer: Trainer,
    *,
    initialised: bool,
) -> tuple[fx.GraphModule, FromScratch, tuple[Row, ...]]:
    """The trained network, what was done, the training's log.

    before       the network that was given, batch norms folded
    initialised  `graph` has the weights of before the training; otherwise it gets fresh ones
    """
    recipe, ratio = trainer.recipe, macs(lower(before)) / macs(lower(_folded(graph)))
    start = copy_graph(graph) if initialised else fresh(graph, recipe.seed)
    epochs = lengthened(kind, recipe.epochs, ratio)
    alone = replace(trainer, recipe=replace(recipe, distillation=0.0))
    name = f"scratch-{kind}-{digest_of(start, '')[:8]}"
    result = alone.fit(start.train(), name, epochs)
    kept = "initial" if initialised else "fresh"
    images = len(trainer.train.images)
    done = FromScratch(kind, epochs, recipe.epochs, ratio, images, kept)
    return start, done, result.history


def _folded(graph: fx.GraphModule) -> fx.GraphModule:
    return FoldBatchNorm()(copy_graph(graph).eval()).graph_module.float()
