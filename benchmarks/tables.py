"""How well the shipped latency tables predict what their fits had not seen.

    python -m benchmarks.tables --data DIR

DIR/latency holds the published measurements that the tables come from. Every fitted table is made
again from them, so that the errors are those of the present code; a table that ships other figures
is named. "Network held out" means that the network was left out of the fit that predicts it, and
"family held out" that all its relatives were, too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.shared import results
from benchmarks.shared.common import ROOT, add_data_argument, print_table
from shrinkc.compiler.cost.predict import predict_keys
from shrinkc.latency_tables.makers import (
    boards_ruy,
    pixel3,
    pixel4_cpu,
    pixel4_gpu,
    rpi4_ruy,
    rpi4_xnnpack,
    rpi5_xnnpack,
    v100,
    xnnpack_t1,
)
from shrinkc.latency_tables.makers.fit import Sample
from shrinkc.latency_tables.makers.sources import netspresso
from shrinkc.latency_tables.makers.sources.networks import mobilenet_v2
from shrinkc.latency_tables.store import load_table, read_table
from shrinkc.latency_tables.table import LatencyTable
from shrinkc.latency_tables.tested.accuracy import Accuracy, accuracy

HeldOut = Literal["network", "family", "unlike"]
REPEATS = 9
_UNITS = {"%": "error", " ms": "ms", "": "rank"}


@dataclass(frozen=True)
class Measure:
    """One number and the bar that issue and README set; None where there is none."""

    table: str
    name: str
    reached: float
    bar: float | None = None
    higher_is_better: bool = False
    digits: int = 1
    unit: str = "%"

    @property
    def met(self) -> bool:
        if self.bar is None:
            return True
        return self.reached >= self.bar if self.higher_is_better else self.reached <= self.bar

    def row(self) -> tuple[str, str, str, str, str]:
        """Table, measure, reached, bar, verdict."""
        sign = "≥" if self.higher_is_better else "≤"
        bar = "" if self.bar is None else f"{sign} {self.bar:g}{self.unit}"
        verdict = "" if self.bar is None else ("met" if self.met else "MISSED")
        return self.table, self.name, f"{self.reached:.{self.digits}f}{self.unit}", bar, verdict

    def record(self) -> dict[str, Any]:
        """For the result file, where percentages are fractions."""
        scale = 100 if self.unit == "%" else 1
        return {
            "table": self.table,
            "measure": self.name,
            "unit": "share" if self.name.startswith("within") else _UNITS[self.unit],
            "reached": self.reached / scale,
            "bar": None if self.bar is None else self.bar / scale,
            "higher_is_better": self.higher_is_better,
            "met": self.met,
        }


Section = Callable[[Path], list[Measure]]


def on_pixel4(data: Path) -> list[Measure]:
    """Whole networks as shrinkc compiles them, on one large core and on several of others."""
    measures: list[Measure] = []
    for target in pixel4_cpu.CORES:
        table = pixel4_cpu.build(data / "latency" / "qed_pixel4", target)
        measures.append(_shipped(table))
        alone = target == "pixel4/tflite-cpu"
        for precision, mean, order in (("fp32", 3.0, 0.995), ("int8", 5.0, 0.99)):
            found = _found(table, precision, "network")
            measures += [
                _mean(found, mean if alone else None),
                _measure(found, "within ±10%", found.within_10_percent, None, True, 0),
                _measure(found, "Spearman", found.spearman, order if alone else None, True, 4, ""),
                _mean(_found(table, precision, "family")),
                _inside(table, precision, "network"),
            ]
    return measures


def on_rpi4_with_ruy(data: Path) -> list[Measure]:
    """MLPerf's networks."""
    table = rpi4_ruy.build(data / "latency" / "mlperf_rpi4")
    bars = (("fp32", 4.5, 10.0), ("int8", 1.5, 8.0))
    return [
        _shipped(table),
        *(_mean(_found(table, precision, "network"), network) for precision, network, _ in bars),
        *(_mean(_found(table, precision, "family"), family) for precision, _, family in bars),
    ]


def on_rpi4_with_xnnpack(data: Path) -> list[Measure]:
    """Published figures, and networks unlike them that no part of the fit is of."""
    table = rpi4_xnnpack.build(data / "latency")
    network, family = (_found(table, "fp32", held_out) for held_out in ("network", "family"))
    worst = max(network.worst_percent, family.worst_percent)
    path = data / "latency" / rpi4_xnnpack.FILE
    found = netspresso.read_networks(path, rpi4_xnnpack.DEVICE)
    return [
        _shipped(table),
        _mean(network, 6.0),
        _mean(family, 9.0),
        _measure(network, "worst error, and family", worst, 20.0),
        _mean(_found(table, "fp32", "unlike"), 20.0),
        _each_inside(table, "fp32", found, 90.0),
        _mean(_found(table, "int8", "network")),
        _mean(_found(table, "int8", "unlike")),
        _each_inside(table, "int8", found, 90.0),
    ]


def on_one_core_with_xnnpack(data: Path) -> list[Measure]:
    """MLPerf's networks on servers with such cores."""
    measures: list[Measure] = []
    for target in xnnpack_t1.CORES:
        table = xnnpack_t1.build(data / "latency", target)
        on_pi4 = target.startswith("rpi4")
        measures += [
            _shipped(table),
            _mean(_found(table, "fp32", "network"), 2.5 if on_pi4 else None),
            _mean(_found(table, "fp32", "family"), 7.0 if on_pi4 else None),
            _inside(table, "fp32", "network"),
        ]
    return measures


def on_rpi5_with_xnnpack(data: Path) -> list[Measure]:
    """NetsPresso's networks."""
    table = rpi5_xnnpack.build(data / "latency")
    return [
        _shipped(table),
        _mean(_found(table, "fp32", "network"), 15.0),
        _mean(_found(table, "fp32", "family")),
        _inside(table, "fp32", "network", 90.0),
    ]


def on_boards_with_ruy(data: Path) -> list[Measure]:
    """MLPerf's networks."""
    measures: list[Measure] = []
    for target in boards_ruy.BOARDS:
        table = boards_ruy.build(data / "latency", target)
        measures.append(_shipped(table))
        for precision, bar in (("fp32", 7.0), ("int8", 4.0)):
            measures += [
                _mean(_found(table, precision, "network"), bar if "rk3588" in target else None),
                _mean(_found(table, precision, "family")),
                _inside(table, precision, "network"),
            ]
    return measures


def on_pixel3(data: Path) -> list[Measure]:
    """Nine published figures."""
    table = pixel3.build(data / "latency" / "qed_pixel4")
    found = [_found(table, p, h) for p in table.precisions for h in ("network", "family")]
    return [_shipped(table), *map(_mean, found)]


def on_pixel4_gpu(data: Path) -> list[Measure]:
    """Operators one by one; every network from the operators of the others."""
    table = pixel4_gpu.build(data / "latency" / "qed_pixel4")
    return [_shipped(table), _mean(_found(table, "fp32", "network"))]


def on_v100(data: Path) -> list[Measure]:
    """Single convolutions, a tenth of them held out."""
    samples = v100.read_samples(data / "latency" / "tinynas_v100")
    measures: list[Measure] = []
    for batch in v100.BATCHES:
        measured = v100.of_batch(samples, batch)
        errors: dict[str, list[float]] = {}
        for row in v100.held_out(measured, batch):
            errors.setdefault(row.precision, []).append(100 * abs(row.relative_error))
        for precision, found in errors.items():
            bar = 8.0 if precision == "fp16" and batch in (1, 32) else None
            name = f"mean error, convolutions held out ({len(found)})"
            table = f"v100/tensorrt-b{batch} {precision}"
            measures.append(Measure(table, name, statistics.mean(found), bar))
    return measures


def speed(data: Path) -> list[Measure]:
    """Loading a table, and estimating MobileNetV2 with it; medians."""
    ops, measures = mobilenet_v2(1.0, 224, "fp32"), list[Measure]()
    for target in ("rpi4/tflite-xnnpack", "pixel4/tflite-cpu", "pixel4/tflite-gpu"):
        loading: list[float] = []
        estimating: list[float] = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            table = read_table(ROOT.joinpath("latency_tables", "data", *target.split("/")), target)
            loaded = time.perf_counter()
            for key in ops:
                table.estimate(key)
            loading.append(loaded - started)
            estimating.append(time.perf_counter() - loaded)
        ms = 1e3 * statistics.median(loading), 1e3 * statistics.median(estimating)
        measures += [
            Measure(target, "loading", ms[0], 500.0, unit=" ms"),
            Measure(target, "estimating MobileNetV2", ms[1], 50.0, unit=" ms"),
        ]
    return measures


SECTIONS: tuple[Section, ...] = (
    on_pixel4,
    on_pixel4_gpu,
    on_rpi4_with_ruy,
    on_rpi4_with_xnnpack,
    on_one_core_with_xnnpack,
    on_rpi5_with_xnnpack,
    on_boards_with_ruy,
    on_pixel3,
    on_v100,
    speed,
)


def _found(table: LatencyTable, precision: str, held_out: HeldOut) -> Accuracy:
    found = accuracy(table, precision, held_out)
    if found is None:
        raise SystemExit(f"{table.target} has no {held_out} held out in {precision}")
    return found


def _mean(found: Accuracy, bar: float | None = None) -> Measure:
    return _measure(found, "mean error", found.mean_error_percent, bar)


def _measure(
    found: Accuracy,
    name: str,
    reached: float,
    bar: float | None,
    higher_is_better: bool = False,
    digits: int = 1,
    unit: str = "%",
) -> Measure:
    table = f"{found.target} {found.precision}"
    described = f"{name}, {found.held_out} held out ({found.networks})"
    return Measure(table, described, reached, bar, higher_is_better, digits, unit)


def _inside(
    table: LatencyTable, precision: str, held_out: HeldOut, bar: float | None = None
) -> Measure:
    """The share of measurements within the interval that the table states."""
    rows = [v for v in table.validation if (v.precision, v.held_out) == (precision, held_out)]
    spread = table.spread(precision, 0.0)
    assert spread is not None
    inside = [1 / spread <= v.measured_ms / v.predicted_ms <= spread for v in rows]
    name = f"inside its interval (× or ÷ {spread:.2f}), {held_out} held out ({len(rows)})"
    share = 100 * sum(inside) / len(inside)
    return Measure(f"{table.target} {precision}", name, share, bar, True, 0)


def _each_inside(
    table: LatencyTable, precision: str, samples: Sequence[Sample], bar: float
) -> Measure:
    """The share of networks unlike the fit's within the interval of their own prediction."""
    unlike = {(v.network, v.precision) for v in table.validation if v.held_out == "unlike"}
    mine = [s for s in samples if s.precision == precision and (s.network, precision) in unlike]
    inside = 0
    for one in mine:
        keys = ((key.op, key, 1) for key in one.ops)
        found = predict_keys(keys, table, precision)
        assert found.total_ms_low is not None
        assert found.total_ms_high is not None
        inside += found.total_ms_low <= one.measured_ms <= found.total_ms_high
    name = f"inside their own intervals, unlike the fit's ({len(mine)})"
    return Measure(f"{table.target} {precision}", name, 100 * inside / len(mine), bar, True, 0)


def _shipped(built: LatencyTable) -> Measure:
    """By how much the shipped table's predictions differ from the ones made now."""
    shipped = {(v.network, v.precision, v.held_out): v for v in load_table(built.target).validation}
    rows = built.validation
    if {(v.network, v.precision, v.held_out) for v in rows} != set(shipped):
        raise SystemExit(f"{built.target} ships other networks than the data have: build it again")
    largest = max(
        abs(v.predicted_ms / shipped[v.network, v.precision, v.held_out].predicted_ms - 1)
        for v in rows
    )
    return Measure(built.target, "shipped predictions differ by at most", 100 * largest, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_argument(parser)
    data: Path = parser.parse_args().data
    measures = [measure for section in SECTIONS for measure in section(data)]
    print_table(("table", "measure", "reached", "bar", ""), [m.row() for m in measures])
    rows = [measure.record() for measure in measures]
    results.write(results.result_path("tables"), "tables", rows, ("numpy", "scipy"))
    missed = [measure for measure in measures if not measure.met]
    if missed:
        sys.exit(f"{len(missed)} of {len(measures)} measures missed their bar")


if __name__ == "__main__":
    main()
