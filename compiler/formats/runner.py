"""A model file in its runtime: arrays in, arrays out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shrinkc.errors import LoadError

MOST_NUMBERS = 1 << 28  # of one input: 1 GiB of float32

Array = NDArray[Any]


class Runner(Protocol):
    """A loaded model file. Arrays are in the file's own layout."""

    @property
    def runtime(self) -> str:
        """Name and version."""
        ...

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """With 1 where the file leaves a dimension open."""
        ...

    @property
    def input_types(self) -> tuple[np.dtype[Any], ...]: ...

    def run(self, inputs: Sequence[Array]) -> list[Array]: ...


def random_inputs(runner: Runner, seed: int = 0) -> list[Array]:
    """Seeded normal inputs; 0 and 1 where they are whole numbers, which any table has rows for.

    Raises LoadError for a file that reads more numbers than any network.
    """
    for shape in runner.input_shapes:
        if math.prod(shape) > MOST_NUMBERS or min(shape, default=0) < 0:
            raise LoadError(f"an input of shape {'×'.join(map(str, shape))[:60]} is no network's")
    generator = np.random.default_rng(seed)
    return [
        generator.standard_normal(shape, dtype=np.float32)
        if kind.kind == "f"
        else generator.integers(0, 2, shape).astype(kind)
        for shape, kind in zip(runner.input_shapes, runner.input_types, strict=True)
    ]
