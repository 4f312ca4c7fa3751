"""Fit `rpi5/tflite-xnnpack`: `python -m shrinkc.latency_tables.makers.rpi5_xnnpack --data DIR`.

Fitted to the networks of `DIR/netspresso_pi/pi4b_pi5.csv` (see `sources.netspresso`) in float. What
they cannot tell apart follows a nearly equal core alone (`xnnpack_t1`, from
`DIR/mlperf_arm_xnnpack`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shrinkc.latency_tables.kernels.features import Caches, Tiles
from shrinkc.latency_tables.kernels.registry import XNNPACK
from shrinkc.latency_tables.makers.fit import Expectation, Fit
from shrinkc.latency_tables.makers.rpi4_xnnpack import FILE, donor
from shrinkc.latency_tables.makers.script import fitted, run
from shrinkc.latency_tables.makers.sources import netspresso
from shrinkc.latency_tables.meta import ModelShape, TableMeta
from shrinkc.latency_tables.table import LatencyTable

TARGET = "rpi5/tflite-xnnpack"
CORE = "rpi5/tflite-xnnpack-t1"
DEVICE = "Raspberry Pi 5"  # as the file names it
NOISY = 0.15  # its timings agree with each other no better
TILES = {"fp32": Tiles(8, 6, 1, 4)}
# BCM2712: 512 KB of L2 for each core and 2 MB that they share.
CACHES = Caches(l1_bytes=2048 * 1024, resident_bytes=1024 * 1024)

META = TableMeta(
    kind="fitted",
    device="Raspberry Pi 5",
    soc="Broadcom BCM2712, 4 Cortex-A76 cores at 2.4 GHz",
    runtime="TensorFlow Lite with XNNPACK (64-bit), today's default",
    runtime_version="unknown; tflite-runtime 2.14's operators",
    threads=4,
    governor="unknown",
    precisions=("fp32",),
    batch=1,
    date="2024",
    source="Nota-NetsPresso/netspresso-trainer at cdefe125, docs/benchmarks/device_matrix/"
    "tflite.md, Raspberry Pi 5, fp16 weights; priors from " + CORE,
    licence="Apache-2.0",
    note="the source does not state the threads; four are inferred from its speed. Its timings of "
    "networks with attention are four times those of its convolutions, and one is above the Pi 4's",
    model=ModelShape(XNNPACK, TILES, CACHES),
)

# Four cores at 2.4 GHz with two 4-wide FMAs a cycle: 76.8 GMAC/s, 13 µs per MMAC. A depthwise
# kernel loads input and filter for each: half of that. LPDDR4X-4267 on 32 bits: 17.1 GB/s. A core
# decodes four instructions a cycle, and usually executes two.
_DRAM = 0.0585
EXPECTED = {
    "gemm": Expectation(13.0, 17.0),
    "tokens": Expectation(0.0, 50.0),
    "streamed": Expectation(0.0, 0.05),
    "depthwise": Expectation(26.0, 52.0),
    "activations": Expectation(0.0, 0.1),
    "uncached": Expectation(0.0, 0.15),
    "weights": Expectation(_DRAM, 0.12),
    "elementwise": Expectation(_DRAM, 0.2),
    "vector": Expectation(26.0, 78.0),
    "built_in": Expectation(104.0, 208.0),
    "operator": Expectation(0.0, 2.0),
    "network": Expectation(0.0, 150.0),
}


def main(arguments: Sequence[str] | None = None) -> None:
    run(TARGET, build, arguments)


def build(data: Path) -> LatencyTable:
    """The table of the results in the folder. Raises TableError."""
    donors = (donor(data, CORE, CACHES),)
    fit = Fit(XNNPACK, TILES["fp32"], CACHES, EXPECTED, donors, NOISY)
    found = netspresso.read_networks(data / FILE, DEVICE)
    return fitted(TARGET, META, {"fp32": fit}, [s for s in found if s.precision == "fp32"])


if __name__ == "__main__":
    main()
