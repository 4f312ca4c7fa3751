"""MetaPruning: meta learning for channel pruning (Liu et al., ICCV 2019, arXiv 1903.10258).

A PruningNet makes the weights of a pruned network from its widths (`pruning_net`). It is trained
on labels with random widths in every step, each group's one of 31 scales. Then an evolution
(`evolution`) searches for widths; a candidate has the weights that are made for it, its batch norms
are recalibrated, and nothing of it is trained. The best widths are trained from scratch.

What differs: every code word meets the goal, since its shares are scaled by one factor, where the
authors draw again until one lies near it; the last stage's output may become narrower too, which
the classifier, trained beside as in the authors' code, reads as it stays. Two layers are given the
shares of the groups that their convolution makes and reads, not all three of a bottleneck.
Batch norms have scales and shifts, which all widths share, and statistics of their own for every
candidate, where the authors have 31 batch norms without either. Weights that are made start as
those that were trained: a short training is enough. Up to 96 images recalibrate, 100 batches in the
paper, and candidates are judged on images held out of the training set, where the authors' code
judges on test images. What is kept is fine-tuned with `--epochs`; the paper trains it from scratch,
as `--initial` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shrinkc.compiler.recover.recipe import Trainer
from shrinkc.compiler.support.journal import digest_of
from shrinkc.compiler.train.batches import mix
from shrinkc.compiler.train.settings.config import Keeping, Training
from shrinkc.compiler.train.settings.optimisers import Sgd
from shrinkc.compiler.train.settings.own_loss import OwnLoss
from shrinkc.compiler.train.train import train
from shrinkc.compiler.width.allocation import nearest
from shrinkc.compiler.width.search.meta.evolution import SCALES, Evolution
from shrinkc.compiler.width.search.meta.pruning_net import PruningNet
from shrinkc.compiler.width.search.task import SearchTask
from shrinkc.compiler.width.search.within import Within
from shrinkc.passes.analysis.channels.channel_groups import Keep
from shrinkc.passes.criteria.base import most_important

EPOCHS = 64  # as published
_torch: Any = torch  # some of its functions have no types
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, eq=False)
class Learning:
    """Widths are drawn anew for every step; `masks`: what stays of a group at each scale."""

    net: PruningNet
    masks: Mapping[str, Sequence[Mask]]
    seed: int
    smoothing: float

    def loss(self, network: nn.Module, batch: Any, number: int) -> Tensor:
        inputs, labels = batch
        self.net.set(self.drawn(number))
        return F.cross_entropy(network(inputs), labels, label_smoothing=self.smoothing)

    def drawn(self, number: int) -> Keep:
        random = np.random.default_rng(mix(self.seed, number))
        return {name: some[int(random.integers(len(some)))] for name, some in self.masks.items()}


def scaled(within: Within, name: str) -> list[Mask]:
    """What stays of a group at each scale, as near as its candidate widths come."""
    group, scores = within.space.groups[name], within.space.scores[name]
    candidates = within.space.candidates[name]
    widths = [nearest(candidates, scale * group.size) for scale in SCALES]
    return [most_important(group, scores, width) for width in widths]


def learned(task: SearchTask, trainer: Trainer, epochs: int) -> PruningNet:
    """After so many epochs; goes on where an earlier run stopped."""
    within, recipe = task.within, trainer.recipe
    within.budget()  # a goal out of reach is refused before anything is trained
    with _torch.random.fork_rng(devices=[]):
        _torch.manual_seed(task.seed)
        net = PruningNet(task.graph, task.names)
    masks = {name: scaled(within, name) for name in task.names}
    learning = Learning(net, masks, task.seed, recipe.smoothing)
    batch = recipe.batch_of(len(trainer.train.images))
    training = Training(
        *(epochs, batch, Sgd(recipe.learning_rate, weight_decay=recipe.weight_decay)),
        labels=None,
        loss=OwnLoss(learning.loss, "meta", lambda outputs: outputs[0]),
        by_task=True,
        seed=task.seed,
    )
    widths = {name: [int(mask.sum()) for mask in some] for name, some in masks.items()}
    about = (widths, epochs, batch, training.optimiser, recipe.smoothing, task.seed)
    name = f"meta-{digest_of(task.graph, f'{about} {trainer.train.images.digest}')[:12]}"
    keeping = None if trainer.folder is None else Keeping(trainer.folder / name)
    given = (net.train(), trainer.train, training)
    train(*given, keeping=keeping, progress=trainer.progress, task=trainer.task)
    return net.requires_grad_(False)


def search(task: SearchTask) -> None:
    """Candidates are judged with the weights that are made for them."""
    assert task.trainer is not None
    net = learned(task, task.trainer, task.epochs or EPOCHS)
    task.fitness.weigh(net.state, digest_of(net, ""))
    Evolution().search(task)
