"""Fit the table `rpi4/tflite-ruy`: `python -m shrinkc.latency_tables.makers.rpi4_ruy --data DIR`.

DIR holds `rpi4_singlestream.csv`: one row for each single-stream result on a Raspberry Pi 4 in
MLPerf Inference (repositories mlcommons/inference_results_*, Apache-2.0), with columns `round`,
`system`, `model` and `p50_ms`, the 50th percentile of the run's `mlperf_log_summary.txt`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shrinkc.errors import TableError
from shrinkc.latency_tables.kernels.features import Caches, Tiles
from shrinkc.latency_tables.kernels.registry import RUY
from shrinkc.latency_tables.makers.fit import Expectation, Fit, Sample
from shrinkc.latency_tables.makers.script import fitted, read_csv, run
from shrinkc.latency_tables.makers.sources.mlperf import sample
from shrinkc.latency_tables.meta import ModelShape, TableMeta
from shrinkc.latency_tables.table import LatencyTable

TARGET = "rpi4/tflite-ruy"
ROUND = "v2.1"  # the latest round that ran this version on all its networks
SYSTEM = "rpi4-tflite-v2.7.1-ruy"

# ruy's NEON kernels without dot products: 8×8 blocks in float; 4×4 blocks of 16 deep in 8 bits
# (ruy/kernel_arm.h). TFLite's depthwise kernels take 4 and 8 channels at a time.
TILES = {"fp32": Tiles(8, 8, 1, 4), "int8": Tiles(4, 4, 16, 8)}
# Cortex-A72: 32 KB L1 data cache. BCM2711: 1 MB L2; two tensors of half of it stay there.
CACHES = Caches(l1_bytes=32 * 1024, resident_bytes=512 * 1024)

META = TableMeta(
    kind="fitted",
    device="Raspberry Pi 4 Model B",
    soc="Broadcom BCM2711, 4 Cortex-A72 cores at 1.8 GHz",
    runtime="TensorFlow Lite, built-in kernels on ruy, no delegate",
    runtime_version="2.7.1",
    threads=4,
    governor="unknown",
    precisions=("fp32", "int8"),
    batch=1,
    date="2022-09",
    source="MLPerf Inference v2.1, mlcommons/inference_results_v2.1, submitter Krai, system "
    f"{SYSTEM}, single stream, 50th percentile",
    licence="Apache-2.0",
    model=ModelShape(RUY, TILES, CACHES),
)

# Four cores at 1.8 GHz with one 4-wide FMA a cycle: 28.8 GMAC/s, 34.7 µs per MMAC. A depthwise
# kernel loads input and filter for every FMA on one load port: half of that. LPDDR4-3200 on 32
# bits: 12.8 GB/s, 0.078 µs per KB; 2 to 4 GB/s are usual, less through patches and packing.
# Grouped convolutions run in TFLite's reference kernel, on one core: the table `pixel4/tflite-cpu`
# is fitted to ten networks of them, and its cycles (2.84 GHz) are the prior here at 1.8 GHz.
# Rescaling a result to 8 bits takes some 10 instructions for 4 of them. Exponentials and the
# like run on one core, about 15 cycles each.
_DRAM = 0.078
_COMMON = {
    "activations": Expectation(0.0, 0.4),
    "uncached": Expectation(0.0, 0.25),
    "weights": Expectation(_DRAM, 0.5),
    "vector_weights": Expectation(_DRAM, 0.25),
    "patch_rows": Expectation(0.0, 20.0),
    "pooling": Expectation(_DRAM, 0.5),
    "elementwise": Expectation(_DRAM, 0.5),
    "functions": Expectation(0.0, 8.0),
    "operator": Expectation(0.0, 5.0),
    "network": Expectation(0.0, 300.0),
}
EXPECTED = {
    "fp32": {
        "gemm": Expectation(34.7, 43.0),  # prior: 80% of the peak
        "deep_gemm": Expectation(0.0, 43.0),  # half speed out of L2
        "outputs": Expectation(0.0, 0.2),
        "depthwise": Expectation(69.4, 140.0),
        "grouped": Expectation(0.0, 1080.0),
        "grouped_taps": Expectation(0.0, 3300.0),
        **_COMMON,
    },
    # 16 products take two multiplies and one add of pairs, on two pipes: at most 8 a cycle
    "int8": {
        "gemm": Expectation(17.4, 27.0),
        "deep_gemm": Expectation(0.0, 27.0),
        "outputs": Expectation(0.0, 0.4),
        "depthwise": Expectation(34.7, 140.0),
        "grouped": Expectation(0.0, 820.0),
        "grouped_taps": Expectation(0.0, 5800.0),
        **_COMMON,
    },
}


def main(arguments: Sequence[str] | None = None) -> None:
    run(TARGET, build, arguments)


def build(data: Path) -> LatencyTable:
    """The table of the results in the folder. Raises TableError."""
    fits = {p: Fit(RUY, TILES[p], CACHES, EXPECTED[p]) for p in META.precisions}
    return fitted(TARGET, META, fits, read_samples(data / "rpi4_singlestream.csv"))


def read_samples(path: Path) -> list[Sample]:
    """The rows of `ROUND` and `SYSTEM`. Raises TableError: unreadable, or a network that
    `networks` cannot generate."""
    rows = read_csv(path, "MLPerf results")
    try:
        mine = [row for row in rows if (row["round"], row["system"]) == (ROUND, SYSTEM)]
        samples = [sample(row["model"], float(row["p50_ms"])) for row in mine]
    except (KeyError, ValueError) as error:
        raise TableError(f"{path}: not a list of MLPerf results: {error!r}") from error
    if not samples:
        raise TableError(f"{path}: no result of {SYSTEM} in round {ROUND}")
    return sorted(samples, key=lambda s: s.network)


if __name__ == "__main__":
    main()
