"""How the trained methods learn: one recipe for search, importance and fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import fx, nn

from shrinkc.compiler.images.augment import (
    Augmentation,
    RandomCrop,
    RandomResizedCrop,
    Size,
    cut,
    draw,
)
from shrinkc.compiler.images.decoded import Data, Pictures
from shrinkc.compiler.recover.layer_problems import size_of
from shrinkc.compiler.support.jobs import Parallel
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.train.settings.config import Hooks, Keeping, Training
from shrinkc.compiler.train.settings.losses import Distillation, Labels
from shrinkc.compiler.train.settings.optimisers import Group, Sgd
from shrinkc.compiler.train.train import Result, train
from shrinkc.errors import InputError

JUDGED = 4_000  # pictures, at most, that judge what an option does
MEMORY = 500_000_000  # bytes, at most, of the copies of pictures to try and to judge on, each
SMALL = 64  # pixels: networks for such pictures are trained on shifted crops, others on resized


@dataclass(frozen=True)
class Recipe:
    """Self-distillation from the network as it was, and labels (Fu et al., 2022, section 4.1).

    epochs         of fine-tuning
    search_epochs  of learning masks; None: as many
    steps          of training before an option's damage is judged
    distillation   weight of the teacher's answers, labels have the rest
    activated      put an activation behind every merged span
    parallel       importance jobs side by side, or "ray"
    """

    epochs: int = 10
    search_epochs: int | None = None
    steps: int = 50
    batch: int = 128
    learning_rate: float = 0.02
    weight_decay: float = 1e-4
    distillation: float = 0.7
    temperature: float = 4.0
    smoothing: float = 0.1
    activated: bool = True
    parallel: Parallel = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.steps < 1:
            raise InputError("give 1 epoch and 1 step of training or more")


@dataclass(frozen=True, eq=False)
class School:
    """Everything that a training needs but the network.

    train    all pictures
    trial    those that an option is tried on, `judged` others that tell what it did
    teacher  the network as it was
    folder   of what was measured; None: nothing is kept
    run      folder in it with the checkpoints of this method, goal and recipe
    """

    train: Data
    trial: Data
    judged: Pictures
    teacher: fx.GraphModule
    recipe: Recipe
    folder: Path | None
    run: str
    progress: Progress = field(repr=False)

    @property
    def labelled(self) -> bool:
        return self.train.pictures.labels is not None

    def training(
        self, epochs: int, hooks: Hooks | None = None, groups: tuple[Group, ...] = ()
    ) -> Training:
        recipe = self.recipe
        kd = recipe.distillation if self.labelled else 1.0
        return Training(
            epochs,
            min(recipe.batch, len(self.trial.pictures)),
            optimiser=Sgd(recipe.learning_rate, weight_decay=recipe.weight_decay, groups=groups),
            labels=Labels(1 - kd, recipe.smoothing) if self.labelled and kd < 1 else None,
            distillation=Distillation(self.teacher, kd, recipe.temperature) if kd else None,
            hooks=hooks or Hooks(),
            seed=recipe.seed,
        )

    def fit(
        self,
        model: nn.Module,
        name: str,
        epochs: int,
        hooks: Hooks | None = None,
        groups: tuple[Group, ...] = (),
    ) -> Result:
        """Train `model` in place; goes on where an earlier run of that name stopped."""
        keeping = None if self.folder is None else Keeping(self.folder / self.run / name)
        training = self.training(epochs, hooks, groups)
        return train(model, self.train, training, keeping=keeping, progress=self.progress)


def school(
    pictures: Pictures,
    teacher: fx.GraphModule,
    recipe: Recipe,
    folder: Path | None,
    run: str,
    progress: Progress,
) -> School:
    """Choose the pictures that options are tried and judged on: copies, all others stay where
    they are."""
    if len(pictures) < 4:
        raise InputError(f"{len(pictures)} pictures are too few to train on")
    size = size_of(teacher)
    generator = torch.Generator().manual_seed(recipe.seed)
    order = torch.randperm(len(pictures), generator=generator)
    fitting = MEMORY // (pictures.pixels[0].numel() * pictures.pixels.element_size())
    judged = min(JUDGED, fitting, len(pictures) // 4)
    tried = min(recipe.steps * recipe.batch, fitting, len(pictures) - judged)
    crop = RandomCrop(4) if max(size) <= SMALL else RandomResizedCrop((0.35, 1.0))
    augmentation = Augmentation(crop, flip=True)
    return School(
        Data(pictures, augmentation, size),
        Data(pictures.part(order[judged : judged + tried].sort().values), augmentation, size),
        _centred(pictures.part(order[:judged].sort().values), size),
        *(teacher, recipe, folder, run, progress),
    )


def _centred(pictures: Pictures, size: Size) -> Pictures:
    """The central crops."""
    windows = draw(Augmentation(), len(pictures), pictures.size, size, 0)
    pixels = cut(pictures.pixels, windows, size)
    return replace(pictures, pixels=pixels)
