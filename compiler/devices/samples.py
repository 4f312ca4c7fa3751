"""From raw times to a median: outliers, the clock's drift, what was not the operator's own."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from shrinkc.latency_tables.measured import Measurement

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
K = TypeVar("K", bound=Hashable)
FENCE = 3.0  # IQRs above the third quartile: Tukey's "far out"
NOISY = 0.10  # an IQR above this share of the median deserves a warning
RESOLUTION_US = 1.0  # of timing something from Python
LEAST_US = 0.01  # an operator that costs less than its measurement can tell
DISTURBED = 1.1  # a round in which the reference takes that much longer than usual
LEAST_ROUNDS = 5  # that are kept however disturbed they are
_NEIGHBOURS = 2  # rounds on either side whose reference times tell the speed of one round


@dataclass(frozen=True)
class Sample:
    """One pass over an operator: microseconds of every round, what of them is the invocation's (or
    the context's) and not the operator's, and the reference's in the same rounds."""

    times_us: tuple[float, ...]
    base_us: float = 0.0
    reference_us: tuple[float, ...] = ()


def without_outliers(times: Sequence[float]) -> list[float]:
    """The outlier rule: times above Q3 + 3·IQR are dropped. Interruptions only add time, so there
    is no fence below."""
    if len(times) < 4:
        return list(times)
    low, _, high = quantiles(times, n=4)
    return [t for t in times if t <= high + FENCE * (high - low)]


def iqr(times: Sequence[float]) -> float:
    """The interquartile range; 0 of fewer than two."""
    if len(times) < 2:
        return 0.0
    low, _, high = quantiles(times, n=4)
    return high - low


def usual_us(reference_us: Iterable[float]) -> float | None:
    """What the reference takes when nothing disturbs the machine: the first quartile; None of
    none."""
    times = list(reference_us)
    return quantiles(times, n=4)[0] if len(times) > 1 else next(iter(times), None)


def settle(samples: Iterable[Sample], reference_us: float | None) -> Measurement:
    """`settle_all` of one operator."""
    return settle_all({None: tuple(samples)}, reference_us)[None]


def settle_all(
    samples: Mapping[K, Sequence[Sample]], reference_us: float | None
) -> dict[K, Measurement]:
    """Of each operator, median, IQR and number of the times that are left, over all passes.

    With `reference_us`, every time is taken at the speed at which the reference takes that long,
    and rounds in which it took over 10% longer do not count (a neighbour on the machine slows
    operators down by different amounts), as long as others are left.
    """
    alike: dict[tuple[tuple[int, int], ...], list[K]] = {}  # by the lengths of the passes
    for key, passes in samples.items():
        lengths = tuple((len(one.times_us), len(one.reference_us)) for one in passes)
        alike.setdefault(lengths, []).append(key)
    found: dict[K, Measurement] = {}
    for keys in alike.values():
        passes = zip(*(samples[key] for key in keys), strict=True)
        own = [_own(one, reference_us) for one in passes]
        times, slower = (np.concatenate(parts, axis=1) for parts in zip(*own, strict=True))
        found.update(zip(keys, _settled(times, slower), strict=True))
    return {key: found[key] for key in samples}


def _own(passes: Sequence[Sample], reference_us: float | None) -> tuple[FloatArray, FloatArray]:
    """One pass over several operators, (operators, rounds): each round's time at the reference's
    speed, and how much slower it was."""
    base = np.array([[one.base_us] for one in passes])
    times = np.maximum(np.array([one.times_us for one in passes], np.float64) - base, 0.0)
    if not reference_us or not passes[0].reference_us:
        return times, np.ones_like(times)
    slower = _smooth(np.array([one.reference_us for one in passes], np.float64)) / reference_us
    slower[slower == 0] = 1.0  # a clock that stood still tells nothing
    return times / slower, slower


def _smooth(values: FloatArray) -> FloatArray:
    """The median of each value and its neighbours in a row; at its ends there are fewer."""
    n = _NEIGHBOURS
    padded = np.pad(values, ((0, 0), (n, n)), constant_values=np.nan)
    windows = np.sort(sliding_window_view(padded, 2 * n + 1, axis=1), axis=2)
    return _median(windows, (~np.isnan(windows)).sum(axis=2))  # nan is sorted to the end


def _settled(times: FloatArray, slower: FloatArray) -> Iterator[Measurement]:
    """Of each row."""
    quiet = slower <= DISTURBED
    least = np.argsort(slower, axis=1, kind="stable")[:, :LEAST_ROUNDS]
    few = quiet.sum(axis=1) < LEAST_ROUNDS
    quiet[few] = False
    quiet[np.flatnonzero(few)[:, None], least[few]] = True
    ordered = np.sort(np.where(quiet, times, np.inf), axis=1)
    count = quiet.sum(axis=1)
    low, high = _quartiles(ordered, count)
    kept = (ordered <= (high + FENCE * (high - low))[:, None]).sum(axis=1)
    kept[count < 4] = count[count < 4]  # no outliers can be told
    low, high = _quartiles(ordered, kept)
    spread = high - low
    medians = np.maximum(_median(ordered, kept), LEAST_US)
    yield from map(Measurement, medians.tolist(), spread.tolist(), kept.tolist())


def _median(ordered: FloatArray, count: IntArray) -> FloatArray:
    """Of the first `count` along the last axis."""
    return (_at(ordered, (count - 1) // 2) + _at(ordered, count // 2)) / 2


def _quartiles(ordered: FloatArray, count: IntArray) -> tuple[FloatArray, FloatArray]:
    """The first and the third, of the first `count` along the last axis, as `statistics.quantiles`
    has them; of one value that value."""
    found: list[FloatArray] = []
    for quarter in (1, 3):
        place = np.clip(quarter * (count + 1) // 4, 1, np.maximum(count - 1, 1))
        above = quarter * (count + 1) - 4 * place
        upper = _at(ordered, np.minimum(place, count - 1))
        found.append((_at(ordered, place - 1) * (4 - above) + upper * above) / 4)
    return found[0], found[1]


def _at(values: FloatArray, places: IntArray) -> FloatArray:
    return np.take_along_axis(values, places[..., None], axis=-1)[..., 0]


def noisy(measurement: Measurement) -> bool:
    """An IQR above 10% of the median, and above what the clock of a small operator can tell."""
    return (measurement.iqr_us or 0.0) > max(NOISY * measurement.median_us, RESOLUTION_US)
