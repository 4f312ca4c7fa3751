"""Estimates between measured operators: cliffs survive, extrapolation is told, speed."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise, product
from math import ceil

import numpy as np
import pytest

from shrinkc.errors import TableError
from shrinkc.latency_tables.columns import OpColumns
from shrinkc.latency_tables.interpolate import CLIFFS, Interpolator
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.measured import Measurement
from shrinkc.latency_tables.meta import TableMeta
from shrinkc.latency_tables.table import MIN_MEASURED, NETWORK, LatencyTable

META = TableMeta(
    *("measured", "a board", "a chip", "a runtime", "1", 1, "unknown", ("fp32",), 1),
    *("2026-01", "made up for this test", "Apache-2.0"),
)


def conv(inside: int, out: int, size: int, kernel: int = 1) -> OpKey:
    return OpKey(
        *("conv2d", inside, out, (kernel, kernel)), in_size=(size, size), out_size=(size, size)
    )


def truth_us(key: OpKey) -> float:
    """A machine with tiles of 8 output channels and a price per byte."""
    padded = ceil(key.out_channels / 8) * 8
    macs = padded * key.in_channels * key.kernel[0] ** 2 * key.out_size[0] ** 2
    return 3.0 + macs / 4e3 + (key.input_elements + key.output_elements) / 2e3


GRID = [
    conv(i, o, s, k)
    for i, o, s, k in product((8, 16, 32, 64), (8, 12, 16, 24, 32, 64), (7, 14, 28, 56), (1, 3))
]


@pytest.fixture(scope="module")
def near() -> Interpolator:
    return Interpolator(
        OpColumns.of(GRID), np.array([truth_us(k) for k in GRID]), CLIFFS["cpu"], batch=1
    )


def test_between_measured_operators_the_error_is_small(near: Interpolator) -> None:
    asked = [conv(i, o, s, k) for i, o, s, k in product((24, 48), (40, 48), (10, 20, 40), (1, 3))]
    errors = [abs(near.latency_us(k) / truth_us(k) - 1) for k in asked]
    assert np.mean(errors) < 0.05
    assert max(errors) < 0.2


def test_a_measured_operator_is_given_back(near: Interpolator) -> None:
    for key in GRID[::17]:
        assert near.latency_us(key) == pytest.approx(truth_us(key), rel=0.02)


def test_a_cliff_between_widths_survives(near: Interpolator) -> None:
    """25 channels cost the machine what 32 cost; 24 are a tile less."""
    at = {width: near.latency_us(conv(64, width, 28, 3)) for width in (24, 25, 32)}
    assert at[25] / at[32] > 0.9
    assert at[24] / at[32] < 0.85


def noisy(outliers: dict[OpKey, float]) -> LatencyTable:
    """Single timings of the staircase, 2% apart, some of them off by a factor."""
    noise = np.random.default_rng(0).normal(0, 0.02, len(GRID))
    medians = {k: truth_us(k) * float(np.exp(e)) for k, e in zip(GRID, noise, strict=True)}
    medians |= {key: factor * truth_us(key) for key, factor in outliers.items()}
    return LatencyTable("board", META, {k: Measurement(us) for k, us in medians.items()})


def worst_fall(table: LatencyTable, inside: int, size: int, kernel: int) -> float:
    """Of the price from any width to the next wider one, as a share."""
    ms = [table.estimate(conv(inside, width, size, kernel)).ms for width in range(8, 65)]
    return max(1 - after / before for before, after in pairwise(ms))


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_lone_timing_leads_no_planner(factor: float) -> None:
    """Twice too slow or too fast: neither it nor its neighbours are priced by it."""
    lone = {conv(32, 24, 14): factor, conv(16, 32, 28, 3): factor, conv(64, 16, 7): factor}
    table = noisy(lone)
    for key in lone:
        assert 1e3 * table.estimate(key).ms == pytest.approx(truth_us(key), rel=0.1)
        assert table.estimate(key).source == "interpolated"
        inside, size, kernel = key.in_channels, key.in_size[0], key.kernel[0]
        assert worst_fall(table, inside, size, kernel) < 0.03


def test_one_that_was_repeated_is_believed() -> None:
    key = conv(32, 24, 14)
    table = noisy({key: 0.5})
    repeated = {**table.measured, key: Measurement(truth_us(key) / 2, 1.0, 30)}
    found = replace(table, measured=repeated).estimate(key)
    assert (found.source, 1e3 * found.ms) == ("measured", truth_us(key) / 2)


def test_a_wider_one_that_is_cheaper_everywhere_stays_so() -> None:
    """A machine that falls back to slow kernels at 12 channels, whatever the rest."""
    table = noisy({key: 1.6 for key in GRID if key.out_channels == 12})
    for inside, size, kernel in ((32, 14, 1), (16, 28, 3), (64, 7, 1)):
        slow, fast = (conv(inside, width, size, kernel) for width in (12, 16))
        assert table.estimate(slow).ms > 1.3 * table.estimate(fast).ms


def test_noise_on_a_flat_machine_makes_no_width_cheaper() -> None:
    """All operators take the same time, single timings differ by 3%."""
    noise = np.random.default_rng(0).normal(0, 0.03, len(GRID))
    measured = {k: Measurement(20 * float(np.exp(e))) for k, e in zip(GRID, noise, strict=True)}
    table = LatencyTable("board", META, measured)
    steps = list(product((12, 24, 48), (10, 20, 40), (1, 3)))  # between measured operators
    falls = [worst_fall(table, *where) for where in steps]
    assert max(falls) < 0.02


def test_the_staircase_survives_noise() -> None:
    table = noisy({})
    for inside, size, kernel in ((64, 28, 3), (32, 56, 3)):
        at = {w: table.estimate(conv(inside, w, size, kernel)).ms for w in (16, 24, 25, 32, 33, 40)}
        assert at[25] / at[32] > 0.9
        assert at[24] / at[25] < 0.85
        assert at[16] / at[24] < 0.8
        assert worst_fall(table, inside, size, kernel) < 0.02


def test_outside_of_what_was_measured_is_told(near: Interpolator) -> None:
    assert near.includes(conv(20, 20, 20))
    for key in (conv(128, 8, 14), conv(8, 8, 112), conv(8, 8, 14, 5), conv(4, 8, 14)):
        assert not near.includes(key)


def test_the_table_says_how_it_knows() -> None:
    network = OpKey(NETWORK, 1, 1)
    measured = {k: Measurement(truth_us(k)) for k in GRID} | {network: Measurement(40.0)}
    table = LatencyTable("board", META, measured)
    assert table.estimate(GRID[0]).source == "measured"
    between = table.estimate(conv(24, 24, 14))
    assert (between.source, between.extrapolated) == ("interpolated", False)
    assert table.estimate(conv(256, 24, 14)).extrapolated
    unknown = table.estimate(OpKey("softmax", 100, 100))
    assert (unknown.source, unknown.extrapolated) == ("memory-bound", True)
    assert 0 < unknown.ms < 0.1
    assert table.network_overhead_ms("fp32") == 0.04


def test_from_a_handful_something_is_interpolated_from_less_nothing() -> None:
    few = {key: Measurement(truth_us(key)) for key in GRID[:MIN_MEASURED]}
    asked = replace(GRID[0], out_channels=13)
    assert LatencyTable("board", META, few).estimate(asked).ms > 0
    few.popitem()
    with pytest.raises(TableError, match="no measurement of conv2d 8→13"):
        LatencyTable("board", META, few).estimate(asked)


def test_ten_thousand_operators_are_asked_fast() -> None:
    keys = [conv(i, o, s) for i, o, s in product(range(8, 520, 8), range(8, 520, 8), (7, 14, 28))]
    near = Interpolator(OpColumns.of(keys), np.array([truth_us(k) for k in keys]), CLIFFS["cpu"], 1)
    near.latency_us(conv(9, 9, 9))
    begun = time.process_time()
    for width in range(65):
        near.latency_us(conv(9, 9 + width, 9))
    assert (
        time.process_time() - begun < 0.5
    )  # 50 ms a network, on a machine that is ten times slower
