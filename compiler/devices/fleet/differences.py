"""Which boards of one kind differ from the others by more than their noise.

What was measured on all of them, operators or whole files, is compared one by one. A board differs
in one of them where its median lies further from the kind's, the median over the boards, than

    √(IQR of the board² + IQR of the kind²)

where the kind's IQR is the median one. Of n runs a median is known to 0.93·IQR/√n (one standard
error, for normal noise), so that from four runs on these are more than two standard errors of the
difference, and from eighteen on, as profile makes them, four: among a thousand operators of two
equal boards hardly one. What is shorter than the clock tells, or differs by less than two boards
of one kind usually do, is none.

A board is named where it differs in more than one of twenty: by the median of these ratios.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from statistics import median
from typing import Generic, TypeVar

from shrinkc.compiler.devices.samples import RESOLUTION_US
from shrinkc.latency_tables.measured import Measurement

K = TypeVar("K", bound=Hashable)
USUAL = 0.02  # of the time: what a session's memory layout does to the very same board
FEW = 0.05  # of what was compared, that disturbances alone may push beyond the noise
LEAST_RUNS = 3  # fewer tell nothing of the noise


@dataclass(frozen=True)
class Difference(Generic[K]):
    """A board that differs.

    ratio      its time over the kind's: the median over what differs
    against    the other board, where the kind has only two: the faster one in what differs
    beyond     how many differ by more than the noise, of `compared`
    worst      which of them differs most, and by `worst_ratio`
    """

    board: str
    kind: str
    ratio: float
    against: str | None
    beyond: int
    compared: int
    worst: K
    worst_ratio: float


def differences(
    kind: str, boards: Mapping[str, Mapping[K, Measurement]]
) -> tuple[Difference[K], ...]:
    """`boards`: what was measured on each of one kind. None for a board alone."""
    usual = _usual(boards)
    found: list[Difference[K]] = []
    for name, measured in boards.items():
        compared = [key for key in usual if key in measured and _tells(measured[key])]
        ratios = {
            key: measured[key].median_us / usual[key].median_us
            for key in compared
            if _beyond(measured[key], usual[key])
        }
        if not ratios or len(ratios) <= FEW * len(compared):
            continue
        worst = max(ratios, key=lambda key: max(ratios[key], 1 / ratios[key]))
        others = [other for other in boards if other != name]
        found.append(
            Difference(
                *(name, kind, median(ratios.values()), others[0] if len(others) == 1 else None),
                *(len(ratios), len(compared), worst, ratios[worst]),
            )
        )
    return tuple(found)


def _usual(boards: Mapping[str, Mapping[K, Measurement]]) -> dict[K, Measurement]:
    """The kind's, of what two boards or more have measured."""
    seen: dict[K, list[Measurement]] = {}
    for measured in boards.values():
        for key, one in measured.items():
            if _tells(one):
                seen.setdefault(key, []).append(one)
    return {key: _middle(ones) for key, ones in seen.items() if len(ones) > 1}


def _middle(ones: Sequence[Measurement]) -> Measurement:
    """Median and median IQR; of two the faster, since two have no middle."""
    if len(ones) == 2:
        return min(ones, key=lambda one: one.median_us)
    spread = median(one.iqr_us or 0.0 for one in ones)
    return Measurement(median(one.median_us for one in ones), spread)


def _tells(one: Measurement) -> bool:
    """Whether its noise is known."""
    return one.iqr_us is not None and (one.runs or 0) >= LEAST_RUNS


def _beyond(one: Measurement, usual: Measurement) -> bool:
    noise = hypot(one.iqr_us or 0.0, usual.iqr_us or 0.0)
    least = max(noise, USUAL * usual.median_us, RESOLUTION_US)
    return abs(one.median_us - usual.median_us) > least
