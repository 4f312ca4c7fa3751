"""The networks that people deploy, in twelve families, small enough to run in seconds.

Each is written here after its paper or its public code: the operators, heads and decoding are the
architecture's, widths and depths are cut. None is written around what shrinkc can do.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from torch import Tensor, nn

Builder = Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]  # the network, an example

FAMILIES = (
    *("detection", "segmentation", "pose", "face", "ocr", "super_resolution"),
    *("depth", "audio", "time_series", "video", "generative", "several"),
)


def networks(family: str) -> dict[str, Builder]:
    """Name → builder, in the order of the module."""
    return importlib.import_module(f"{__name__}.{family}").NETWORKS
