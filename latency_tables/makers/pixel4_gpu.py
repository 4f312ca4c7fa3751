"""Build `pixel4/tflite-gpu`: `python -m shrinkc.latency_tables.makers.pixel4_gpu --data DIR`.

DIR holds `tflite_cnn_ops_gpu.csv` and `tflite_cnn_e2e.csv` of qed-usc/mobile-ml-benchmark (MIT), in
microseconds: every operator of 71 networks on the mobile GPU, and the networks end to end. An
operator that several networks have gets the median of its timings. A network takes longer than its
operators:

    measured = network + scale · Σ operators

by least squares on relative errors; `network` goes into the table as what an inference costs,
`scale` into its corrections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from shrinkc.errors import TableError
from shrinkc.latency_tables.correct import ALL, Correction, Corrections
from shrinkc.latency_tables.files import Validation
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.makers.script import read_csv, run
from shrinkc.latency_tables.makers.sources.op_listing import read_timed
from shrinkc.latency_tables.measured import Measurement
from shrinkc.latency_tables.meta import TableMeta
from shrinkc.latency_tables.table import NETWORK, LatencyTable

TARGET = "pixel4/tflite-gpu"
OPERATOR_COLUMN, NETWORK_COLUMN = "pixel4|gpu|float", "pixel4|gpu|float|mean"
PRECISION = "fp32"  # of the file; the delegate computes in 16 bits where it may

META = TableMeta(
    kind="measured",
    device="Google Pixel 4",
    soc="Qualcomm Snapdragon 855, its GPU (Adreno 640)",
    runtime="TensorFlow Lite, GPU delegate",
    runtime_version="2.10",
    threads=1,
    governor="unknown",
    precisions=(PRECISION,),
    batch=1,
    date="unknown",
    source="qed-usc/mobile-ml-benchmark, commit 40ba833: operators and whole networks",
    licence="MIT",
    note="what is merged into an operator's kernel (activations, most sums) is part of its time; "
    "sums and scalings with kernels of their own are not listed and are priced by their bytes",
    cliffs="cpu",
)

Timed = Mapping[str, Sequence[tuple[OpKey, float]]]


def build(folder: Path) -> LatencyTable:
    """Raises TableError: a file is missing or damaged."""
    timed = read_timed(folder / "tflite_cnn_ops_gpu.csv", OPERATOR_COLUMN, PRECISION)
    return table_of(timed, _networks(folder / "tflite_cnn_e2e.csv"))


def _networks(path: Path) -> dict[str, float]:
    try:
        return {row["model"]: float(row[NETWORK_COLUMN]) for row in read_csv(path, "networks")}
    except (KeyError, ValueError) as error:
        raise TableError(f"{path}: not a list of networks: {error!r}") from error


def table_of(timed: Timed, networks_us: Mapping[str, float]) -> LatencyTable:
    """The table, and every network predicted from the operators of all others."""
    validation = tuple(
        Validation(name, PRECISION, us / 1e3, _left_out(name, timed, networks_us), "network")
        for name, us in sorted(networks_us.items())
        if name in timed
    )
    return _table(timed, networks_us, validation)


def _left_out(name: str, timed: Timed, networks_us: Mapping[str, float]) -> float:
    others = {other: operators for other, operators in timed.items() if other != name}
    table = _table(others, networks_us)
    operators_ms = sum(table.estimate(key).ms for key, _ in timed[name])
    return table.network_overhead_ms(PRECISION) + operators_ms


def _table(
    timed: Timed, networks_us: Mapping[str, float], validation: tuple[Validation, ...] = ()
) -> LatencyTable:
    times: dict[OpKey, list[float]] = {}
    for operators in timed.values():
        for key, us in operators:
            times.setdefault(key, []).append(us)
    network_us, scale = _network_and_scale(timed, networks_us)
    measured = {
        key: Measurement(round(median(found), 3), runs=len(found)) for key, found in times.items()
    }
    measured[OpKey(NETWORK, 1, 1, precision=PRECISION)] = Measurement(network_us)
    corrections = {PRECISION: Corrections({ALL: Correction(scale, 0.0)})}
    return LatencyTable(TARGET, META, measured, validation=validation, corrections=corrections)


def _network_and_scale(timed: Timed, networks_us: Mapping[str, float]) -> tuple[float, float]:
    names = [name for name in timed if name in networks_us]
    if len(names) < 2:
        raise TableError("fewer than two networks have both operators and a time of their own")
    sums = np.array([sum(us for _, us in timed[name]) for name in names])
    whole = np.array([networks_us[name] for name in names])
    system = np.stack([1 / whole, sums / whole], 1)
    network, scale = np.linalg.lstsq(system, np.ones(len(names)))[0]
    return round(float(network), 2), float(scale)


def main(arguments: Sequence[str] | None = None) -> None:
    run(TARGET, build, arguments)


if __name__ == "__main__":
    main()
