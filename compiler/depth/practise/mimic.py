"""Training towards the features of the original, without labels:

    loss = mean((F_student − F_original)²),  F the last feature maps, before they are pooled

as in MiR (Huanyu Wang et al., 2022), with the published settings: SGD of momentum 0.9, weight decay
on all parameters, a tenth of the rate from 40% of the steps on. Adaptors alone are trained with
batch norms in inference mode, the whole network with batch norms in training mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shrinkc.compiler.images.augment import Augmentation, RandomCrop, RandomResizedCrop, Size
from shrinkc.compiler.images.decoded import Data, Images
from shrinkc.compiler.recover.distil import last_feature, tapped
from shrinkc.compiler.recover.recipe import SMALL
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.train.settings.config import Hooks, Keeping, Training
from shrinkc.compiler.train.settings.optimisers import Sgd
from shrinkc.compiler.train.settings.own_loss import OwnLoss
from shrinkc.compiler.train.train import train
from shrinkc.passes.base import copy_graph

MOMENTUM = 0.9
JUDGED = 64  # images at a time


@dataclass(frozen=True)
class Step:
    """A tenth of the rate from this share of the steps on."""

    share: float = 0.4

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        return 1.0 if step < int(self.share * steps) else 0.1


@dataclass(frozen=True)
class Mimicry:
    """How to train: the published numbers.

    steps   of `batch` images; 0: nothing is trained
    images  the most that are looked at
    """

    steps: int = 2000
    batch: int = 64
    learning_rate: float = 0.02
    weight_decay: float = 1e-4
    images: int = 500
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Mimic:
    """Everything that one training needs but the network.

    feature  the node of the network as it was whose values are wanted
    teacher  that network, with those values as its first output
    """

    teacher: fx.GraphModule
    feature: str
    images: Images
    size: Size
    options: Mimicry
    progress: Progress = field(repr=False)

    @classmethod
    def of(
        cls,
        teacher: fx.GraphModule,
        images: Images,
        size: Size,
        options: Mimicry,
        progress: Progress,
    ) -> Mimic:
        """Of the network as it was, and some of the images, evenly spread."""
        count = min(options.images, len(images))
        some = images.part(torch.arange(count) * len(images) // count)
        feature = last_feature(teacher, teacher)
        return cls(tapped(teacher, feature).eval(), feature, some, size, options, progress)

    def fit(
        self, student: fx.GraphModule, feature: str, keeping: Path | None, *, norms: bool
    ) -> fx.GraphModule:
        """A copy, what is trainable of it trained until the values of its node `feature` are those
        wanted. `norms`: batch norms in training mode. Goes on in the folder `keeping`."""
        result, model = copy_graph(student), tapped(student, feature)
        self.teach(model, keeping, norms=norms)
        result.load_state_dict(model.state_dict())
        return result

    def teach(self, model: fx.GraphModule, keeping: Path | None, *, norms: bool) -> None:
        """The same of a network whose first output has to have the values, in place."""
        options = self.options
        if options.steps == 0:
            return
        crop = RandomCrop(4) if max(self.size) <= SMALL else RandomResizedCrop()
        data = Data(self.images, Augmentation(crop, flip=True), self.size)
        per_epoch = max(1, len(self.images) // options.batch)
        training = Training(
            math.ceil(options.steps / per_epoch),
            options.batch,
            optimiser=Sgd(options.learning_rate, MOMENTUM, False, options.weight_decay, True),
            schedule=Step(),
            labels=None,
            loss=OwnLoss(self._loss(), "of features", _as_it_is),
            by_task=True,
            hooks=Hooks(mode=nn.Module.train if norms else nn.Module.eval),
            seed=options.seed,
        )
        kept = None if keeping is None else Keeping(keeping)
        train(model, data, training, keeping=kept, progress=self.progress)

    @torch.no_grad()
    def loss(self, model: fx.GraphModule) -> float:
        """Of a network whose first output has to have the values, over the images as they are, in
        inference mode."""
        model.eval()
        total = 0.0
        for start in range(0, len(self.images), JUDGED):
            rows = torch.arange(start, min(start + JUDGED, len(self.images)))
            x = self.images.taken(rows, self.size)
            total += float(F.mse_loss(model(*x)[0], self.teacher(*x)[0])) * len(rows)
        return total / len(self.images)

    def _loss(self) -> Callable[[nn.Module, Any, int], Tensor]:
        teacher = copy_graph(self.teacher)

        def loss(student: nn.Module, batch: Any, step: int) -> Tensor:
            inputs: Tensor = batch[0]
            with torch.no_grad():
                wanted = teacher.to(inputs.device)(inputs)[0]
            return F.mse_loss(student(inputs)[0], wanted)

        return loss


def _as_it_is(outputs: list[Tensor]) -> list[Tensor]:
    return outputs
