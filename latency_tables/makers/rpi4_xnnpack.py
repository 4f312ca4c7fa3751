"""Fit the table `rpi4/tflite-xnnpack`: `python -m shrinkc.latency_tables.makers.rpi4_xnnpack`.

The six figures that google/XNNPACK publishes are all there is, so the prices are mostly priors:
what the hardware allows, and what `rpi4/tflite-ruy` says of the same board's memory. The figures
decide how fast its products really are.
"""

from __future__ import annotations

from collections.abc import Sequence

from shrinkc.latency_tables.kernels.features import Tiles
from shrinkc.latency_tables.kernels.registry import XNNPACK
from shrinkc.latency_tables.makers import networks
from shrinkc.latency_tables.makers.fit import Expectation, Fit, Sample
from shrinkc.latency_tables.makers.rpi4_ruy import CACHES
from shrinkc.latency_tables.makers.script import fitted, run_without_data
from shrinkc.latency_tables.meta import ModelShape, TableMeta
from shrinkc.latency_tables.table import LatencyTable

TARGET = "rpi4/tflite-xnnpack"

# Kernels that XNNPACK picks on a Cortex-A72 (src/configs/gemm-config.c): 8 output channels by 4
# pixels in float, 8 by 2 and 8 deep in 8 bits. Depthwise: 4 and 16 channels at a time.
TILES = {"fp32": Tiles(8, 4, 1, 4), "int8": Tiles(8, 2, 8, 16)}

META = TableMeta(
    kind="fitted",
    device="Raspberry Pi 4 Model B",
    soc="Broadcom BCM2711, 4 Cortex-A72 cores",
    runtime="TensorFlow Lite with XNNPACK (64-bit), today's default",
    runtime_version="XNNPACK of 2022-02",
    threads=4,
    governor="unknown",
    precisions=("fp32", "int8"),
    batch=1,
    date="2022-02-08",
    source="README of google/XNNPACK, end2end-bench, RPi 4 (BCM2711, ARM64), multi-threaded: "
    "MobileNetV1, V2, V3 large and V3 small in float, MobileNetV1 and V2 in 8 bits",
    licence="BSD-3-Clause",
    note="rests on six published figures: validation.csv predicts each from the others of its "
    "precision; networks unlike MobileNets may be off by a third or more, and the clock (1.5 or "
    "1.8 GHz) is not stated. Measure your own board and correct the table with shrinkc calibrate",
    model=ModelShape(XNNPACK, TILES, CACHES),
)

# Floors of products and depthwise as in `rpi4_ruy`: four cores at 1.8 GHz, one 4-wide FMA a
# cycle. Weights that are read again come from L2, which gives the four cores at most 16 bytes a
# cycle together: 29 GB/s, 0.035 µs per KB; a third of that is usual. Weights fetched once come from
# memory: at most 12.8 GB/s, usually 4. Bytes moved cost what they cost `rpi4/tflite-ruy`. An
# exponential takes some 7 cycles on each of the four cores.
_DRAM = 0.078
_COMMON = {
    "streamed": Expectation(0.035, 0.1),
    "activations": Expectation(0.0, 0.5),
    "uncached": Expectation(0.0, 0.28),
    "weights": Expectation(_DRAM, 0.25),
    "pooling": Expectation(0.0, 0.5),
    "elementwise": Expectation(_DRAM, 0.4),
    "functions": Expectation(0.0, 1.0),
    "operator": Expectation(0.0, 5.0),
    "network": Expectation(0.0, 300.0),
}
EXPECTED = {
    "fp32": {
        "gemm": Expectation(34.7, 43.0),
        "depthwise": Expectation(69.4, 140.0),
        **_COMMON,
    },
    "int8": {
        "gemm": Expectation(17.4, 27.0),
        "depthwise": Expectation(34.7, 140.0),
        **_COMMON,
    },
}


def main(arguments: Sequence[str] | None = None) -> None:
    run_without_data(TARGET, build, arguments)


def build() -> LatencyTable:
    """The table of the published figures."""
    fits = {p: Fit(XNNPACK, TILES[p], CACHES, EXPECTED[p]) for p in META.precisions}
    return fitted(TARGET, META, fits, published())


def published() -> tuple[Sample, ...]:
    """224×224, milliseconds."""
    v1, v2 = networks.mobilenet_v1, networks.mobilenet_v2
    large = networks.mobilenet_v3("large", 1.0, 224, "fp32")
    small = networks.mobilenet_v3("small", 1.0, 224, "fp32")
    return (
        Sample("mobilenet-v1", "mobilenet-v1", "fp32", v1(1.0, 224, "fp32"), 77.0),
        Sample("mobilenet-v2", "mobilenet-v2", "fp32", v2(1.0, 224, "fp32"), 46.0),
        Sample("mobilenet-v3-large", "mobilenet-v3", "fp32", large, 40.0),
        Sample("mobilenet-v3-small", "mobilenet-v3", "fp32", small, 15.0),
        Sample("mobilenet-v1", "mobilenet-v1", "int8", v1(1.0, 224, "int8"), 24.0),
        Sample("mobilenet-v2", "mobilenet-v2", "int8", v2(1.0, 224, "int8"), 17.0),
    )


if __name__ == "__main__":
    main()
