"""A network and images small enough to train in a second; run as a script, one training.

python training_examples.py FOLDER [SECONDS PER STEP]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shrinkc.compiler.images.augment import Augmentation, RandomResizedCrop
from shrinkc.compiler.images.decoded import Data, Images
from shrinkc.compiler.train.settings.average import Ema
from shrinkc.compiler.train.settings.config import Hooks, Keeping, Moment, Training, Validation
from shrinkc.compiler.train.settings.optimisers import Sgd
from shrinkc.compiler.train.train import Result, train

CLASSES, SIDE = 4, 12
FAST = Sgd(lr=0.05)


class Net(nn.Sequential):
    """Batch norm and dropout included: both carry state that a resume must get right."""

    def __init__(self, width: int = 8, classes: int = CLASSES, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.flat = nn.Flatten()
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(4 * width, classes)


def net(seed: int = 0, **options: Any) -> Net:
    torch.manual_seed(seed)
    return Net(**options)


def images(count: int = 96, seed: int = 0, labelled: bool = True, side: int = SIDE) -> Images:
    """Each class brightens one quarter of a noisy image."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    pixels = torch.randint(0, 120, (count, side, side, 3), generator=generator)
    half = side // 2
    for index, label in enumerate(labels.tolist()):
        top, left = (label // 2) * half, (label % 2) * half
        pixels[index, top : top + half, left : left + half] += 100
    mean_std = {"mean": (0.4, 0.3, 0.3), "std": (0.25, 0.2, 0.2)}
    return Images(pixels.to(torch.uint8), labels if labelled else None, **mean_std)


class Counting:
    """A hook with a memory of its own."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.seen = seconds, torch.zeros(())

    def __call__(self, model: nn.Module, moment: Moment) -> None:
        assert self.seen == moment.step
        self.seen += 1
        time.sleep(self.seconds)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self.seen = state["seen"]


def slopes(model: nn.Module, moment: Moment) -> Tensor:
    """A penalty: L1 of batch norm's scales."""
    assert isinstance(model, Net)
    return 1e-3 * model.norm.weight.abs().sum()


def resumable(folder: Path, seconds: float = 0.0) -> Result:
    """With everything in it that has state."""
    counting = Counting(seconds)
    training = Training(
        epochs=4,
        batch=8,
        optimiser=FAST,
        ema=Ema(0.9),
        clip_norm=5.0,
        hooks=Hooks(penalty=slopes, after_step=counting, state=counting),
        seed=3,
        log_steps=3,
    )
    augmentation = Augmentation(RandomResizedCrop(scale=(0.5, 1.0)), flip=True)
    return train(
        net(),
        Data(images(side=16), augmentation, (SIDE, SIDE)),
        training,
        validation=Validation(images(40, seed=1), every=2),
        keeping=Keeping(folder, every_steps=5),
    )


def rows(folder: Path) -> list[dict[str, Any]]:
    """The log without what a clock says."""
    text = (folder / "log.jsonl").read_text()
    clock = ("seconds", "images_per_s")
    found = [json.loads(line) for line in text.splitlines()]
    return [{key: row[key] for key in row if key not in clock} for row in found]


if __name__ == "__main__":
    torch.set_num_threads(1)
    resumable(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
