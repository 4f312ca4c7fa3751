"""Fit `rpi4/tflite-xnnpack`: `python -m shrinkc.latency_tables.makers.rpi4_xnnpack --data DIR`.

Fitted in float are four figures that google/XNNPACK publishes and three plain CNNs of
`DIR/netspresso_pi/pi4b_pi5.csv` (see `sources.netspresso`). What they cannot tell apart follows the
same core alone (`xnnpack_t1`, from `DIR/mlperf_arm_xnnpack`). In 8 bits there are two figures, and
priors from the hardware.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from shrinkc.latency_tables.kernels.features import Caches, Tiles
from shrinkc.latency_tables.kernels.registry import XNNPACK
from shrinkc.latency_tables.makers import xnnpack_t1
from shrinkc.latency_tables.makers.fit import Donor, Expectation, Fit, Sample
from shrinkc.latency_tables.makers.script import fitted, run
from shrinkc.latency_tables.makers.sources import netspresso, networks
from shrinkc.latency_tables.meta import ModelShape, TableMeta
from shrinkc.latency_tables.table import LatencyTable

TARGET = "rpi4/tflite-xnnpack"
CORE = "rpi4/tflite-xnnpack-t1"
FILE = Path("netspresso_pi", "pi4b_pi5.csv")
DEVICE = "Raspberry Pi 4B"  # as the file names it

# Kernels that XNNPACK picks on a Cortex-A72 (src/configs/gemm-config.c): 8 output channels by 4
# pixels in float, 8 by 2 and 8 deep in 8 bits. Depthwise: 4 and 16 channels at a time.
TILES = {"fp32": Tiles(8, 4, 1, 4), "int8": Tiles(8, 2, 8, 16)}
# Four cores share the weights in 1 MB of L2, three quarters of which are left beside activations.
CACHES = Caches(l1_bytes=768 * 1024, resident_bytes=1024 * 1024)

META = TableMeta(
    kind="fitted",
    device="Raspberry Pi 4 Model B",
    soc="Broadcom BCM2711, 4 Cortex-A72 cores",
    runtime="TensorFlow Lite with XNNPACK (64-bit), today's default",
    runtime_version="XNNPACK of 2022-02; tflite-runtime 2.14's operators",
    threads=4,
    governor="unknown",
    precisions=("fp32", "int8"),
    batch=1,
    date="2022-02-08",
    source="README of google/XNNPACK, end2end-bench, RPi 4 (BCM2711, ARM64), multi-threaded: "
    "MobileNetV1, V2, V3 large and V3 small in float, MobileNetV1 and V2 in 8 bits; "
    "Nota-NetsPresso/netspresso-trainer at cdefe125, docs/benchmarks/device_matrix/tflite.md: "
    "MobileNetV3 large, ResNet-18 and ResNet-50 in float; priors from " + CORE,
    licence="BSD-3-Clause, Apache-2.0",
    note="8 bits rest on two figures. The clock (1.5 or 1.8 GHz) is not stated. GELU costs what "
    "tflite-runtime 2.14 takes for it, 106 instructions a value on one core; ai-edge-litert 2 "
    "takes 8. Measure your own board and correct the table with shrinkc calibrate",
    model=ModelShape(XNNPACK, TILES, CACHES),
)

# Floors of products and depthwise as in `rpi4_ruy`: four cores at 1.8 GHz, one 4-wide FMA a
# cycle. Weights that are read again come from L2, which gives the four cores at most 16 bytes a
# cycle together: 29 GB/s, 0.035 µs per KB; a third of that is usual. Weights fetched once come from
# memory: at most 12.8 GB/s, usually 4. Bytes moved cost what they cost `rpi4/tflite-ruy`. A core
# decodes three instructions a cycle, and usually executes one; four share XNNPACK's own kernels.
_DRAM = 0.078
_COMMON = {
    "streamed": Expectation(0.035, 0.1),
    "activations": Expectation(0.0, 0.5),
    "uncached": Expectation(0.0, 0.28),
    "weights": Expectation(_DRAM, 0.25),
    "elementwise": Expectation(_DRAM, 0.4),
    "vector": Expectation(46.0, 139.0),
    "built_in": Expectation(185.0, 556.0),
    "operator": Expectation(0.0, 5.0),
    "network": Expectation(0.0, 300.0),
}
EXPECTED = {
    "fp32": {
        "gemm": Expectation(34.7, 43.0),
        "tokens": Expectation(0.0, 4.0),
        "depthwise": Expectation(69.4, 140.0),
        **_COMMON,
    },
    "int8": {
        "gemm": Expectation(17.4, 27.0),
        "tokens": Expectation(0.0, 3.0),
        "depthwise": Expectation(34.7, 140.0),
        **_COMMON,
    },
}
SHARED: Mapping[str, float] = dict.fromkeys(  # by four cores
    ("gemm", "tokens", "depthwise", "vector"), 1 / 4
)


def main(arguments: Sequence[str] | None = None) -> None:
    run(TARGET, build, arguments)


def build(data: Path) -> LatencyTable:
    """The table of the published figures, and of the results in the folder. Raises TableError."""
    fits = {p: Fit(XNNPACK, TILES[p], CACHES, EXPECTED[p]) for p in META.precisions}
    fits["fp32"] = replace(fits["fp32"], donors=(donor(data, CORE, CACHES),))
    found = netspresso.read_networks(data / FILE, DEVICE)
    plain = [s for s in found if s.precision == "fp32" and s.family in netspresso.PLAIN]
    unlike = [s for s in found if s not in plain]
    return fitted(TARGET, META, fits, (*published(), *plain), unlike)


def donor(data: Path, target: str, caches: Caches) -> Donor:
    """One such core, when four share the work. Raises TableError."""
    core = xnnpack_t1.CORES[target]
    alone = replace(xnnpack_t1.fit_of(core), caches=caches)
    return Donor(alone, tuple(xnnpack_t1.read_samples(data, core)), SHARED)


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
