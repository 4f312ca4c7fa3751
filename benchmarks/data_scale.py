"""What a data set costs by its size: listing it, and reading batches of it in a training's order.

    python -m benchmarks.data_scale [--counts 3000,100000,1300000] [--steps 100]

A thousand class folders hold links to 64 noisy JPEGs of 96×96 pixels, as many as are asked for, in
a folder that is removed again. Nothing is kept decoded: batches of 32 are decoded as they are read.
Each size runs in a process of its own; its peak memory is of the whole process, torch included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.shared import results
from benchmarks.shared.common import peak_megabytes, print_table
from shrinkc.compiler.images.augment import Augmentation, RandomResizedCrop
from shrinkc.compiler.images.cache import Reading, load_images, with_margin
from shrinkc.compiler.images.decoded import Data
from shrinkc.compiler.images.files import find_images
from shrinkc.compiler.images.preprocessing import preprocessing_for
from shrinkc.compiler.train.batches import Batches

CLASSES, SOURCES, SIDE, SIZE, BATCH = 1000, 64, 96, 64, 32


def made(folder: Path, count: int) -> None:
    """Links, since a million files of their own would say nothing more."""
    sources, noise = folder / "sources", np.random.default_rng(0)
    sources.mkdir()
    for number in range(SOURCES):
        pixels = noise.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(sources / f"{number}.jpg", quality=90)
    for index in range(min(CLASSES, count)):
        (folder / "set" / f"{index:04}").mkdir(parents=True)
    for index in range(count):
        link = folder / "set" / f"{index % CLASSES:04}" / f"{index:07}.jpg"
        os.link(sources / f"{index % SOURCES}.jpg", link)


def measured(folder: Path, steps: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    clock = [time.monotonic()]
    images = find_images(folder)
    preprocessing = with_margin(preprocessing_for((1, 3, SIZE, SIZE), resize=SIDE))
    streamed = load_images(images, preprocessing, Reading(memory_bytes=0))
    clock.append(time.monotonic())
    data = Data(streamed, Augmentation(RandomResizedCrop((0.35, 1.0)), flip=True), (SIZE, SIZE))
    batches = Batches(data, BATCH, 0, torch.device("cpu"))
    clock.append(time.monotonic())
    for step in range(steps):
        _ = batches[step]
    clock.append(time.monotonic())
    return {
        "images": len(images),
        "steps": steps,
        "stage_seconds": {"listing": clock[1] - clock[0], "reading": clock[3] - clock[2]},
        "peak_mb": peak_megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
    }


def row_of(count: int, steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        made(Path(temporary), count)
        command = [sys.executable, "-m", "benchmarks.data_scale", "--one", f"{temporary}/set"]
        run = subprocess.run(
            [*command, "--steps", str(steps)], capture_output=True, text=True, check=True
        )
    return json.loads(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", default="3000,100000,1300000", help="images of each set")
    parser.add_argument("--steps", type=int, default=100, help="batches that are read")
    parser.add_argument("--one", type=Path, help="a folder that is there, measured in this process")
    parser.add_argument("--out", type=Path, default=results.result_path("data_scale"))
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measured(arguments.one, arguments.steps)))
        return
    rows = [row_of(int(count), arguments.steps) for count in arguments.counts.split(",")]
    header = ("images", "listed s", "µs an image", "read, images/s", "peak MB")
    cells = [
        (
            f"{row['images']:,}",
            f"{row['stage_seconds']['listing']:.2f}",
            f"{1e6 * row['stage_seconds']['listing'] / row['images']:.1f}",
            f"{row['steps'] * BATCH / row['stage_seconds']['reading']:.0f}",
            f"{row['peak_mb']:.0f}",
        )
        for row in rows
    ]
    print_table(header, cells)
    results.write(arguments.out, "data_scale", rows, ("torch", "pillow"))


if __name__ == "__main__":
    main()
