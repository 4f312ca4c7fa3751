"""CIFAR-10 and an inverted-residual network small enough to be trained many times on two cores.

    python -m benchmarks.shared.cifar --data DIR

trains it (once: the result is kept in out/cifar) and prints its accuracy. DIR (or SHRINKC_DATA)
holds images/cifar10_jpeg/{train,test}.tar.gz, CIFAR-10 as lossy JPEGs: accuracies are some points
below those on the original images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from benchmarks.shared.common import ROOT, add_data_argument
from benchmarks.shared.inverted_cifar import ir_net
from shrinkc.compiler.capture import capture
from shrinkc.compiler.formats.tflite import TfliteRunner
from shrinkc.compiler.images.augment import Augmentation, RandomCrop
from shrinkc.compiler.images.cache import Reading, load_images
from shrinkc.compiler.images.decoded import Data, Images
from shrinkc.compiler.images.files import find_images
from shrinkc.compiler.images.preprocessing import preprocessing_for
from shrinkc.compiler.measure.speedup import host_file
from shrinkc.compiler.support.progress import Terminal
from shrinkc.compiler.train.settings.config import Keeping, Training, Validation
from shrinkc.compiler.train.settings.losses import Labels
from shrinkc.compiler.train.settings.optimisers import Sgd
from shrinkc.compiler.train.settings.schedules import OneCycle
from shrinkc.compiler.train.train import train

OUT = ROOT / "out" / "cifar"
IMAGES = Path("images/cifar10_jpeg")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 32
EPOCHS, BATCH, RATE, DECAY = 16, 128, 0.2, 5e-4  # of the base network
CALIBRATION = 100  # images


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


def calibration(seen: Images) -> list[tuple[Tensor, ...]]:
    """What int8 files are calibrated on: some of the images, one at a time."""
    places = range(0, len(seen), max(1, len(seen) // CALIBRATION))
    return [(seen.inputs(seen.pixels[i][None]),) for i in places]


def int8_file(graph: fx.GraphModule, seen: Images) -> bytes:
    return host_file(graph, "int8", calibration(seen))


def top1_of_file(model: bytes, test: Images) -> float:
    """Of a TFLite file, one image at a time."""
    run = TfliteRunner(model, 1)
    right = 0
    assert test.labels is not None
    for start in range(0, len(test), 500):
        x = test.inputs(test.pixels[start : start + 500]).permute(0, 2, 3, 1).contiguous().numpy()
        for row, label in zip(x, test.labels[start : start + 500].tolist(), strict=True):
            right += int(run.run([row[None]])[0].argmax()) == label
    return right / len(test)


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
