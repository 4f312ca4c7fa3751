"""scikit-learn's handwritten digits: 1,797 grey 8×8 images, and the split that is used here.

A quarter (450 images, the same share of each digit) is the test set; training never sees it.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

SIZE = 32  # what the network reads; the images are enlarged to it
MEAN, STD = 0.5, 0.5


def split() -> tuple[list[Image.Image], list[int], list[Image.Image], list[int]]:
    """Training images and digits, test images and digits; images 8×8, 8 bit."""
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    train, test, train_labels, test_labels = train_test_split(
        pixels, digits.target, test_size=0.25, stratify=digits.target, random_state=0
    )
    return (
        [Image.fromarray(image) for image in train],
        [int(label) for label in train_labels],
        [Image.fromarray(image) for image in test],
        [int(label) for label in test_labels],
    )


def to_tensor(images: list[Image.Image]) -> Tensor:
    """(N, 1, SIZE, SIZE): enlarged bilinearly, scaled to 0–1, normalised to [−1, 1]."""
    resized = [image.resize((SIZE, SIZE), Image.Resampling.BILINEAR) for image in images]
    pixels = np.stack([np.asarray(image, dtype=np.float32) for image in resized]) / 255
    return torch.from_numpy((pixels - MEAN) / STD).unsqueeze(1)


def write_folders(images: list[Image.Image], labels: list[int], folder: Path) -> None:
    """One PNG an image in `folder/<digit>/`."""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
