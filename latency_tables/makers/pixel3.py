"""Fit the table `pixel3`: `python -m shrinkc.latency_tables.makers.pixel3 --data DIR`.

DIR holds `recovered_fbnet_cifar_lut.csv` (see `fbnet_blocks`), recovered from HayeonLee/HELP, which
has it from HW-NAS-Bench (MIT): 72 blocks of FBNet's space on images of 32×32. That is as far as
the table reaches: float, small maps, 16 to 2112 channels, no whole network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shrinkc.latency_tables.kernels.features import Caches
from shrinkc.latency_tables.kernels.registry import RUY
from shrinkc.latency_tables.makers import pixel4_cpu
from shrinkc.latency_tables.makers.fbnet_blocks import read_blocks
from shrinkc.latency_tables.makers.fit import Expectation, Fit
from shrinkc.latency_tables.makers.script import fitted, run
from shrinkc.latency_tables.meta import ModelShape, TableMeta
from shrinkc.latency_tables.table import LatencyTable

TARGET = "pixel3"
TILES = {"fp32": pixel4_cpu.TILES["fp32"]}
# Kryo 385 Gold (Cortex-A75): 64 KB L1 data cache, 256 KB L2 of its own.
CACHES = Caches(l1_bytes=64 * 1024, resident_bytes=256 * 1024)

META = TableMeta(
    kind="fitted",
    device="Google Pixel 3",
    soc="Qualcomm Snapdragon 845",
    runtime="unknown; TensorFlow Lite's built-in kernels are assumed",
    runtime_version="unknown",
    threads=1,
    governor="unknown",
    precisions=("fp32",),
    batch=1,
    date="2021",
    source="HW-NAS-Bench (FBNet space) as in github.com/HayeonLee/HELP at 45f70eb; latencies of "
    "blocks recovered from 5,000 published sums",
    licence="MIT",
    note="the source states neither runtime nor threads; one thread is a guess from the price of a "
    "multiply-accumulate. Blocks at CIFAR scale only: what an inference costs besides its "
    "operators, and everything on large maps, is extrapolated",
    model=ModelShape(RUY, TILES, CACHES),
)

SLOWER = 3.0  # the blocks take about three times what `pixel4/tflite-cpu` says of them
# How many cores is not known, but there are four Kryo 385 Gold at 2.8 GHz, with two 4-wide FMAs a
# cycle: 90 GMAC/s, 11 µs per MMAC. Quad-channel LPDDR4X-3733, 64 bits together: 29.9 GB/s,
# 0.033 µs per KB. The blocks alone would price sums at nothing.
_FLOORS = {"gemm": 11.0, **dict.fromkeys(("weights", "vector_weights", "elementwise"), 0.033)}
EXPECTED = {
    name: Expectation(_FLOORS.get(name, 0.0), SLOWER * expected.prior)
    for name, expected in pixel4_cpu.EXPECTED["fp32"].items()
}


def main(arguments: Sequence[str] | None = None) -> None:
    run(TARGET, build, arguments)


def build(data: Path) -> LatencyTable:
    """The table of the blocks in the folder. Raises TableError."""
    blocks = read_blocks(data / "recovered_fbnet_cifar_lut.csv", "pixel3")
    fits = {"fp32": Fit(RUY, TILES["fp32"], CACHES, EXPECTED)}
    return fitted(TARGET, META, fits, blocks)


if __name__ == "__main__":
    main()
