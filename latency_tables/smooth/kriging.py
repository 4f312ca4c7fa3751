"""Kriging that does not believe a value which stands alone.

Ordinary kriging (Cressie 1993, §3.2) with a Matérn-3/2 covariance. What the other values say of
each is in the inverse of the covariance (Dubrule 1983): the error e of leaving it out and that
error's precision p. A value is dropped, the worst first, where √p·|e| is beyond `ALONE` standard
deviations, estimated from the median, and |e| beyond `LEAST`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shrinkc.latency_tables.columns import FloatArray

NUGGET = 4e-3  # of the covariance: what two measurements of one operator differ by
ALONE = 3.5  # standard deviations
LEAST = 0.05  # of the values, which are logarithms
FEWEST = 3 / 4  # of the values stay
BEYOND = 0.5  # by how much a prediction may exceed the values
_SIGMA = 1.4826  # standard deviation over median absolute deviation, of a normal distribution


@dataclass(frozen=True, eq=False)
class Kriging:
    """`points` (n, d) that were believed, their `weights` (n,), the `mean`, and the (lowest,
    highest) prediction."""

    points: FloatArray
    weights: FloatArray
    mean: float
    bounds: tuple[float, float]

    @classmethod
    def of(cls, points: FloatArray, values: FloatArray) -> Kriging:
        """From `values` (n,) at `points` (n, d)."""
        squared = np.square(points[:, None] - points[None]).sum(-1)
        inverse: FloatArray = np.linalg.inv(
            _matern(np.sqrt(squared)) + NUGGET * np.eye(len(points))
        ).astype(np.float64)
        fewest = int(FEWEST * len(points))
        while True:
            rows = inverse.sum(1)
            total = rows.sum()
            mean = float(rows @ values / total)
            weights = inverse @ (values - mean)
            precision = np.maximum(inverse.diagonal() - rows**2 / total, 1e-12)
            error, scaled = np.abs(weights) / precision, np.abs(weights) / np.sqrt(precision)
            typical = _SIGMA * np.partition(scaled, len(scaled) // 2)[len(scaled) // 2]
            alone = (scaled > ALONE * typical) & (error > LEAST)
            if len(points) <= fewest or not alone.any():
                bounds = values.min() - BEYOND, values.max() + BEYOND
                return cls(points, weights, mean, bounds)
            worst = int(np.where(alone, scaled, -1.0).argmax())
            rest = np.arange(len(points)) != worst
            points, values = points[rest], values[rest]
            inverse = _without(inverse, worst, rest)

    def at(self, points: FloatArray) -> FloatArray:
        """Predictions (m,) at `points` (m, d)."""
        squared = np.square(points).sum(1)[:, None] + np.square(self.points).sum(1)
        distance = np.sqrt(np.maximum(squared - 2 * points @ self.points.T, 0.0))
        return np.clip(self.mean + _matern(distance) @ self.weights, *self.bounds)


def _without(inverse: FloatArray, index: int, rest: NDArray[np.bool_]) -> FloatArray:
    """The inverse of the matrix that lacks a row and its column."""
    column = inverse[rest, index]
    return inverse[rest][:, rest] - np.outer(column, column) / inverse[index, index]


def _matern(distance: FloatArray) -> FloatArray:
    scaled = np.sqrt(3.0) * distance
    return (1 + scaled) * np.exp(-scaled)
