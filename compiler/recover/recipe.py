"""How the trained methods learn: one recipe for search, importance and fine-tuning."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.images.augment import (
    Augmentation,
    RandomCrop,
    RandomResizedCrop,
    Size,
    cut,
    draw,
)
from shrinkc.compiler.images.decoded import Data, Images
from shrinkc.compiler.images.labels import kind_of
from shrinkc.compiler.recover.layer_problems import size_of
from shrinkc.compiler.support.checks import check_number, check_whole
from shrinkc.compiler.support.jobs import Parallel
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.support.unread import Option
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.train.settings.config import Hooks, Keeping, Training
from shrinkc.compiler.train.settings.losses import Distillation, Labels
from shrinkc.compiler.train.settings.optimisers import Group, Sgd
from shrinkc.compiler.train.settings.own_loss import OwnLoss
from shrinkc.compiler.train.train import Result, train
from shrinkc.errors import InputError

TRAINING = (  # fields that every training reads
    *("epochs", "batch", "learning_rate", "weight_decay", "distillation", "temperature"),
    *("smoothing", "seed", "loss", "chain_ratio"),
)
_PARAMETERS = {"steps": "trial_steps"}  # by what functions and commands call it
JUDGED = 4_000  # images, at most, that judge what an option does
MEMORY = 500_000_000  # bytes, at most, of the copies of images to try and to judge on, each
STEPS = 10  # of an epoch, at least
CLIP = 1.0  # norm of gradients of losses that may have any scale
TEMPERATURE = 4.0
SMALL = 64  # pixels: networks for such images are trained on shifted crops, others on resized


@dataclass(frozen=True)
class Recipe:
    """Self-distillation from the network as it was, and labels (Fu et al., 2022, section 4.1).

    epochs         of fine-tuning
    search_epochs  of learning masks; None: as many
    steps          of training before an option's damage is judged
    distillation   weight of the teacher's answers, labels have the rest
    temperature    of the teacher's answers; None: 4, or as a method is published
    activated      put an activation behind every merged span
    batch          of images, and at most a tenth of all
    parallel       jobs side by side, such as what options cost: processes, "ray", or a `Ray`
    loss           of one's own in place of the labels' cross-entropy
    chain_ratio    hidden channels, over inputs, of linear chains beside the convolutions that were
                   changed while a network is fine-tuned; 0: no chains
    """

    epochs: int = 10
    search_epochs: int | None = None
    steps: int = 50
    batch: int = 128
    learning_rate: float = 0.02
    weight_decay: float = 1e-4
    distillation: float = 0.7
    temperature: float | None = None
    smoothing: float = 0.1
    activated: bool = True
    parallel: Parallel = field(default=1, repr=False)  # what is kept goes by the rest
    seed: int = 0
    loss: OwnLoss | None = None
    chain_ratio: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("steps", self.steps), ("batch", self.batch)):
            check_whole(name, value, 1)
        if self.search_epochs is not None:
            check_whole("search_epochs", self.search_epochs, 0)
        for name, value in (
            ("learning_rate", self.learning_rate),
            ("temperature", TEMPERATURE if self.temperature is None else self.temperature),
        ):
            check_number(name, value, above=True)
        for name in ("weight_decay", "chain_ratio"):
            check_number(name, getattr(self, name))
        for name, value in (("distillation", self.distillation), ("smoothing", self.smoothing)):
            check_number(name, value)
            if value > 1:
                raise InputError(f"`{name}` {value:g}: give a share, 0 to 1")

    def unread(self, read: Collection[str], readers: str) -> tuple[Option, ...]:
        """Its fields that are given, and whether they are among those that are `read`."""
        default = Recipe()
        return tuple(
            Option(_PARAMETERS.get(f.name, f.name), given, f.name in read, readers)
            for f in fields(self)
            if (given := getattr(self, f.name) != getattr(default, f.name))
        )

    def batch_of(self, images: int) -> int:
        """Of a training on so many images: at most a tenth of them, so that an epoch has ten steps
        or more, but two."""
        return min(self.batch, max(2, images // STEPS))

    def notes(self, images: int) -> tuple[str, ...]:
        """What a user should know of a training on so many images."""
        found: list[str] = []
        batch = self.batch_of(images)
        if batch != self.batch:
            found.append(
                f"trained in batches of {batch} instead of {self.batch}: of "
                f"{counted(images, 'image')} a batch is a tenth at most"
            )
        if self.chain_ratio:
            found.append(
                "fine-tuned with linear chains beside convolutions, of "
                f"{self.chain_ratio:g} times as many hidden channels as inputs, merged back exactly"
            )
        return tuple(found)


@dataclass(frozen=True, eq=False)
class Trainer:
    """Everything that a training needs but the network.

    train    all images
    trial    those that an option is tried on, `judged` others that tell what it did
    teacher  the network as it was
    folder   of what was measured; None: nothing is kept
    run      folder in it with the checkpoints of this method, goal and recipe
    task     what the answers mean, where they are judged
    """

    train: Data
    trial: Data
    judged: Images
    teacher: fx.GraphModule
    recipe: Recipe
    folder: Path | None
    run: str
    progress: Progress = field(repr=False)
    task: Task = CLASSIFICATION

    @property
    def labelled(self) -> bool:
        return self.train.images.labels is not None

    def training(
        self, epochs: int, hooks: Hooks | None = None, groups: tuple[Group, ...] = ()
    ) -> Training:
        recipe = self.recipe
        by_task = recipe.loss is not None or not self.task.classifies
        learns = recipe.loss is not None if by_task else self.labelled
        kd = recipe.distillation if learns else 1.0
        temperature = TEMPERATURE if recipe.temperature is None else recipe.temperature
        cross = Labels(1 - kd, recipe.smoothing) if learns and kd < 1 and not by_task else None
        return Training(
            epochs,
            recipe.batch_of(len(self.train.images)),
            optimiser=Sgd(recipe.learning_rate, weight_decay=recipe.weight_decay, groups=groups),
            labels=cross,
            loss=recipe.loss,
            by_task=by_task,
            clip_norm=CLIP if by_task else None,
            distillation=Distillation(self.teacher, kd, temperature) if kd else None,
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
        return train(
            model,
            self.train,
            training,
            keeping=keeping,
            progress=self.progress,
            task=self.task,
        )


def trainer_for(
    images: Images,
    teacher: fx.GraphModule,
    recipe: Recipe,
    folder: Path | None,
    run: str,
    progress: Progress,
    *,
    task: Task = CLASSIFICATION,
) -> Trainer:
    """Choose the images that options are tried and judged on: copies, all others stay where
    they are. Raises InputError for fewer than four, and for a network that takes no batches."""
    require_batches(teacher)
    if len(images) < 4:
        raise InputError(f"{counted(len(images), 'image')} to train on: give 4 or more")
    size = size_of(teacher)
    generator = torch.Generator().manual_seed(recipe.seed)
    order = torch.randperm(len(images), generator=generator)
    fitting = MEMORY // (images.pixels[0].numel() * images.pixels.element_size())
    judged = min(JUDGED, fitting, len(images) // 4)
    tried = min(recipe.steps * recipe.batch_of(len(images)), fitting, len(images) - judged)
    crop = RandomCrop(4) if max(size) <= SMALL else RandomResizedCrop((0.35, 1.0))
    augmentation = Augmentation(crop, flip=True)
    if kind_of(images.labels) not in (None, "classes"):  # they lie where the pixels are
        augmentation = Augmentation()

    def few(rows: Tensor) -> Images:
        return images.part(rows.sort().values).in_memory()

    return Trainer(
        Data(images, augmentation, size),
        Data(few(order[judged : judged + tried]), augmentation, size),
        _centred(few(order[:judged]), size),
        *(teacher, recipe, folder, run, progress, task),
    )


def require_batches(graph: fx.GraphModule) -> None:
    """Raises InputError for a network that takes batches of one size only."""
    if not graph.meta.get("dynamic_batch", True):
        raise InputError(
            "a network that takes batches of one size only cannot be trained",
            "compile, plan or prune it without `train`",
        )


def _centred(images: Images, size: Size) -> Images:
    """The central crops."""
    windows = draw(Augmentation(), len(images), images.size, size, 0)
    pixels = cut(images.pixels, windows, size)
    return replace(images, pixels=pixels)
