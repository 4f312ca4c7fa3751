"""Activation ranges for int8: what clips least and rounds least on calibration images.

The range [l, h] of a tensor minimises the mean squared error of 8-bit quantisation,

    Σ_{x<l} (l − x)² + Σ_{x>h} (x − h)² + n_inside · s²/12,    s = (h − l)/255,

over a histogram that grows with the data, so that memory does not depend on the number of images.
The widest range seen wastes levels on outliers, an average of ranges clips too much.

One in n + 1 images exceeds the largest value of n. So the image that has it stands for those that
exceed it: its clipping is that of the image times exp(z), expected over z, which is exponential
with the mean ξ of the tail of the images' largest values (Hill, 1975, A simple general approach to
inference about the tail of a distribution),

    ξ = (1/k) Σ_{i≤k} log(m_(i) / m_(k+1)),    k the root of n.

Where all images end at the same value, as behind a ReLU6, ξ is 0 and the range as without it.
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
CANDIDATES = np.concatenate((np.linspace(0.3, 1.0, 29), np.linspace(1.05, 2.5, 30)))
TAIL_BINS = 512
HEAVIEST = 0.5  # ξ from which squares have no mean
BRIGHTER = -np.log(1 - (np.arange(16) + 0.5) / 16)  # z/ξ, evenly by probability up to 31/32
Range = tuple[float, float]


def _zeros() -> NDArray[np.float64]:
    return np.zeros(BINS)


@dataclass
class Tail:
    """The largest values on one side of zero, `sign` 1 or −1: of every image its peak, and how the
    values of the image with the largest lie between 0 and it."""

    sign: float = 1.0
    largest: float = 0.0
    peaks: list[float] = field(default_factory=list[float])
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(TAIL_BINS))

    def add(self, values: Tensor, peak: float) -> None:
        """Of one image."""
        if peak > self.largest:
            self.largest, values = peak, self.sign * values.float()
            self.counts = torch.histc(values, TAIL_BINS, 0.0, peak).double().numpy()
        self.peaks.append(peak)

    def index(self) -> float:
        """ξ; 0 where too few images have such values."""
        count = round(len(self.peaks) ** 0.5)
        largest = np.sort(self.peaks)[::-1][: count + 1]
        if len(largest) < 2 or largest[-1] <= 0:
            return 0.0
        return min(HEAVIEST, float(np.log(largest[:-1] / largest[-1]).mean()))

    def unseen(self, limits: NDArray[np.float64]) -> NDArray[np.float64]:
        """(limits,) what is clipped beyond each limit, squared and summed, of images that exceed
        all that were seen, less what is of the largest that was."""
        index = self.index()
        used = self.counts > 0
        if not index or not used.any():
            return np.zeros(len(limits))
        counts = self.counts[used]
        values = ((np.arange(TAIL_BINS) + 0.5) / TAIL_BINS)[used] * self.largest

        def clipped(times: float) -> NDArray[np.float64]:
            beyond = np.maximum(times * values - limits[:, None], 0)
            return (counts * beyond**2).sum(1)

        return np.mean([clipped(t) for t in np.exp(index * BRIGHTER)], 0) - clipped(1.0)


@dataclass
class Histogram:
    """Counts over [−limit, limit); `limit` doubles, two bins becoming one, as values grow."""

    limit: float = 2.0**-20
    counts: NDArray[np.float64] = field(default_factory=_zeros)
    low: float = 0.0
    high: float = 0.0
    below: Tail = field(default_factory=lambda: Tail(-1.0))
    above: Tail = field(default_factory=Tail)

    def add(self, values: Tensor) -> bool:
        """Of one image, or of one batch where the network takes no fewer. Values that are not all
        finite do not count, and give False."""
        low, high = (float(v) for v in torch.aminmax(values))
        if not (np.isfinite(low) and np.isfinite(high)):
            return False
        self.low, self.high = min(self.low, low), max(self.high, high)
        while self.limit <= max(-low, high):
            self._double()
        counted = torch.histc(values.float(), BINS, -self.limit, self.limit)
        self.counts += counted.numpy()
        self.above.add(values, max(0.0, high))
        self.below.add(values, max(0.0, -low))
        return True

    def _double(self) -> None:
        pairs = self.counts.reshape(-1, 2).sum(1)
        self.counts = np.zeros(BINS)
        self.counts[BINS // 4 : -BINS // 4] = pairs
        self.limit *= 2

    def best_range(self) -> Range:
        """The range around zero of least error, on images seen and unseen."""
        width = 2 * self.limit / BINS
        centres = (np.arange(BINS) + 0.5) * width - self.limit
        counts = self.counts.copy()
        counts[BINS // 2] = 0  # zeros are exact in any range that holds them
        lows, highs = (self.low * CANDIDATES, self.high * CANDIDATES)
        if not counts.any():
            return self.low, self.high
        below = [float((counts * np.minimum(centres - low, 0) ** 2).sum()) for low in lows]
        above = [float((counts * np.maximum(centres - high, 0) ** 2).sum()) for high in highs]
        clipped = np.add.outer(below + self.below.unseen(-lows), above + self.above.unseen(highs))
        steps = (highs[None, :] - lows[:, None]) / 255
        error = clipped + counts.sum() * steps**2 / 12
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
    endless: set[str] | None = None,
) -> dict[str, Range]:
    """Node name → activation range, for those of `names` that are nodes of the graph; `watch` is
    shown every value on the way, `endless` gets the names of those that were not always finite."""
    histograms = {name: Histogram() for name in names}
    for inputs in batches:
        for name, value in node_values(graph_module, inputs, set(names)):
            finite = not value.is_floating_point() or histograms[name].add(value)
            if endless is not None and not finite:
                endless.add(name)
            if watch is not None:
                watch(name, value)
        done()
    return {n: h.best_range() for n, h in histograms.items() if h.counts.any()}
