"""The same training by any number of ranks: `torchrun ranks_example.py FOLDER [STEP]`. The last
rank is killed after so many steps."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, cast

import torch
from torch import distributed, nn
from training_examples import FAST, images, net, slopes

from shrinkc.compiler.images.augment import Augmentation, RandomCrop
from shrinkc.compiler.images.decoded import Data
from shrinkc.compiler.train.compute import Compute
from shrinkc.compiler.train.settings.average import Ema
from shrinkc.compiler.train.settings.config import Hooks, Keeping, Moment, Training, Validation
from shrinkc.compiler.train.settings.losses import Distillation
from shrinkc.compiler.train.train import Result, train


def shared(folder: Path, dies_after: int | None = None) -> Result:
    """Everything that ranks must agree on. Batch norm is frozen: each rank has its own batch."""

    def die(model: nn.Module, moment: Moment) -> None:
        last = os.environ.get("RANK") == str(int(os.environ.get("WORLD_SIZE", "1")) - 1)
        if last and moment.step + 1 == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)

    training = Training(
        epochs=3,
        batch=16,
        optimiser=FAST,
        ema=Ema(0.9),
        clip_norm=1.0,
        distillation=Distillation(net(5)),
        hooks=Hooks(penalty=slopes, mode=nn.Module.eval, after_step=die),
        compute=Compute("cpu"),
        log_steps=1,
    )
    data = Data(images(), Augmentation(RandomCrop(2), flip=True))
    validation = Validation(images(41, seed=1))
    keeping = Keeping(folder, every_steps=3)
    return train(net(), data, training, validation=validation, keeping=keeping)


if __name__ == "__main__":
    torch.set_num_threads(1)
    shared(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    if distributed.is_initialized():  # a rank that leaves early takes gloo's threads with it
        cast(Any, distributed).barrier()
        cast(Any, distributed).destroy_process_group()
