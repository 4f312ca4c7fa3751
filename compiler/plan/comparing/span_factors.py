"""What choices cost in a set, as multiples of what each costs alone.

What early spans lose the fits behind them win back; of late ones nothing is won back, and in
neighbouring blocks of a residual stream losses add up. So a set loses Σ f_s·d_s: the damages of its
choices, each times a factor of its span. The factors follow from what sets were seen to lose, by
Gaussian-process regression (Rasmussen and Williams, 2006, 2.2) with a covariance that falls with
the distance between spans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from shrinkc.passes.analysis.linear.spans import Span

Factors = Mapping[Span, float]
Array = npt.NDArray[np.float64]

REACH = 3.0  # spans between two whose factors have a correlation of 1/e
NOISE, LEAST_NOISE = 0.07, 0.01  # of what is seen: of itself, of the first set's
LEAST = 0.05  # a factor: no choice is free


@dataclass(frozen=True, eq=False)
class SeenSet:
    """Choices that were judged together.

    alone  span → damage of its choice alone
    loss   of all together
    """

    alone: Mapping[Span, float]
    loss: float

    @property
    def tells(self) -> bool:
        return isfinite(self.loss) and min(self.loss, sum(self.alone.values())) > 0


class SpanFactors:
    """Of `spans`, in the network's order. `first`: what the scale of all factors is taken from."""

    def __init__(self, spans: Sequence[Span], first: SeenSet) -> None:
        self.spans = spans
        self._place = {span: i for i, span in enumerate(spans)}
        numbers = np.arange(len(spans))
        self._prior: Array = np.exp(-np.abs(numbers[:, None] - numbers) / REACH)
        self._seen: list[Array] = []
        self._lost: list[float] = []
        self._random = np.random.default_rng(0)
        self.saw(first)

    def saw(self, some: SeenSet) -> None:
        if not isfinite(some.loss):
            return
        alone = np.zeros(len(self.spans))
        for span, damage in some.alone.items():
            alone[self._place[span]] = damage
        self._seen.append(alone)
        self._lost.append(some.loss)

    def expected(self) -> Factors:
        return self._named(self._posterior()[0])

    def drawn(self, share: float) -> Factors:
        """Others that what was seen allows; `share` of their variance."""
        mean, covariance = self._posterior()
        return self._named(
            self._random.multivariate_normal(mean, share * covariance, check_valid="ignore")
        )

    def _posterior(self) -> tuple[Array, Array]:
        """Mean and covariance. Before anything else all spans have the factor that explains the
        first set, give or take all of it."""
        alone, lost = np.array(self._seen), np.array(self._lost)
        start = lost[0] / alone[0].sum()
        noise = (NOISE * lost) ** 2 + (LEAST_NOISE * lost[0]) ** 2
        prior = start**2 * self._prior
        shared: Array = prior @ alone.T
        seen = alone @ shared + np.diag(noise)
        told = np.column_stack((lost - start * alone.sum(1), shared.T))
        gained: Array = shared @ cast(Any, np.linalg).solve(seen, told)
        return start + gained[:, 0], prior - gained[:, 1:]

    def _named(self, factors: Array) -> Factors:
        return dict(zip(self.spans, np.maximum(factors, LEAST).tolist(), strict=True))
