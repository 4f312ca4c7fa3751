"""Activation ranges for int8: what clips least and rounds least on calibration images.

The range [l, h] of a tensor minimises the mean squared error of 8-bit quantisation,

    Σ_{x<l} (l − x)² + Σ_{x>h} (x − h)² + n_inside · s²/12,    s = (h − l)/255,

over a histogram that grows with the data, so that memory does not depend on the number of images.
The widest range seen wastes levels on outliers, an average of ranges clips too much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from shrinkc.compiler.pipeline.run import node_values

BINS = 4096
CANDIDATES = np.linspace(0.3, 1.0, 29)
Range = tuple[float, float]


def _zeros() -> NDArray[np.float64]:
    return np.zeros(BINS)


@dataclass
class Histogram:
    """Counts over [−limit, limit); `limit` doubles, two bins becoming one, as values grow."""

    limit: float = 2.0**-20
    counts: NDArray[np.float64] = field(default_factory=_zeros)
    low: float = 0.0
    high: float = 0.0

    def add(self, values: Tensor) -> None:
        low, high = (float(v) for v in torch.aminmax(values))
        if not (np.isfinite(low) and np.isfinite(high)):
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        while self.limit <= max(-low, high):
            self._double()
        counted = torch.histc(values.float(), BINS, -self.limit, self.limit)
        self.counts += counted.numpy()

    def _double(self) -> None:
        pairs = self.counts.reshape(-1, 2).sum(1)
        self.counts = np.zeros(BINS)
        self.counts[BINS // 4 : -BINS // 4] = pairs
        self.limit *= 2

    def best_range(self) -> Range:
        """The least-error range around zero."""
        width = 2 * self.limit / BINS
        centres = (np.arange(BINS) + 0.5) * width - self.limit
        counts = self.counts.copy()
        counts[BINS // 2] = 0  # zeros are exact in any range that holds them
        lows, highs = (self.low * CANDIDATES, self.high * CANDIDATES)
        if not counts.any():
            return self.low, self.high
        below = [float((counts * np.minimum(centres - low, 0) ** 2).sum()) for low in lows]
        above = [float((counts * np.maximum(centres - high, 0) ** 2).sum()) for high in highs]
        steps = (highs[None, :] - lows[:, None]) / 255
        error = np.add.outer(below, above) + counts.sum() * steps**2 / 12
        i, j = np.unravel_index(int(error.argmin()), error.shape)
        return float(lows[i]), float(highs[j])


def channel_ranges(
    graph_module: fx.GraphModule, names: Sequence[str], batches: Iterable[tuple[Tensor, ...]]
) -> dict[str, Tensor]:
    """Node name → (channels,) largest |x| of each channel, of the values with channels in
    dimension 1."""
    found: dict[str, Tensor] = {}
    for inputs in batches:
        for name, value in node_values(graph_module, inputs, set(names)):
            if value.ndim in (2, 4) and value.is_floating_point():
                most = value.abs().transpose(0, 1).flatten(1).amax(1)
                found[name] = torch.maximum(found[name], most) if name in found else most
    return found


def calibrate(
    graph_module: fx.GraphModule,
    names: Sequence[str],
    batches: Sequence[tuple[Tensor, ...]],
    done: Callable[[], None],
    watch: Callable[[str, Tensor], None] | None = None,
) -> dict[str, Range]:
    """Node name → activation range, for those of `names` that are nodes of the graph; `watch` is
    shown every value on the way."""
    histograms = {name: Histogram() for name in names}
    for inputs in batches:
        for name, value in node_values(graph_module, inputs, set(names)):
            if value.is_floating_point():
                histograms[name].add(value)
            if watch is not None:
                watch(name, value)
        done()
    return {n: h.best_range() for n, h in histograms.items() if h.counts.any()}
