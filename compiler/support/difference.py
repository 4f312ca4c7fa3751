"""How far outputs are apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Numbers = NDArray[np.float64] | np.float64


def relative_error(got: Array, want: Array) -> float:
    """Largest absolute difference over the range of `want` (`range_of`); infinite for another shape
    or NaN. Infinity equals itself, and is no part of the range."""
    if got.shape != want.shape:
        return float("inf")
    if not want.size:
        return 0.0
    want64, got64 = np.asarray(want, np.float64), np.asarray(got, np.float64)
    if np.isinf(want64).any():
        same, finite = got64 == want64, np.isfinite(want64)
        want64, got64 = (np.where(same & ~finite, 0.0, x) for x in (want64, got64))
    spread = float(range_of(want64.min(), want64.max())) or 1.0
    spread = spread if np.isfinite(spread) else 1.0
    with np.errstate(invalid="ignore"):
        difference = float(np.abs(got64 - want64).max())
    return difference / spread if difference == difference else float("inf")


OFFSET = 1e-2  # a range counts as at least this share of the largest number,
RESOLUTION = 1e-9  # a channel's as this one of the whole output's: float32 has no more
SMALLEST = 2.0**-126  # normal number of float32: what is less, runtimes may take for 0


def range_of(low: Numbers, high: Numbers) -> NDArray[np.float64]:
    """What differences from numbers between `low` and `high`, of any one shape, are shares of.

    Numbers that are nearly all the same may differ by nothing but rounding, so a range is no less
    than a share of the largest. One number is its own range.
    """
    most = np.maximum(np.abs(low), np.abs(high))
    least = np.where(np.equal(high, low), most, OFFSET * most)
    return np.maximum(high - low, least)


@dataclass
class _Channels:
    """Per channel, over all batches: the largest difference, the extremes of what is wanted."""

    difference: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def add(self, other: _Channels) -> None:
        self.difference = np.maximum(self.difference, other.difference)
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)

    def spread(self) -> NDArray[np.float64]:
        most = max(np.abs(self.low).max(initial=0.0), np.abs(self.high).max(initial=0.0))
        spread = np.maximum(range_of(self.low, self.high), RESOLUTION * most)
        return np.where(spread > 0, spread, 1.0)


@dataclass
class OutputError:
    """Differences of one output from what it should be, over any number of batches.

    Channels, and columns of different meaning, are judged each by its own range: along dimension 1
    and along the last. Numbers without a batch are judged whole; integers by the share of them that
    differ. Infinity equals itself; where NaN is wanted the model has no answer, and any will do.
    """

    _along: dict[tuple[int | None, int], _Channels] = field(
        default_factory=dict[tuple[int | None, int], _Channels]
    )  # dimension, its size
    _misfit: bool = False
    _counted: int = 0
    _other: int = 0

    def add(self, got: Array, want: Array) -> None:
        """One batch."""
        if got.shape != want.shape:
            self._misfit = True
            return
        if not np.issubdtype(want.dtype, np.floating):
            self._counted, self._other = (
                self._counted + want.size,
                self._other + _differing(got, want),
            )
            return
        if not want.size:
            return
        dimensions = channel_dimensions(want.ndim) or (None,)
        parts = [_along(*part, dimensions) for part in _slabs(got, want)]
        for dimension in dimensions:
            whole = dimension == 1 and want.ndim > 2  # slabs lie along it
            one = _joined([part[dimension] for part in parts], whole)
            key = dimension, len(one.difference)
            known = self._along.get(key)
            if known is None:
                self._along[key] = one
            else:
                known.add(one)

    def relative(self) -> float:
        """The largest difference of any channel, as a share of its range; infinite for another
        shape."""
        if self._misfit:
            return float("inf")
        share = self._other / self._counted if self._counted else 0.0
        channels = ((c.difference / c.spread()).max(initial=0.0) for c in self._along.values())
        return max(share, *map(float, channels), 0.0)

    def of_whole_range(self) -> float:
        """The largest difference as a share of the range of all channels together, for files that
        are not expected to be equal; infinite for another shape."""
        if self._misfit or not self._along:
            return self.relative()
        channels = next(iter(self._along.values()))
        spread = float(range_of(channels.low.min(), channels.high.max())) or 1.0
        return float(channels.difference.max()) / spread

    def forgive(self, rounding: OutputError) -> None:
        """Channels that differ no more than in `rounding` do not count."""
        if self._counted and self._other * rounding._counted <= rounding._other * self._counted:
            self._other = 0
        for key, channels in self._along.items():
            allowed = rounding._along.get(key)
            if allowed is not None:
                forgiven = channels.difference <= allowed.difference
                channels.difference = np.where(forgiven, 0.0, channels.difference)


SLAB = 1 << 22  # numbers that are compared at a time: an output may be a gigabyte


def _slabs(got: Array, want: Array) -> Iterator[tuple[Array, Array]]:
    """Of maps and more some channels at a time, of the rest all at once."""
    if want.ndim < 3:
        yield got, want
        return
    count = max(1, SLAB * want.shape[1] // want.size)
    for start in range(0, want.shape[1], count):
        yield got[:, start : start + count], want[:, start : start + count]


def _along(
    got: Array, want: Array, dimensions: Sequence[int | None]
) -> dict[int | None, _Channels]:
    wanted, difference = np.asarray(want, np.float64), np.array(got, np.float64)
    with np.errstate(invalid="ignore"):
        same = (difference == wanted) | np.isnan(wanted)
        np.abs(np.subtract(difference, wanted, out=difference), out=difference)
    difference[same] = 0.0
    difference[np.isnan(difference)] = np.inf
    difference[difference <= SMALLEST] = 0.0
    finite = np.isfinite(wanted)
    low = high = wanted
    if not finite.all():
        low, high = np.where(finite, wanted, np.inf), np.where(finite, wanted, -np.inf)
    found: dict[int | None, _Channels] = {}
    for dimension in dimensions:
        rest = tuple(i for i in range(wanted.ndim) if i != dimension)
        found[dimension] = _Channels(
            *map(np.atleast_1d, (difference.max(rest), low.min(rest), high.max(rest)))
        )
    return found


def _joined(parts: Sequence[_Channels], beside: bool) -> _Channels:
    """Of all slabs: one beside the other, or of the same channels."""
    first, *others = parts
    if beside:
        columns = zip(*((one.difference, one.low, one.high) for one in parts), strict=True)
        first = _Channels(*map(np.concatenate, columns))
    else:
        for one in others:
            first.add(one)
    return _Channels(first.difference, _finite(first.low), _finite(first.high))


def channel_dimensions(ndim: int) -> tuple[int, ...]:
    """The two places where outputs have their channels, whose entries may mean different things."""
    return () if ndim < 2 else tuple(dict.fromkeys((1, ndim - 1)))


def _finite(values: Any) -> NDArray[np.float64]:
    """Of channels without a finite number, 0."""
    found = np.atleast_1d(np.asarray(values, np.float64))
    return np.where(np.isfinite(found), found, 0.0)


def _differing(got: Array, want: Array) -> int:
    return int((np.asarray(got) != want).sum())
