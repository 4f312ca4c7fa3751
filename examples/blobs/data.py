"""Images for the regression: one blob in noise, and its column, row and radius.

    python -m examples.blobs.data FOLDER

writes FOLDER/train and FOLDER/test (400 images each, of other seeds), with `images` and, as the
network returns them, `numbers`.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from examples.blobs.net import SIZE

UNIT = 10.0  # pixels


def draw(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 48, 48) of 8 bits, and (count, 3): column, row, radius, in pixels over 10.

    The noise is as strong as the blob: no network can do without an error.
    """
    columns, rows = random.uniform(8, SIZE - 8, (2, count, 1, 1))
    radii, heights = random.uniform(3, 8, (count, 1, 1)), random.uniform(60, 90, (count, 1, 1))
    down, across = np.mgrid[:SIZE, :SIZE]
    away = ((across - columns) ** 2 + (down - rows) ** 2) / (2 * radii**2)
    pixels = 100 + heights * np.exp(-away) + random.normal(0, 45, (count, SIZE, SIZE))
    numbers = np.hstack([columns[:, 0], rows[:, 0], radii[:, 0]]) / UNIT
    return pixels.round().clip(0, 255).astype(np.uint8), numbers.astype(np.float32)


def to_tensors(images: np.ndarray, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
    """A batch as a loss gets it."""
    return torch.from_numpy(images).unsqueeze(1) / 255, torch.from_numpy(numbers)


def write(folder: Path, count: int = 400) -> None:
    for seed, name in ((1, "train"), (2, "test")):
        images, numbers = draw(count, np.random.default_rng(seed))
        for part in ("images", "numbers"):
            (folder / name / part).mkdir(parents=True, exist_ok=True)
        for index, (image, number) in enumerate(zip(images, numbers, strict=True)):
            Image.fromarray(image).save(folder / name / "images" / f"{index:04}.png")
            np.save(folder / name / "numbers" / f"{index:04}.npy", number)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
