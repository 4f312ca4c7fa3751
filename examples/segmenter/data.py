"""Images for the segmenter: 1 to 2 digits on 64×64 pixels, with masks.

    python -m examples.segmenter.data FOLDER

writes FOLDER/train (400 images of digits that training sees) and FOLDER/test (400 of others), each
with `images` and `masks`, whose pixels are classes: 0 ground, digit + 1 its ink.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.canvases import Canvas, Canvases, write_masks
from examples.segmenter.net import SIZE


def canvases(*, training: bool, seed: int = 0) -> Canvases:
    return Canvases(SIZE, most=2, training=training, seed=seed)


def masks_of(drawn: list[Canvas]) -> Tensor:
    """The labels as a loss gets them: (N, 64, 64), classes."""
    return torch.from_numpy(np.stack([canvas.mask for canvas in drawn])).long()


def write(folder: Path, count: int = 400) -> None:
    for name, training in (("train", True), ("test", False)):
        write_masks(canvases(training=training, seed=1).batch(count)[1], folder / name)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
