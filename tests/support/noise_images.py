"""Class folders of noise, for tests of commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def noise_images(root: Path) -> Path:
    """24 images of 16×16 in four folders below `root`, which is returned."""
    generator = np.random.default_rng(0)
    for index in range(24):
        folder = root / str(index % 4)
        folder.mkdir(parents=True, exist_ok=True)
        noise = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.png")
    return root
