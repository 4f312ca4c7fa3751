"""scikit-learn's handwritten digits: 1,797 grey 8×8 pictures, and the split that is used here.

A quarter (450 pictures, the same share of each digit) is the test set; training never sees it.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

SIZE = 32  # what the network reads; the pictures are enlarged to it
MEAN, STD = 0.5, 0.5


def split() -> tuple[list[Image.Image], list[int], list[Image.Image], list[int]]:
    """Training pictures and digits, test pictures and digits; pictures 8×8, 8 bit."""
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    train, test, train_labels, test_labels = train_test_split(
        pixels, digits.target, test_size=0.25, stratify=digits.target, random_state=0
    )
    return (
        [Image.fromarray(picture) for picture in train],
        [int(label) for label in train_labels],
        [Image.fromarray(picture) for picture in test],
        [int(label) for label in test_labels],
    )


def to_tensor(pictures: list[Image.Image]) -> Tensor:
    """(N, 1, SIZE, SIZE): enlarged bilinearly, scaled to 0–1, normalised to [−1, 1]."""
    resized = [picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR) for picture in pictures]
    pixels = np.stack([np.asarray(picture, dtype=np.float32) for picture in resized]) / 255
    return torch.from_numpy((pixels - MEAN) / STD).unsqueeze(1)


def write_folders(pictures: list[Image.Image], labels: list[int], folder: Path) -> None:
    """One PNG a picture in `folder/<digit>/`."""
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        path = folder / str(label) / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
