"""Fit a table's model to whole-network latencies, and test it on networks it has not seen.

The coefficients c minimise

    Σ_networks (predicted / measured − 1)²  +  PRIOR_WEIGHT · Σ_features (c / prior − 1)²

subject to c ≥ floor: relative errors, so that small networks count like large ones, and a pull
towards what the hardware suggests for features the networks cannot tell apart. The weight is
(NETWORK_ERROR / PRIOR_ERROR)².
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from shrinkc.latency_tables.files import Validation
from shrinkc.latency_tables.kernels.features import Caches, Tiles
from shrinkc.latency_tables.kernels.model import Coefficient, FittedModel, coverage_of
from shrinkc.latency_tables.kernels.registry import Kernels
from shrinkc.latency_tables.makers.networks import OpList

FloatArray = NDArray[np.float64]
NETWORK_ERROR = 0.03  # relative; networks are right within it
PRIOR_ERROR = 1.0  # relative; priors are right within a factor of two
PRIOR_WEIGHT = (NETWORK_ERROR / PRIOR_ERROR) ** 2


@dataclass(frozen=True)
class Sample:
    """A network, what it runs, and its measured latency.

    A part of a network is measured as a difference: `network_share` is 0, and `less` is what
    ran in its place in the other measurement.
    """

    network: str
    family: str
    precision: str
    ops: OpList
    measured_ms: float
    less: OpList = ()
    network_share: float = 1.0


@dataclass(frozen=True)
class Expectation:
    """Of one coefficient, microseconds per unit of its feature: the least the hardware allows,
    and what is expected where nothing was measured."""

    floor: float
    prior: float


@dataclass(frozen=True)
class Fit:
    """Everything a fit needs besides measurements. `expected` has every feature."""

    kernels: Kernels
    tiles: Tiles
    caches: Caches
    expected: Mapping[str, Expectation]

    def features(self, samples: Sequence[Sample]) -> FloatArray:
        """The amount of every feature in each sample, (samples, features)."""
        return np.array([self._amounts(sample) for sample in samples])

    def model(self, samples: Sequence[Sample]) -> FittedModel:
        """The model of these samples (one precision)."""
        values = self.solve(self.features(samples), _measured_us(samples))
        coefficients = {
            name: Coefficient(float(value), expected.floor, expected.prior)
            for name, value, expected in zip(
                self.kernels.features, values, self._ordered(), strict=True
            )
        }
        coverage = coverage_of(sample.ops for sample in samples)
        return FittedModel(self.kernels, self.tiles, self.caches, coefficients, coverage)

    def validate(self, samples: Sequence[Sample]) -> tuple[Validation, ...]:
        """Every sample predicted by the fit to all, to all other networks, to all other
        families; sorted by network."""
        features, measured = self.features(samples), _measured_us(samples)
        everything = features @ self.solve(features, measured)
        network = self._predict_held_out(samples, lambda s: s.network)
        family = self._predict_held_out(samples, lambda s: s.family)
        columns = (("none", everything), ("network", network), ("family", family))
        rows = (
            Validation(s.network, s.precision, s.measured_ms, float(predicted[i]) / 1e3, held_out)
            for held_out, predicted in columns
            for i, s in enumerate(samples)
        )
        return tuple(sorted(rows, key=lambda v: (v.network, _ORDER[v.held_out])))

    def _predict_held_out(
        self, samples: Sequence[Sample], group: Callable[[Sample], str]
    ) -> FloatArray:
        features, measured = self.features(samples), _measured_us(samples)
        groups = np.array([group(sample) for sample in samples])
        predicted = np.zeros(len(samples))
        for name in set(groups):
            out = groups == name
            predicted[out] = features[out] @ self.solve(features[~out], measured[~out])
        return predicted

    def _amounts(self, sample: Sample) -> FloatArray:
        per_operator = self._total(sample.ops) - self._total(sample.less)
        return np.append(per_operator, sample.network_share)

    def _total(self, ops: OpList) -> FloatArray:
        counted = [self.kernels.amounts(key, self.tiles, self.caches) for key in ops]
        return np.sum(np.array(counted).reshape(-1, len(self.kernels.features) - 1), axis=0)

    def _ordered(self) -> list[Expectation]:
        return [self.expected[name] for name in self.kernels.features]

    def solve(
        self, features: FloatArray, measured_us: FloatArray, weights: FloatArray | float = 1.0
    ) -> FloatArray:
        """Coefficients within this fit's expectations; see the function `solve`."""
        ordered = self._ordered()
        floor = np.array([expected.floor for expected in ordered])
        prior = np.array([expected.prior for expected in ordered])
        return solve(features, measured_us, floor, prior, weights)


_ORDER = {"none": 0, "network": 1, "family": 2}


def _measured_us(samples: Sequence[Sample]) -> FloatArray:
    return np.array([sample.measured_ms * 1e3 for sample in samples])


def solve(
    features: FloatArray,
    measured_us: FloatArray,
    floor: FloatArray,
    prior: FloatArray,
    weights: FloatArray | float = 1.0,
) -> FloatArray:
    """Coefficients (features,) of `features` (networks, features); see the module's equation.
    `weights` are of the networks' squared errors.

    Non-negative least squares on c = floor + prior · x.
    """
    root = np.sqrt(np.broadcast_to(weights, measured_us.shape))
    relative = features * (root / measured_us)[:, None]
    pull = np.sqrt(PRIOR_WEIGHT) * np.eye(len(prior))
    system = np.vstack([relative * prior, pull])
    wanted = np.concatenate([root - relative @ floor, pull @ (1 - floor / prior)])
    scaled, _ = nnls(system, wanted)
    return floor + prior * scaled
