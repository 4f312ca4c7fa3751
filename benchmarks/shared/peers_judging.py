"""What the files of benchmarks.peers get right, and what they lose of the original's answers.

Every file is judged on the same images, at the size that it reads: as much is seen of each, or the
middle as many times closer as a plan says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.shared.mobilenet_v2 import IMAGES, class_of, views
from shrinkc.compiler.formats.registry import open_runner
from shrinkc.compiler.tasks.tally import interval


@dataclass(frozen=True, eq=False)
class Judging:
    """`at`: size, and how many times closer → the images (n, 3, size, size) of the `labels`."""

    at: Callable[[int, float], Tensor]
    labels: Sequence[int]


def judging_of(data: Path) -> Judging:
    """The validation images of ImageNet."""
    folder = data / IMAGES / "validation"
    labels = [class_of(path.parent.name) for path in sorted(folder.glob("*/*"))]
    return Judging(cache(lambda size, closer: views(folder, size, closer)), labels)


def right(path: Path, judging: Judging, closer: float = 1.0) -> list[bool]:
    """Whether a file classifies each image right, one at a time."""
    runner = open_runner(path)
    _, rows, columns, last = runner.input_shapes[0]
    channels_last = last == 3
    found: list[bool] = []
    seen = judging.at(rows if channels_last else columns, closer)
    for view, label in zip(seen, judging.labels, strict=True):
        x = view.permute(1, 2, 0) if channels_last else view
        (scores, *_) = runner.run([np.ascontiguousarray(x[None].numpy())])
        found.append(int(scores.argmax()) == label)
    return found


def lost(before: Sequence[bool], after: Sequence[bool]) -> tuple[float, tuple[float, float]]:
    """The drop of top-1 from one file to another on the same images, and where the drop on all
    images of their kind lies with 95% confidence: as plans promise it."""
    each = torch.tensor(before).double() - torch.tensor(after).double()
    return float(each.mean()), interval(each)
