"""What the inputs and outputs of a file are called, and how they hold numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from shrinkc.compiler.formats.runner import Array


@dataclass(frozen=True)
class Port:
    """An input or output of a file, in the file's own layout. Of one that is quantised, a stored
    number q stands for scale · (q − zero_point).

    shape  a name where a dimension is open
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] = ()
    scale: float | None = None
    zero_point: int | None = None

    def stored(self, x: Array) -> Array:
        """Floats as the file holds them: the nearest level, clipped to the type's range."""
        kind = np.dtype(self.dtype)
        if self.scale is None:
            return np.ascontiguousarray(x, dtype=kind)
        limits: Any = np.iinfo(kind)
        levels = np.rint(np.asarray(x, np.float64) / self.scale) + (self.zero_point or 0)
        return np.ascontiguousarray(np.clip(levels, limits.min, limits.max), dtype=kind)

    def floats(self, x: Array) -> Array:
        """What the file gave, in float32 where it is quantised."""
        if self.scale is None:
            return x
        return (x.astype(np.float32) - (self.zero_point or 0)) * np.float32(self.scale)


@dataclass(frozen=True)
class Boundary:
    """All inputs and outputs of a file, in its order; none where its format does not tell."""

    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()

    def stored(self, inputs: Sequence[Array]) -> list[Array]:
        """As the file reads them."""
        pairs = zip_longest(inputs, self.inputs)
        return [np.ascontiguousarray(x) if port is None else port.stored(x) for x, port in pairs]

    def floats(self, outputs: Sequence[Array]) -> list[Array]:
        """What the file gave, in floats."""
        pairs = zip_longest(outputs, self.outputs)
        return [x if port is None else port.floats(x) for x, port in pairs]
