"""Fit a table's model to whole-network latencies, and test it on networks it has not seen.

The coefficients c minimise

    Σ_networks (predicted / measured − 1)²  +  weight · Σ_features (c / prior − 1)²

subject to c ≥ floor: relative errors, so that small networks count like large ones, and a pull
towards what the hardware suggests for features the networks cannot tell apart. The weight is
(`network_error` / PRIOR_ERROR)².
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from shrinkc.latency_tables.files import Validation
from shrinkc.latency_tables.kernels.features import Caches, Tiles
from shrinkc.latency_tables.kernels.model import Coefficient, FittedModel, coverage_of
from shrinkc.latency_tables.kernels.registry import Kernels
from shrinkc.latency_tables.makers.sources.networks import OpList

FloatArray = NDArray[np.float64]
HeldOut = Callable[["Sample"], bool]
NETWORK_ERROR = 0.03  # relative; networks are right within it
PRIOR_ERROR = 1.0  # relative; priors are right within a factor of two
LEAST_PRIOR = 1e-3  # of what the hardware suggests, where another device's price is nothing


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
class Donor:
    """Another device on the same kernels; `scales`, by feature (1 where nothing is said), are what
    a price there is multiplied by to be expected here. It says nothing of features that none of
    its samples has."""

    fit: Fit
    samples: tuple[Sample, ...]
    scales: Mapping[str, float] = field(default_factory=dict[str, float])

    def of(self, precision: str) -> Donor:
        """Its samples in this precision."""
        return replace(self, samples=tuple(s for s in self.samples if s.precision == precision))

    def amounts(self) -> FloatArray:
        """Of every feature, in all samples together."""
        return self.fit.features(self.samples).sum(axis=0)

    def prices(self, held_out: HeldOut) -> FloatArray:
        """Of its own fit, without what is held out."""
        samples = [sample for sample in self.samples if not held_out(sample)]
        scales = [self.scales.get(name, 1.0) for name in self.fit.kernels.features]
        return self.fit.solve(self.fit.features(samples), _measured_us(samples)) * scales


@dataclass(frozen=True)
class Fit:
    """Everything a fit needs besides measurements. `expected` has every feature.

    Where there are `donors`, the mean of their prices, each scaled to the speed that the samples
    show, takes the place of the priors.
    """

    kernels: Kernels
    tiles: Tiles
    caches: Caches
    expected: Mapping[str, Expectation]
    donors: tuple[Donor, ...] = ()
    network_error: float = NETWORK_ERROR

    def features(self, samples: Sequence[Sample]) -> FloatArray:
        """The amount of every feature in each sample, (samples, features)."""
        return np.array([self._amounts(sample) for sample in samples])

    def model(self, samples: Sequence[Sample]) -> FittedModel:
        """The model of these samples (one precision)."""
        informed = self._informed(samples, _nothing)
        values = informed.solve(self.features(samples), _measured_us(samples))
        coefficients = {
            name: Coefficient(float(value), expected.floor, expected.prior)
            for name, value, expected in zip(
                self.kernels.features, values, informed._ordered(), strict=True
            )
        }
        coverage = coverage_of(sample.ops for sample in samples)
        return FittedModel(self.kernels, self.tiles, self.caches, coefficients, coverage)

    def validate(self, samples: Sequence[Sample]) -> tuple[Validation, ...]:
        """Every sample predicted by the fit to all, to all other networks, to all other
        families; sorted by network."""
        features, measured = self.features(samples), _measured_us(samples)
        everything = features @ self._informed(samples, _nothing).solve(features, measured)
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
            hidden = frozenset(s.ops for s in samples if group(s) == name)
            rest = [sample for sample in samples if group(sample) != name]
            informed = self._informed(
                rest, lambda s, name=name, hidden=hidden: group(s) == name or s.ops in hidden
            )
            predicted[out] = features[out] @ informed.solve(features[~out], measured[~out])
        return predicted

    def _informed(self, samples: Sequence[Sample], held_out: HeldOut) -> Fit:
        """With the donors' prices for priors, which have not seen what is held out either."""
        if not self.donors:
            return self
        features, measured = self.features(samples), _measured_us(samples)
        every = [donor.prices(held_out) for donor in self.donors]
        scaled = [prices * np.median(measured / (features @ prices)) for prices in every]
        told = np.any([donor.amounts() > 0 for donor in self.donors], axis=0)
        expected = {
            name: replace(e, prior=max(float(price), e.floor, LEAST_PRIOR * e.prior)) if said else e
            for (name, e), price, said in zip(
                self._named(), np.mean(scaled, axis=0), told, strict=True
            )
        }
        return replace(self, expected=expected)

    def _named(self) -> list[tuple[str, Expectation]]:
        return [(name, self.expected[name]) for name in self.kernels.features]

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
        return solve(features, measured_us, floor, prior, weights, self.network_error / PRIOR_ERROR)


def _nothing(sample: Sample) -> bool:
    return False


_ORDER = {"none": 0, "network": 1, "family": 2}


def _measured_us(samples: Sequence[Sample]) -> FloatArray:
    return np.array([sample.measured_ms * 1e3 for sample in samples])


def solve(
    features: FloatArray,
    measured_us: FloatArray,
    floor: FloatArray,
    prior: FloatArray,
    weights: FloatArray | float = 1.0,
    pull: float = NETWORK_ERROR / PRIOR_ERROR,
) -> FloatArray:
    """Coefficients (features,) of `features` (networks, features); see the module's equation.
    `weights` are of the networks' squared errors,
    `pull` is the root of the prior's weight.

    Non-negative least squares on c = floor + prior · x.
    """
    root = np.sqrt(np.broadcast_to(weights, measured_us.shape))
    relative = features * (root / measured_us)[:, None]
    system = np.vstack([relative * prior, pull * np.eye(len(prior))])
    wanted = np.concatenate([root - relative @ floor, pull * (1 - floor / prior)])
    scaled, _ = nnls(system, wanted)
    return floor + prior * scaled
