"""CIFAR-10 and an inverted-residual network small enough to be trained many times on two cores.

    python -m benchmarks.shared.cifar --data DIR

trains it (once: the result is kept in out/cifar) and prints its accuracy. DIR (or SHRINKC_DATA)
holds images/cifar10_jpeg/{train,test}.tar.gz, CIFAR-10 as lossy JPEGs: accuracies are some points
below those on the original images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from benchmarks.shared.common import ROOT, add_data_argument
from shrinkc.compiler.capture import capture
from shrinkc.compiler.images.augment import Augmentation, RandomCrop
from shrinkc.compiler.images.cache import Reading, load_images
from shrinkc.compiler.images.decoded import Data, Images
from shrinkc.compiler.images.files import find_images
from shrinkc.compiler.images.preprocessing import preprocessing_for
from shrinkc.compiler.support.progress import Terminal
from shrinkc.compiler.train.settings.config import Keeping, Training, Validation
from shrinkc.compiler.train.settings.losses import Labels
from shrinkc.compiler.train.settings.optimisers import Sgd
from shrinkc.compiler.train.settings.schedules import OneCycle
from shrinkc.compiler.train.train import train

OUT = ROOT / "out" / "cifar"
IMAGES = Path("images/cifar10_jpeg")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES, SIZE = 10, 32
EPOCHS, BATCH, RATE, DECAY = 16, 128, 0.2, 5e-4  # of the base network
STEM, HEAD = 16, 160
# Expansion, channels, blocks, stride of the first.
STAGES = ((1, 16, 1, 1), (6, 24, 4, 2), (6, 40, 3, 2))


class Block(nn.Module):
    """An inverted residual (Sandler et al., 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        layers = list(_layers(inputs, hidden, 1)) if expansion > 1 else []
        layers += _layers(hidden, hidden, 3, stride, hidden)
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def _layers(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> Iterator[nn.Module]:
    yield nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    yield nn.BatchNorm2d(outputs)
    yield nn.ReLU6()


def ir_net() -> nn.Sequential:
    """(N, 3, 32, 32) → (N, 10) logits. A factory for `--arch`."""
    blocks: list[nn.Module] = []
    channels = STEM
    for expansion, outputs, count, stride in STAGES:
        for index in range(count):
            blocks.append(Block(channels, outputs, stride if index == 0 else 1, expansion))
            channels = outputs
    return nn.Sequential(
        *_layers(3, STEM, 3, 2),
        *blocks,
        *_layers(channels, HEAD, 1),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(HEAD, CLASSES)),
    )


def captured(model: nn.Module) -> fx.GraphModule:
    return capture(model.eval(), (torch.randn(1, 3, SIZE, SIZE),))


def images(data: Path) -> tuple[Images, Images]:
    """Of training and test, decoded once and kept in out/cifar."""
    preprocessing = preprocessing_for((1, 3, SIZE, SIZE), mean=MEAN, std=STD)
    reading = Reading(cache=OUT / "images")
    train_set, test_set = (
        load_images(find_images(data / IMAGES / name), preprocessing, reading)
        for name in ("train.tar.gz", "test.tar.gz")
    )
    return train_set, test_set


def augmented(chosen: Images) -> Data:
    return Data(chosen, Augmentation(RandomCrop(4), flip=True))


def recipe(epochs: int, seed: int) -> Training:
    """Training from scratch."""
    return Training(
        epochs,
        BATCH,
        optimiser=Sgd(RATE, weight_decay=DECAY),
        schedule=OneCycle(),
        labels=Labels(smoothing=0.1),
        seed=seed,
    )


def trained(data: Path, seed: int = 0) -> tuple[nn.Sequential, float]:
    """The base network and its top-1 on the test images; trained only the first time."""
    torch.manual_seed(seed)
    model = ir_net()
    train_set, test_set = images(data)
    result = train(
        *(model, augmented(train_set), recipe(EPOCHS, seed)),
        validation=Validation(test_set, every=5),
        keeping=Keeping(OUT / f"base-{seed}"),
        progress=Terminal(),
    )
    return model, result.history[-1]["validation"]["top1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    model, top1 = trained(parser.parse_args().data)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, top-1 {top1:.2%}")


if __name__ == "__main__":
    main()
