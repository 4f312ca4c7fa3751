"""Fit the Pixel 4's CPU: `python -m shrinkc.latency_tables.makers.pixel4_cpu --data DIR`.

DIR holds `tflite_cnn_e2e.csv` of qed-usc/mobile-ml-benchmark (MIT): whole networks end to end in
microseconds. Their operators are those of the files that shrinkc itself makes of these networks
(see `sources.lists`), so that an estimate of a network costs what the table was fitted to. Makes
`pixel4/tflite-cpu` (the large core), `-t2` and `-t3` (medium cores) and `-t4` (small cores).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shrinkc.errors import TableError
from shrinkc.latency_tables.kernels.features import Caches, Tiles
from shrinkc.latency_tables.kernels.registry import RUY
from shrinkc.latency_tables.makers.fit import Expectation, Fit, Sample
from shrinkc.latency_tables.makers.script import fitted, read_csv, run_all
from shrinkc.latency_tables.makers.sources.lists import in_precision, read_lists
from shrinkc.latency_tables.meta import ModelShape, TableMeta
from shrinkc.latency_tables.table import LatencyTable


@dataclass(frozen=True)
class Cores:
    """`count` threads, one on each of these; `slower`: than the large core at its arithmetic, all
    together, at the least and as expected."""

    column: str  # of the source
    count: int
    soc: str
    slower: tuple[float, float]


CORES = {
    "pixel4/tflite-cpu": Cores(
        "1large", 1, "its large core (Kryo 485 Gold Prime, Cortex-A76) at 2.84 GHz", (1.0, 1.0)
    ),
    "pixel4/tflite-cpu-t2": Cores(
        "2med", 2, "two medium cores (Kryo 485 Gold, Cortex-A76) at 2.42 GHz", (0.58, 0.65)
    ),
    "pixel4/tflite-cpu-t3": Cores(
        "3med", 3, "three medium cores (Kryo 485 Gold, Cortex-A76) at 2.42 GHz", (0.39, 0.5)
    ),
    # two 4-wide FMAs a cycle in four cycles out of five at most: in-order cores
    "pixel4/tflite-cpu-t4": Cores(
        "4small", 4, "four small cores (Kryo 485 Silver, Cortex-A55) at 1.79 GHz", (0.4, 1.2)
    ),
}

# ruy's NEON kernels: 8×8 blocks in float; 8×8 blocks of 4 deep in 8 bits, with dot products
# (ruy/kernel_arm.h). TFLite's depthwise kernels take 4 and 8 channels at a time.
TILES = {"fp32": Tiles(8, 8, 1, 4), "int8": Tiles(8, 8, 4, 8)}
# The large core, a Cortex-A76: 64 KB L1 data cache, 512 KB L2 of its own.
CACHES = Caches(l1_bytes=64 * 1024, resident_bytes=512 * 1024)

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
    "pooling": Expectation(_DRAM, 0.3),
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
    run_all(CORES, build, arguments)


def build(data: Path, target: str) -> LatencyTable:
    """The table of one of `CORES` from the file in the folder. Raises TableError."""
    cores = CORES[target]
    fits = {precision: fit_of(cores, precision) for precision in EXPECTED}
    return fitted(target, _meta(cores), fits, read_samples(data, cores))


def fit_of(cores: Cores, precision: str) -> Fit:
    return Fit(RUY, TILES[precision], CACHES, _expected(cores, precision))


def _expected(cores: Cores, precision: str) -> dict[str, Expectation]:
    """Memory is the same for all; everything else waits for the cores."""
    least, usual = cores.slower
    return {
        name: Expectation(e.floor if e.floor == _DRAM else least * e.floor, usual * e.prior)
        for name, e in EXPECTED[precision].items()
    }


def read_samples(data: Path, cores: Cores) -> list[Sample]:
    """Every network in both precisions. Raises TableError: unreadable, or a network without
    operators."""
    path, lists = data / "tflite_cnn_e2e.csv", read_lists("qed")
    rows = sorted(read_csv(path, "networks"), key=lambda row: row.get("model", ""))
    samples: list[Sample] = []
    try:
        for precision, kind in (("fp32", "float"), ("int8", "quant")):
            for row in rows:
                name, us = row["model"], float(row[f"pixel4|{cores.column}|{kind}|mean"])
                if name not in lists:
                    raise TableError(f"{name} has no operators; see benchmarks.operator_lists")
                ops = in_precision(lists[name], precision)
                samples.append(Sample(name, family(name), precision, ops, us / 1e3))
    except (KeyError, ValueError) as error:
        raise TableError(f"{path}: not a list of networks: {error!r}") from error
    return samples


def _meta(cores: Cores) -> TableMeta:
    return TableMeta(
        kind="fitted",
        device="Google Pixel 4",
        soc=f"Qualcomm Snapdragon 855, {cores.soc}",
        runtime="TensorFlow Lite, built-in kernels on ruy, no delegate",
        runtime_version="2.10",
        threads=cores.count,
        governor="unknown",
        precisions=("fp32", "int8"),
        batch=1,
        date="unknown",
        source="github.com/qed-usc/mobile-ml-benchmark at 40ba833, tflite_cnn_e2e.csv, columns "
        f"pixel4|{cores.column}|float|mean and |quant|mean; operators as shrinkc writes them",
        licence="MIT",
        note="the source does not name the kernels; that they are ruy's is inferred: a model of "
        "XNNPACK's kernels misses its float figures by ten times as much",
        model=ModelShape(RUY, TILES, CACHES),
    )


def family(name: str) -> str:
    """The family that a network is held out with; its own where it has no relatives."""
    return next((label for start, label in _FAMILIES if name.startswith(start)), name)


if __name__ == "__main__":
    main()
