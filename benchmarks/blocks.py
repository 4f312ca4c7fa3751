"""Do blocks timed one by one improve the table that whole networks were fitted to?

    python -m benchmarks.blocks --data DIR

The networks are those of `rpi4/tflite-ruy` in float (MLPerf), the blocks HW-NAS-Bench's on a
Raspberry Pi 4, whose runtime and threads are not stated: they take an unknown factor longer than
the table's runtime would. Prices c ≥ floor and the factor f minimise

    Σ_networks (X c / t − 1)² + w Σ_blocks (f · B c / t − 1)² + the pull towards the priors

for several weights w of a block. The errors are of networks, and families, that were left out; the
factor is found anew each time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.shared import results
from benchmarks.shared.common import add_data_argument, print_table
from shrinkc.latency_tables.kernels.registry import RUY
from shrinkc.latency_tables.makers import rpi4_ruy
from shrinkc.latency_tables.makers.fit import Fit, Sample
from shrinkc.latency_tables.makers.sources.fbnet_blocks import read_blocks

WEIGHTS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.03, 0.1)
FACTORS = np.geomspace(1.0, 6.0, 37)
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Combined:
    """Networks, and blocks that each weigh `weight` of a network."""

    fit: Fit
    networks: tuple[Sample, ...]
    blocks: tuple[Sample, ...]
    weight: float

    def prices(self, networks: tuple[Sample, ...]) -> tuple[FloatArray, float]:
        """Prices fitted to these networks and all blocks, and the blocks' factor."""
        features = np.vstack([self.fit.features(networks), self.fit.features(self.blocks)])
        weights = np.array([1.0] * len(networks) + [self.weight] * len(self.blocks))
        best = (np.inf, np.zeros(0), 1.0)
        for factor in FACTORS:
            measured = np.append(_us(networks), _us(self.blocks) / factor)
            prices = self.fit.solve(features, measured, weights)
            loss = float(weights @ (features @ prices / measured - 1) ** 2)
            best = min(best, (loss, prices, float(factor)), key=lambda found: found[0])
        return best[1], best[2]

    def error(self, group: Callable[[Sample], str]) -> float:
        """Mean absolute relative error of networks whose group was left out."""
        errors: list[float] = []
        for name in sorted({group(network) for network in self.networks}):
            left_out = tuple(s for s in self.networks if group(s) == name)
            prices, _ = self.prices(tuple(s for s in self.networks if group(s) != name))
            predicted = self.fit.features(left_out) @ prices
            errors += list(np.abs(predicted / _us(left_out) - 1))
        return float(np.mean(errors))

    def row(self) -> dict[str, float]:
        prices, factor = self.prices(self.networks)
        blocks = factor * (self.fit.features(self.blocks) @ prices) / _us(self.blocks) - 1
        return {
            "weight": self.weight,
            "factor": factor,
            "network_held_out_error": self.error(lambda sample: sample.network),
            "family_held_out_error": self.error(lambda sample: sample.family),
            "blocks_in_fit_error": float(np.mean(np.abs(blocks))),
            "depthwise_us_per_mmac": float(prices[list(RUY.features).index("depthwise")]),
        }


def _us(samples: tuple[Sample, ...]) -> FloatArray:
    return np.array([sample.measured_ms * 1e3 for sample in samples])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_argument(parser)
    data: Path = parser.parse_args().data / "latency"
    samples = rpi4_ruy.read_samples(data / "mlperf_rpi4" / "rpi4_singlestream.csv")
    networks = tuple(sample for sample in samples if sample.precision == "fp32")
    path = data / "fbnet_blocks_rpi4_pixel3" / "recovered_fbnet_cifar_lut.csv"
    blocks = tuple(read_blocks(path, "raspi4"))
    made = rpi4_ruy
    fit = Fit(RUY, made.TILES["fp32"], made.CACHES, made.EXPECTED["fp32"])
    rows = [Combined(fit, networks, blocks, weight).row() for weight in WEIGHTS]
    header = ("weight", "factor", "network held out", "family held out", "blocks", "depthwise")
    formats = ("{:g}", "{:.2f}", "{:.2%}", "{:.2%}", "{:.0%}", "{:.0f}")
    print_table(
        header,
        [[f.format(v) for f, v in zip(formats, row.values(), strict=True)] for row in rows],
    )
    results.write(results.result_path("blocks"), "blocks", rows, ("numpy", "scipy"))


if __name__ == "__main__":
    main()
