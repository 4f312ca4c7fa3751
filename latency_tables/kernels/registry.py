"""The libraries of kernels that there are price models for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shrinkc.latency_tables.kernels import ruy, xnnpack
from shrinkc.latency_tables.kernels.features import Caches, Tiles
from shrinkc.latency_tables.key import OpKey


@dataclass(frozen=True)
class Kernels:
    """A library's price model.

    features    name → unit of its coefficient. The last one, `network`, is 1 for each inference
                and belongs to no operator
    amounts     an operator's amount of every feature but the last, in their order
    """

    name: str
    features: Mapping[str, str]
    amounts: Callable[[OpKey, Tiles, Caches], tuple[float, ...]]


RUY = Kernels("ruy", ruy.FEATURES, ruy.amounts)
XNNPACK = Kernels("xnnpack", xnnpack.FEATURES, xnnpack.amounts)
KERNELS = {kernels.name: kernels for kernels in (RUY, XNNPACK)}
