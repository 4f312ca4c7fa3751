"""Images for the detector: 1 to 2 digits on 64×64 pixels, with boxes.

    python -m examples.detector.data FOLDER

writes FOLDER/train (400 images of digits that training sees) and FOLDER/test (400 of others),
each with `images` and YOLO's `labels`.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from examples.canvases import Canvas, Canvases, write_boxes
from examples.detector.net import SIZE


def canvases(*, training: bool, seed: int = 0) -> Canvases:
    return Canvases(SIZE, most=2, training=training, seed=seed)


def boxes_of(drawn: list[Canvas]) -> list[dict[str, Tensor]]:
    """The labels as a loss gets them: of each image, boxes in pixels and digits."""
    return [
        {"boxes": torch.from_numpy(canvas.boxes), "labels": torch.from_numpy(canvas.digits)}
        for canvas in drawn
    ]


def write(folder: Path, count: int = 400) -> None:
    for name, training in (("train", True), ("test", False)):
        write_boxes(canvases(training=training, seed=1).batch(count)[1], folder / name)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
