"""Fit XNNPACK on one core: `python -m shrinkc.latency_tables.makers.xnnpack_t1 --data DIR`.

DIR holds `mlperf_arm_xnnpack/fp32_singlestream.csv` (MLPerf Inference v4.0, submitter CTuning, from
mlcommons/cm4mlperf-results, Apache-2.0): image classifiers on servers whose cores are those of the
Raspberry Pi 4 (Graviton1, Cortex-A72) and nearly of the Pi 5 (Graviton2, Neoverse-N1; the Pi has
Cortex-A76). Makes `rpi4/tflite-xnnpack-t1` and `rpi5/tflite-xnnpack-t1`: their times, by the clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shrinkc.latency_tables.kernels.features import Caches, Tiles
from shrinkc.latency_tables.kernels.registry import XNNPACK
from shrinkc.latency_tables.makers.fit import Expectation, Fit, Sample
from shrinkc.latency_tables.makers.script import fitted, run_all
from shrinkc.latency_tables.makers.sources.mlperf import read_results
from shrinkc.latency_tables.meta import ModelShape, TableMeta
from shrinkc.latency_tables.table import LatencyTable

FILE = Path("mlperf_arm_xnnpack", "fp32_singlestream.csv")


@dataclass(frozen=True)
class Core:
    """`servers` ran the same networks on such cores at `measured_ghz`; the board's are at `ghz` and
    finish `fmas` 4-wide multiply-accumulates a cycle; its memory gives one core `memory_gbs`."""

    device: str
    soc: str
    servers: tuple[str, ...]
    measured_ghz: float
    ghz: float
    fmas: int
    memory_gbs: float
    tiles: Tiles  # that XNNPACK picks for it (src/configs/gemm-config.c)
    caches: Caches

    @property
    def slower(self) -> float:
        return self.measured_ghz / self.ghz


CORES = {
    "rpi4/tflite-xnnpack-t1": Core(
        "Raspberry Pi 4 Model B",
        "Broadcom BCM2711, one Cortex-A72 core at 1.8 GHz",
        ("AWS cloud instance a1.metal", "AWS cloud instance a1.xlarge"),
        *(2.3, 1.8, 1, 12.8),
        Tiles(8, 4, 1, 4),
        Caches(l1_bytes=32 * 1024, resident_bytes=512 * 1024),
    ),
    "rpi5/tflite-xnnpack-t1": Core(
        "Raspberry Pi 5",
        "Broadcom BCM2712, one Cortex-A76 core at 2.4 GHz",
        ("AWS cloud instance t4g.2xlarge", "AWS cloud instance t4g.xlarge"),
        *(2.5, 2.4, 2, 17.1),
        Tiles(8, 6, 1, 4),
        Caches(l1_bytes=64 * 1024, resident_bytes=512 * 1024),
    ),
}
# Cycles of a Cortex-A72, which finishes one FMA a cycle: 250 for a thousand multiply-accumulates,
# four fifths of that speed are usual. A depthwise kernel loads input and filter for each. A KB out
# of L2 or memory takes some hundred cycles and more; an exponential some 7.
_CYCLES = {
    **{
        "gemm": 312e3,
        "tokens": 30e3,
        "streamed": 230.0,
        "depthwise": 1000e3,
        "activations": 1150.0,
    },
    **{"uncached": 650.0, "weights": 575.0, "elementwise": 920.0},
    **{"vector": 1e6, "built_in": 1e6, "operator": 11500.0, "network": 690e3},
}


def main(arguments: Sequence[str] | None = None) -> None:
    run_all(CORES, build, arguments)


def build(data: Path, target: str) -> LatencyTable:
    """The table of one of `CORES` from the results in the folder. Raises TableError."""
    core = CORES[target]
    return fitted(target, _meta(core), {"fp32": fit_of(core)}, read_samples(data, core))


def read_samples(data: Path, core: Core) -> list[Sample]:
    """At the clock of the board. Raises TableError."""
    return read_results(data / FILE, dict.fromkeys(core.servers, core.slower))


def fit_of(core: Core) -> Fit:
    return Fit(XNNPACK, core.tiles, core.caches, _expected(core))


def _expected(core: Core) -> Mapping[str, Expectation]:
    per_mmac = 1e3 / (4 * core.fmas * core.ghz)
    floors = {"gemm": per_mmac, "depthwise": 2 * per_mmac}
    floors |= dict.fromkeys(("weights", "elementwise"), 1 / core.memory_gbs)
    floors |= dict.fromkeys(("vector", "built_in"), 1e3 / ((2 + core.fmas) * core.ghz))
    return {
        name: Expectation(floors.get(name, 0.0), cycles / (core.fmas * core.ghz * 1e3))
        for name, cycles in _CYCLES.items()
    }


def _meta(core: Core) -> TableMeta:
    return TableMeta(
        kind="fitted",
        device=core.device,
        soc=core.soc,
        runtime="TensorFlow Lite with XNNPACK (64-bit), today's default",
        runtime_version="master of 2024-03",
        threads=1,
        governor="unknown",
        precisions=("fp32",),
        batch=1,
        date="2024-03",
        source="MLPerf Inference v4.0, submitter CTuning, through mlcommons/cm4mlperf-results at "
        f"84d8b84c: {' and '.join(core.servers)}, single stream, times {core.slower:.3g} for the "
        "clock",
        licence="Apache-2.0",
        note="measured on servers with such cores, whose memory is faster than the board's; that "
        "the source ran one thread is inferred: 4 and 16 cores took the same time",
        model=ModelShape(XNNPACK, {"fp32": core.tiles}, core.caches),
    )


if __name__ == "__main__":
    main()
