"""Digits placed on canvases: images with boxes and masks for the detector and the segmenter.

The digits are scikit-learn's, split as in `digits_data`: canvases for training hold none of the
digits that those for testing do. Each digit is enlarged, its ink is drawn brighter or darker, and
the ground is a noisy slope. Everything follows from the seed.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from examples.digits_data import split

INK = 100  # of 255: what is brighter in the enlarged digit belongs to its mask


@dataclass
class Canvas:
    """A grey image with what is in it."""

    image: np.ndarray  # (size, size), 8 bit
    boxes: np.ndarray  # (count, 4): left, top, right, bottom in pixels, around the ink
    digits: np.ndarray  # (count,)
    mask: np.ndarray  # (size, size): 0 is ground, digit + 1 is ink


class Canvases:
    """Draws canvases of `size` pixels with 1 to `most` digits, as many as are asked for."""

    def __init__(self, size: int, most: int, *, training: bool, seed: int) -> None:
        train, train_labels, test, test_labels = split()
        self.images = train if training else test
        self.labels = train_labels if training else test_labels
        self.size, self.most = size, most
        self.random = np.random.default_rng(seed)

    def draw(self) -> Canvas:
        random, size = self.random, self.size
        ground = random.uniform(20, 90) + _slope(size, random.uniform(-25, 25, 2))
        pixels = ground + random.normal(0, 8, (size, size))
        mask = np.zeros((size, size), np.uint8)
        boxes: list[tuple[int, int, int, int]] = []
        digits: list[int] = []
        for _ in range(random.integers(1, self.most + 1)):
            index, edge = int(random.integers(len(self.images))), int(random.integers(20, 41))
            left, top = (int(at) for at in random.integers(0, size - edge + 1, 2))
            enlarged = self.images[index].resize((edge, edge), Image.Resampling.BILINEAR)
            drawn = np.asarray(enlarged, dtype=np.float64)
            rows, columns = np.nonzero(drawn > INK)
            box = left + columns.min(), top + rows.min(), left + columns.max(), top + rows.max()
            box = box[0], box[1], box[2] + 1, box[3] + 1
            if any(_touch(box, other) for other in boxes):
                continue
            place = slice(top, top + edge), slice(left, left + edge)
            pixels[place] += drawn * random.uniform(0.4, 0.7)
            mask[place][drawn > INK] = self.labels[index] + 1
            boxes.append(box)
            digits.append(self.labels[index])
        image = pixels.round().clip(0, 255).astype(np.uint8)
        return Canvas(image, np.array(boxes, np.float32), np.array(digits), mask)

    def batch(self, count: int) -> tuple[Tensor, list[Canvas]]:
        """`count` canvases: the input of a network, (count, 1, size, size) in 0–1, and them."""
        drawn = [self.draw() for _ in range(count)]
        pixels = np.stack([canvas.image for canvas in drawn])
        return torch.from_numpy(pixels).unsqueeze(1) / 255, drawn


def _slope(size: int, fall: np.ndarray) -> np.ndarray:
    at = np.linspace(-1, 1, size)
    return fall[0] * at[:, None] + fall[1] * at[None, :]


def _touch(one: tuple[int, ...], other: tuple[int, ...], gap: int = 3) -> bool:
    apart = one[0] >= other[2] + gap or other[0] >= one[2] + gap
    return not (apart or one[1] >= other[3] + gap or other[1] >= one[3] + gap)


def write_boxes(canvases: list[Canvas], folder: Path) -> None:
    """`folder/images/*.png`, and YOLO's `folder/labels/*.txt`: class and box in shares."""
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    _write_images(canvases, folder)
    for index, canvas in enumerate(canvases):
        corners = canvas.boxes / canvas.image.shape[0]
        middles, sizes = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        rows = zip(canvas.digits, np.hstack([middles, sizes]), strict=True)
        lines = [f"{digit} " + " ".join(f"{share:.6f}" for share in box) for digit, box in rows]
        (folder / "labels" / f"{index:04}.txt").write_text("\n".join(lines) + "\n")


def write_masks(canvases: list[Canvas], folder: Path) -> None:
    """`folder/images/*.png` and `folder/masks/*.png`, whose pixels are classes."""
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    _write_images(canvases, folder)
    for index, canvas in enumerate(canvases):
        Image.fromarray(canvas.mask).save(folder / "masks" / f"{index:04}.png")


def _write_images(canvases: list[Canvas], folder: Path) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for index, canvas in enumerate(canvases):
        Image.fromarray(canvas.image).save(folder / "images" / f"{index:04}.png")
