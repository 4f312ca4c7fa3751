"""Fit the table `pixel3`: `python -m shrinkc.latency_tables.makers.pixel3 --data DIR`.

Nine figures of MobileNetV3 are published for the Pixel 3. What they cannot tell apart follows the
Pixel 4's large core, whose networks DIR holds (see `pixel4_cpu`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from shrinkc.latency_tables.kernels.features import Caches, Tiles
from shrinkc.latency_tables.kernels.registry import RUY
from shrinkc.latency_tables.makers import pixel4_cpu
from shrinkc.latency_tables.makers.fit import Donor, Expectation, Fit, Sample
from shrinkc.latency_tables.makers.script import fitted, run
from shrinkc.latency_tables.makers.sources.networks import mobilenet_v3
from shrinkc.latency_tables.meta import ModelShape, TableMeta
from shrinkc.latency_tables.table import LatencyTable

TARGET = "pixel3"
# Without dot products, which the Pixel 4's core has.
TILES = {"fp32": Tiles(8, 8, 1, 4), "int8": Tiles(4, 4, 16, 8)}
# Kryo 385 Gold (Cortex-A75): 64 KB L1 data cache, 256 KB L2 of its own.
CACHES = Caches(l1_bytes=64 * 1024, resident_bytes=256 * 1024)

META = TableMeta(
    kind="fitted",
    device="Google Pixel 3",
    soc="Qualcomm Snapdragon 845, a large core (Kryo 385 Gold, Cortex-A75) at 2.8 GHz",
    runtime="TensorFlow Lite; its built-in kernels are assumed",
    runtime_version="unknown",
    threads=1,
    governor="unknown",
    precisions=("fp32", "int8"),
    batch=1,
    date="2019",
    source="tensorflow/models at 0ba83cf0, research/slim/nets/mobilenet/README.md, MobileNetV3 on "
    "the large core of the Pixel 3; priors from pixel4/tflite-cpu",
    licence="Apache-2.0, MIT",
    note="nine figures of one family: anything else is the Pixel 4's table, scaled to them",
    model=ModelShape(RUY, TILES, CACHES),
)

# One core at 2.8 GHz with two 4-wide FMAs a cycle: 22.4 GMAC/s, 44.6 µs per MMAC; 16 of 8 bits,
# half of that. Quad-channel LPDDR4X-3733, 64 bits together: 29.9 GB/s, 0.033 µs per KB.
_MEMORY = dict.fromkeys(("weights", "vector_weights", "elementwise", "pooling"), 0.033)
_FLOORS = {
    "fp32": {"gemm": 44.6, "depthwise": 89.2, **_MEMORY},
    "int8": {"gemm": 22.3, "depthwise": 44.6, **_MEMORY},
}
# Nine tenths of the clock, and half as many multiply-accumulates of 8 bits a cycle at best.
_SCALES = {"fp32": {"gemm": 1.0}, "int8": {"gemm": 2.0}}


def main(arguments: Sequence[str] | None = None) -> None:
    run(TARGET, build, arguments)


def build(data: Path) -> LatencyTable:
    """The table, with the networks in the folder for priors. Raises TableError."""
    cores = pixel4_cpu.CORES["pixel4/tflite-cpu"]
    known = pixel4_cpu.read_samples(data, cores)
    fits: dict[str, Fit] = {}
    for precision, floors in _FLOORS.items():
        alike = pixel4_cpu.fit_of(cores, precision)
        samples = tuple(s for s in known if s.precision == precision)
        expected = {
            name: Expectation(floors.get(name, 0.0), max(e.prior, floors.get(name, 0.0)))
            for name, e in alike.expected.items()
        }
        donor = Donor(alike, samples, _SCALES[precision])
        fits[precision] = Fit(RUY, TILES[precision], CACHES, expected, (donor,))
    return fitted(TARGET, META, fits, published())


def published() -> tuple[Sample, ...]:
    """224×224, milliseconds."""

    def v3(
        variant: Literal["large", "small"], width: float, precision: str, ms: float, kind: str = ""
    ) -> Sample:
        ops = mobilenet_v3(variant, width, 224, precision, minimalistic=bool(kind))
        name = f"mobilenet-v3-{variant}{kind}-{width:g}"
        return Sample(name, f"{variant}{kind}", precision, ops, ms)

    return (
        v3("large", 1.0, "fp32", 44.0),
        v3("large", 0.75, "fp32", 34.0),
        v3("small", 1.0, "fp32", 14.4),
        v3("small", 0.75, "fp32", 11.6),
        v3("large", 1.0, "fp32", 35.0, "-minimalistic"),
        v3("small", 1.0, "fp32", 11.0, "-minimalistic"),
        v3("large", 1.0, "int8", 32.0),
        v3("small", 1.0, "int8", 10.7),
        v3("large", 1.0, "int8", 27.0, "-minimalistic"),
    )


if __name__ == "__main__":
    main()
