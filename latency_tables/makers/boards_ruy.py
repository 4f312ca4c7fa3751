"""Fit boards with ruy: `python -m shrinkc.latency_tables.makers.boards_ruy --data DIR`.

DIR holds the folders `mlperf_boards_ruy` with `singlestream.csv` (MLPerf Inference v3.0, from
mlcommons/cm4mlperf-results, Apache-2.0) and `mlperf_rpi4` (see `rpi4_ruy`). Makes
`rk3588/tflite-ruy`, `vim4/tflite-ruy` and `odroid-n2/tflite-ruy`.

These kernels are the same on every board, so that what their networks cannot tell apart is taken
from the others: a board's prior is the mean of what fits to the other boards say, each scaled to
its speed. A network that is held out is held out of the others' fits, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shrinkc.latency_tables.kernels.features import Caches, Tiles
from shrinkc.latency_tables.kernels.registry import RUY
from shrinkc.latency_tables.makers import rpi4_ruy
from shrinkc.latency_tables.makers.fit import NETWORK_ERROR, Donor, Expectation, Fit
from shrinkc.latency_tables.makers.script import fitted, run_all
from shrinkc.latency_tables.makers.sources.mlperf import read_results
from shrinkc.latency_tables.meta import ModelShape, TableMeta
from shrinkc.latency_tables.table import LatencyTable

FILE = Path("mlperf_boards_ruy", "singlestream.csv")
# ruy's 8-bit kernel with dot products, where the core has them; else as in `rpi4_ruy`.
DOT_PRODUCTS = {**rpi4_ruy.TILES, "int8": Tiles(8, 8, 4, 8)}


@dataclass(frozen=True)
class Board:
    """`gmacs` are the peak of its four large cores in float and in 8 bits, a ns; `memory_gbs` the
    peak of its memory; `noise` is how well its timings in float agree with each other."""

    device: str  # as the results name it
    name: str
    soc: str
    tiles: Mapping[str, Tiles]
    caches: Caches
    gmacs: Mapping[str, float]
    memory_gbs: float
    noise: float = NETWORK_ERROR


# Cortex-A76 at 2.4 GHz: two 4-wide FMAs, or two dot products of 16, a cycle. Cortex-A73 at 2.2 and
# 2.4 GHz: one 4-wide FMA; 8 multiply-accumulates of 8 bits.
BOARDS = {
    "rk3588/tflite-ruy": Board(
        "Firefly-RK3588S (firefly)",
        "Firefly with RK3588S",
        "Rockchip RK3588S, 4 Cortex-A76 at 2.4 GHz and 4 Cortex-A55",
        DOT_PRODUCTS,
        Caches(l1_bytes=64 * 1024, resident_bytes=512 * 1024),
        {"fp32": 76.8, "int8": 307.2},
        34.1,  # LPDDR4X-4266, 64 bits
        0.15,
    ),
    "vim4/tflite-ruy": Board(
        "Khadas VIM4 (vim4)",
        "Khadas VIM4",
        "Amlogic A311D2, 4 Cortex-A73 at 2.2 GHz and 4 Cortex-A53",
        rpi4_ruy.TILES,
        Caches(l1_bytes=32 * 1024, resident_bytes=512 * 1024),
        {"fp32": 35.2, "int8": 70.4},
        17.1,
        0.06,
    ),
    "odroid-n2/tflite-ruy": Board(
        "Odroid N2+ (odroid)",
        "Odroid N2+",
        "Amlogic S922X, 4 Cortex-A73 at 2.4 GHz and 2 Cortex-A53",
        rpi4_ruy.TILES,
        Caches(l1_bytes=32 * 1024, resident_bytes=512 * 1024),
        {"fp32": 38.4, "int8": 76.8},
        10.6,  # DDR4-2640, 32 bits
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    run_all(BOARDS, build, arguments)


def build(data: Path, target: str) -> LatencyTable:
    """The table of one of `BOARDS` from the results in the folder. Raises TableError."""
    board = BOARDS[target]
    pi = rpi4_ruy.read_samples(data / "mlperf_rpi4" / "rpi4_singlestream.csv")
    others = [(b, read_results(data / FILE, {b.device: 1.0})) for b in BOARDS.values()]
    fits: dict[str, Fit] = {}
    for precision, expected in rpi4_ruy.EXPECTED.items():
        noise = board.noise if precision == "fp32" else NETWORK_ERROR
        loose = {name: replace(e, floor=0.0) for name, e in expected.items()}
        known = [(rpi4_ruy.TILES, rpi4_ruy.CACHES, pi)]
        known += [(b.tiles, b.caches, samples) for b, samples in others if b is not board]
        donors = tuple(
            Donor(
                Fit(RUY, tiles[precision], caches, loose, network_error=noise), tuple(samples)
            ).of(precision)
            for tiles, caches, samples in known
        )
        floors = _expected(board, precision)
        fits[precision] = Fit(RUY, board.tiles[precision], board.caches, floors, donors, noise)
    return fitted(target, _meta(board), fits, read_results(data / FILE, {board.device: 1.0}))


def _expected(board: Board, precision: str) -> dict[str, Expectation]:
    """The floors are this board's. The priors are replaced by what the others say."""
    per_mmac, per_kb = 1e3 / board.gmacs[precision], 1 / board.memory_gbs
    floors = {"gemm": per_mmac, "depthwise": 2 * per_mmac}
    floors |= dict.fromkeys(("weights", "vector_weights", "elementwise", "pooling"), per_kb)
    return {
        name: Expectation(floors.get(name, 0.0), expected.prior)
        for name, expected in rpi4_ruy.EXPECTED[precision].items()
    }


def _meta(board: Board) -> TableMeta:
    return TableMeta(
        kind="fitted",
        device=board.name,
        soc=board.soc,
        runtime="TensorFlow Lite, built-in kernels on ruy, no delegate",
        runtime_version="2.11.0",
        threads=4,
        governor="unknown",
        precisions=("fp32", "int8"),
        batch=1,
        date="2023-04",
        source="MLPerf Inference v3.0, submitter Krai, single stream, through "
        "mlcommons/cm4mlperf-results at 84d8b84c",
        licence="Apache-2.0",
        note="the source does not state the threads; four is the harness's default. Timings in "
        "float are noisy: a smaller network sometimes took longer than a larger one",
        model=ModelShape(RUY, board.tiles, board.caches),
    )


if __name__ == "__main__":
    main()
