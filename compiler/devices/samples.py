"""From raw times to a median: outliers, the clock's drift, what was not the operator's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from shrinkc.latency_tables.measured import Measurement

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
    """Median, IQR and number of the times that are left, over all passes.

    With `reference_us`, every time is taken at the speed at which the reference takes that long,
    and rounds in which it took over 10% longer do not count (a neighbour on the machine slows
    operators down by different amounts), as long as others are left.
    """
    timed = [pair for sample in samples for pair in _own(sample, reference_us)]
    quiet = [time for time, slower in timed if slower <= DISTURBED]
    if len(quiet) < LEAST_ROUNDS:
        quiet = [time for time, _ in sorted(timed, key=lambda pair: pair[1])[:LEAST_ROUNDS]]
    kept = without_outliers(quiet)
    return Measurement(max(median(kept), LEAST_US), iqr(kept), len(kept))


def _own(sample: Sample, reference_us: float | None) -> list[tuple[float, float]]:
    """Each round's time at the reference's speed, and how much slower it was."""
    times = [max(time - sample.base_us, 0.0) for time in sample.times_us]
    if reference_us is None or not sample.reference_us:
        return [(time, 1.0) for time in times]
    slower = [speed / reference_us for speed in _smooth(sample.reference_us)]
    return [(time / s, s) for time, s in zip(times, slower, strict=True)]


def _smooth(values: Sequence[float]) -> list[float]:
    """The median of each value and its neighbours, of whom the first and the last have fewer."""
    n, last = _NEIGHBOURS, len(values) - _NEIGHBOURS
    return [
        sorted(values[i - n : i + n + 1])[n]
        if n <= i < last
        else median(values[max(0, i - n) : i + n + 1])
        for i in range(len(values))
    ]


def noisy(measurement: Measurement) -> bool:
    """An IQR above 10% of the median, and above what the clock of a small operator can tell."""
    return (measurement.iqr_us or 0.0) > max(NOISY * measurement.median_us, RESOLUTION_US)
