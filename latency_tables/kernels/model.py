"""The fitted model of one precision: a price for every feature, and what the fit has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod

from shrinkc.latency_tables.kernels.features import PRICED_OPS, Caches, Tiles, operator_class
from shrinkc.latency_tables.kernels.registry import Kernels
from shrinkc.latency_tables.key import OpKey

EXTENTS = ("in_channels", "out_channels", "pixels", "kernel")  # what `Coverage` bounds
Extents = tuple[int, int, int, int]
MIN_NETWORKS = 3  # fewer cannot tell an operator's cost from the rest of their networks


@dataclass(frozen=True, slots=True)
class Coefficient:
    """Microseconds per unit of the feature; `floor` is the hardware's, `prior` the expectation
    the fit starts from where its data say nothing."""

    value: float
    floor: float
    prior: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """The networks an operator class was seen in, and the least and largest extents there."""

    networks: int
    low: Extents
    high: Extents

    def includes(self, key: OpKey) -> bool:
        inside = zip(self.low, extents(key), self.high, strict=True)
        return self.networks >= MIN_NETWORKS and all(lo <= v <= hi for lo, v, hi in inside)


def extents(key: OpKey) -> Extents:
    """In the order of `EXTENTS`; pixels are the input's."""
    return key.in_channels, key.out_channels, prod(key.in_size), max(key.kernel)


def coverage_of(networks: Iterable[Iterable[OpKey]]) -> dict[str, Coverage]:
    """Operator class → what these networks hold of it, by name."""
    seen: dict[str, list[Extents]] = {}
    counts: dict[str, int] = {}
    for network in networks:
        classes: set[str] = set()
        for key in network:
            name = operator_class(key)
            classes.add(name)
            seen.setdefault(name, []).append(extents(key))
        for name in classes:
            counts[name] = counts.get(name, 0) + 1
    return {
        name: Coverage(counts[name], reduce(_lower, points), reduce(_upper, points))
        for name, points in sorted(seen.items())
    }


def _lower(a: Extents, b: Extents) -> Extents:
    return min(a[0], b[0]), min(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _upper(a: Extents, b: Extents) -> Extents:
    return max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


@dataclass(frozen=True)
class FittedModel:
    """Latency in microseconds as a sum over the features of `kernels`."""

    kernels: Kernels
    tiles: Tiles
    caches: Caches
    coefficients: Mapping[str, Coefficient]
    coverage: Mapping[str, Coverage]

    @cached_property
    def _prices(self) -> tuple[float, ...]:
        return tuple(self.coefficients[name].value for name in self.kernels.features)[:-1]

    def operator_us(self, key: OpKey) -> float:
        counted = self.kernels.amounts(key, self.tiles, self.caches)
        return sum(price * amount for price, amount in zip(self._prices, counted, strict=True))

    def total_ms(self, operators: Iterable[OpKey]) -> float:
        """Of a network."""
        return (self.network_us() + sum(map(self.operator_us, operators))) / 1e3

    def network_us(self) -> float:
        """What an inference costs besides its operators."""
        return self.coefficients["network"].value

    def knows(self, key: OpKey) -> bool:
        """Whether the model is about this kind of operator, or only counts the bytes it moves."""
        return key.op in PRICED_OPS or operator_class(key) in self.coverage

    def covers(self, key: OpKey) -> bool:
        """Whether operators like this one, no smaller and no larger, were in the fit."""
        coverage = self.coverage.get(operator_class(key))
        return coverage is not None and coverage.includes(key)
