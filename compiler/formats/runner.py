"""A model file in its runtime: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

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

    def run(self, inputs: Sequence[Array]) -> list[Array]: ...


def random_inputs(runner: Runner, seed: int = 0) -> list[Array]:
    """Seeded normal float32 inputs."""
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(s, dtype=np.float32) for s in runner.input_shapes]
