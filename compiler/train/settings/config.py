"""What a training is asked for. Plain values and plain callables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.train.compute import Compute
from shrinkc.compiler.train.settings.average import Ema
from shrinkc.compiler.train.settings.losses import Distillation, Labels
from shrinkc.compiler.train.settings.optimisers import Optimiser, Sgd
from shrinkc.compiler.train.settings.own_loss import OwnLoss
from shrinkc.compiler.train.settings.schedules import Cosine, Schedule
from shrinkc.errors import TrainingError


@dataclass(frozen=True)
class Moment:
    """Where a training is: `step` of `steps`, counted from 0 through all `epochs`."""

    step: int
    steps: int
    epoch: int
    epochs: int


class Stateful(Protocol):
    """What a hook must remember over a resume: tensors and plain containers."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> object: ...


@dataclass(frozen=True, eq=False)
class Hooks:
    """What a method adds to training. The model is the one that was given, without wrappers.

    penalty     a scalar added to the loss, differentiated with it
    after_step  called after every step of the optimiser, gradients still in place
    mode        puts the model into training mode before every epoch; `norms_frozen` is another
    state       saved with every checkpoint, restored on resume
    """

    penalty: Callable[[nn.Module, Moment], Tensor] | None = None
    after_step: Callable[[nn.Module, Moment], None] | None = None
    mode: Callable[[nn.Module], object] = nn.Module.train
    state: Stateful | None = None


def norms_frozen(model: nn.Module) -> None:
    """Training mode, but batch norm keeps its running statistics: for few or unlike images."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # pyright: ignore[reportPrivateUsage]
            module.eval()


@dataclass(frozen=True, eq=False)
class Validation:
    """Images to judge on after every `every` epochs and after the last."""

    images: Images
    every: int = 1
    batch: int = 256

    def __post_init__(self) -> None:
        if self.every < 1 or self.batch < 1:
            raise TrainingError("a validation needs `every` and `batch` of 1 or more")


@dataclass(frozen=True)
class Keeping:
    """Where a training is kept: `last.pt`, `best.pt` and `log.jsonl` in `folder`.

    A folder that holds a training with the same settings is resumed. A checkpoint is written every
    `every_steps` or `every_minutes`, whichever comes first, at the end, and on Ctrl-C.
    """

    folder: Path
    every_steps: int | None = None
    every_minutes: float = 5.0

    def __post_init__(self) -> None:
        if (self.every_steps is not None and self.every_steps < 1) or self.every_minutes <= 0:
            raise TrainingError("checkpoints need every_steps of 1 or more, every_minutes above 0")


@dataclass(frozen=True, eq=False)
class Training:
    """One training, apart from network and images.

    batch         over all ranks together
    labels        None: no labels are used, the teacher alone counts
    loss          of one's own, in place of the labels' cross-entropy
    by_task       outputs are no class scores: the teacher counts by the task's divergence
    ema           the averaged weights are judged and are the result
    clip_norm     gradients are scaled down to this norm
    seed          of order, augmentation and dropout
    log_steps     a row in the log every so many steps
    """

    epochs: int
    batch: int = 128
    optimiser: Optimiser = field(default_factory=Sgd)
    schedule: Schedule = field(default_factory=Cosine)
    labels: Labels | None = field(default_factory=Labels)
    loss: OwnLoss | None = None
    by_task: bool = False
    distillation: Distillation | None = None
    ema: Ema | None = None
    clip_norm: float | None = None
    hooks: Hooks = field(default_factory=Hooks)
    compute: Compute = field(default_factory=Compute)
    seed: int = 0
    log_steps: int = 50

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("batch", self.batch)):
            if value < 1:
                raise TrainingError(f"{value} {name}; give 1 or more")
        if self.log_steps < 1 or (self.clip_norm is not None and self.clip_norm <= 0):
            raise TrainingError("log_steps and clip_norm must be above 0")
        distillation = self.distillation
        if (
            self.labels is None
            and self.loss is None
            and (distillation is None or not (distillation.weight or distillation.features))
        ):
            raise TrainingError("nothing to learn from: neither labels nor a teacher")
