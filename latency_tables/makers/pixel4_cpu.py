"""Fit `pixel4/tflite-cpu`: `python -m shrinkc.latency_tables.makers.pixel4_cpu --data DIR`.

DIR holds two files of the repository qed-usc/mobile-ml-benchmark (MIT):
`tflite_cnn_e2e.csv`, whole networks end to end in microseconds, and `tflite_cnn_ops_gpu.csv`,
the operators of each (see `op_listing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from shrinkc.errors import TableError
from shrinkc.latency_tables.kernels.features import Caches, Tiles
from shrinkc.latency_tables.kernels.registry import RUY
from shrinkc.latency_tables.makers.fit import Expectation, Fit, Sample
from shrinkc.latency_tables.makers.networks import OpList
from shrinkc.latency_tables.makers.op_listing import read_networks
from shrinkc.latency_tables.makers.script import fitted, read_csv, run
from shrinkc.latency_tables.meta import ModelShape, TableMeta
from shrinkc.latency_tables.table import LatencyTable

TARGET = "pixel4/tflite-cpu"
# One thread on the large core; the mean of the runs, microseconds.
COLUMNS = {"fp32": "pixel4|1large|float|mean", "int8": "pixel4|1large|quant|mean"}

# ruy's NEON kernels: 8×8 blocks in float; 8×8 blocks of 4 deep in 8 bits, with dot products
# (ruy/kernel_arm.h). TFLite's depthwise kernels take 4 and 8 channels at a time.
TILES = {"fp32": Tiles(8, 8, 1, 4), "int8": Tiles(8, 8, 4, 8)}
# The large core, a Cortex-A76: 64 KB L1 data cache, 512 KB L2 of its own.
CACHES = Caches(l1_bytes=64 * 1024, resident_bytes=512 * 1024)

META = TableMeta(
    kind="fitted",
    device="Google Pixel 4",
    soc="Qualcomm Snapdragon 855, its large core (Kryo 485 Gold Prime, Cortex-A76) at 2.84 GHz",
    runtime="TensorFlow Lite, built-in kernels on ruy, no delegate",
    runtime_version="2.10",
    threads=1,
    governor="unknown",
    precisions=("fp32", "int8"),
    batch=1,
    date="unknown",
    source="github.com/qed-usc/mobile-ml-benchmark at 40ba833, tflite_cnn_e2e.csv, columns "
    f"{COLUMNS['fp32']} and {COLUMNS['int8']}; operators from tflite_cnn_ops_gpu.csv",
    licence="MIT",
    note="the source does not name the kernels; that they are ruy's is inferred: a model of "
    "XNNPACK's kernels misses its float figures by ten times as much",
    model=ModelShape(RUY, TILES, CACHES),
)

# One core at 2.84 GHz with two 4-wide FMAs a cycle: 22.7 GMAC/s, 44 µs per MMAC. A depthwise kernel
# loads input and filter for every FMA on two load ports: half of that. LPDDR4X-4266 on 64 bits:
# 34 GB/s, 0.03 µs per KB. The reference kernel of grouped convolutions: some 2 cycles for a
# multiply-accumulate, 6 to begin its loop. An exponential: some 15 cycles.
_DRAM = 0.03
_COMMON = {
    "activations": Expectation(0.0, 0.06),
    "uncached": Expectation(0.0, 0.1),
    "weights": Expectation(_DRAM, 0.2),
    "vector_weights": Expectation(_DRAM, 0.06),
    "patch_rows": Expectation(0.0, 5.0),
    "pooling": Expectation(0.0, 0.3),
    "elementwise": Expectation(_DRAM, 0.1),
    "functions": Expectation(0.0, 5.0),
    "operator": Expectation(0.0, 1.0),
    "network": Expectation(0.0, 300.0),
    "grouped": Expectation(0.0, 700.0),
    "grouped_taps": Expectation(0.0, 2100.0),
}
EXPECTED = {
    "fp32": {
        "gemm": Expectation(44.0, 50.0),
        "deep_gemm": Expectation(0.0, 10.0),
        "outputs": Expectation(0.0, 0.2),
        "depthwise": Expectation(88.0, 180.0),
        **_COMMON,
    },
    # two dot products a cycle, 16 multiply-accumulates each: 91 GMAC/s, 11 µs per MMAC
    "int8": {
        "gemm": Expectation(11.0, 13.0),
        "deep_gemm": Expectation(0.0, 3.0),
        "outputs": Expectation(0.0, 0.8),
        "depthwise": Expectation(22.0, 200.0),
        **_COMMON,
    },
}
# Networks by what their names begin with; families are held out together.
_FAMILIES = (
    *(("fdmobilenet", "fdmobilenet"), ("mobilenetv3", "mobilenetv3")),
    *(("mobilenetv2", "mobilenetv2"), ("mobilenet", "mobilenetv1")),
    *(("mnasnet", "nas"), ("proxylessnas", "nas"), ("efficientnet", "efficientnet")),
    *(("squeeze", "squeezenet"), ("densenet", "densenet"), ("peleenet", "densenet")),
    *(("sepreresnet", "preresnet"), ("preresnet", "preresnet"), ("seresnet", "resnet")),
    *(("diracnet", "resnet"), ("resnext", "resnext"), ("resnet", "resnet"), ("regnet", "regnet")),
    ("hrnet", "hrnet"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    run(TARGET, build, arguments)


def build(data: Path) -> LatencyTable:
    """The table of the two files in the folder. Raises TableError."""
    fits = {p: Fit(RUY, TILES[p], CACHES, EXPECTED[p]) for p in META.precisions}
    return fitted(TARGET, META, fits, read_samples(data))


def read_samples(data: Path) -> list[Sample]:
    """Every network in both precisions. Raises TableError: unreadable, or a network without
    operators."""
    path = data / "tflite_cnn_e2e.csv"
    rows = sorted(read_csv(path, "networks"), key=lambda row: row.get("model", ""))
    operators = {p: read_networks(data / "tflite_cnn_ops_gpu.csv", p) for p in META.precisions}
    try:
        return [
            _sample(row["model"], p, float(row[COLUMNS[p]]), operators[p])
            for p in META.precisions
            for row in rows
        ]
    except (KeyError, ValueError) as error:
        raise TableError(f"{path}: not a list of networks: {error!r}") from error


def _sample(name: str, precision: str, us: float, operators: Mapping[str, OpList]) -> Sample:
    if name not in operators:
        raise TableError(f"network {name} has no operators in tflite_cnn_ops_gpu.csv")
    return Sample(name, family(name), precision, operators[name], us / 1e3)


def family(name: str) -> str:
    """The family that a network is held out with; its own where it has no relatives."""
    return next((label for start, label in _FAMILIES if name.startswith(start)), name)


if __name__ == "__main__":
    main()
