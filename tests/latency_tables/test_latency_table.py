"""Lookups: measured, fitted, unknown; what the shipped tables say, and how fast."""

import time
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shrinkc.compiler.errors import TableError
from shrinkc.latency_tables.files import Measurement
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.meta import TableMeta
from shrinkc.latency_tables.networks import mobilenet_v2, resnet50
from shrinkc.latency_tables.store import known_targets, load_table, read_table
from shrinkc.latency_tables.table import LatencyTable, OpEstimate

SHIPPED = Path(str(files("shrinkc.latency_tables"))) / "data" / "rpi4"
POINTWISE = OpKey("conv2d", 96, 96, in_size=(28, 28), out_size=(28, 28))
DENSE = replace(POINTWISE, kernel=(3, 3))


@pytest.fixture(scope="module")
def rpi4() -> LatencyTable:
    return load_table("rpi4")


def total_ms(table: LatencyTable, ops: tuple[OpKey, ...]) -> float:
    return table.network_overhead_ms(ops[0].precision) + sum(table.estimate(k).ms for k in ops)


def test_the_shipped_table_states_where_it_comes_from(rpi4: LatencyTable) -> None:
    assert "rpi4" in known_targets()
    assert (rpi4.target, rpi4.meta.kind, rpi4.meta.threads) == ("rpi4", "fitted", 4)
    assert "MLPerf" in rpi4.meta.source
    assert rpi4.meta.licence == "Apache-2.0"


@pytest.mark.parametrize(
    ("precision", "network", "family"), [("fp32", 4.5, 10.0), ("int8", 1.5, 8.0)]
)
def test_the_shipped_table_states_its_error(
    rpi4: LatencyTable, precision: str, network: float, family: float
) -> None:
    held_out = rpi4.mean_error_percent(precision, "network")
    assert held_out is not None
    assert 0 < held_out <= network
    unseen_family = rpi4.mean_error_percent(precision, "family")
    assert unseen_family is not None
    assert held_out < unseen_family <= family


def test_estimates_add_up_to_the_measured_networks(rpi4: LatencyTable) -> None:
    assert total_ms(rpi4, mobilenet_v2(1.0, 224, "fp32")) == pytest.approx(61.6, rel=0.03)
    assert total_ms(rpi4, mobilenet_v2(1.0, 224, "int8")) == pytest.approx(23.0, rel=0.03)
    assert total_ms(rpi4, resnet50(224, "fp32")) == pytest.approx(571, rel=0.03)


def test_what_the_fit_has_not_seen_is_extrapolated(rpi4: LatencyTable) -> None:
    def extrapolated(key: OpKey) -> bool:
        return rpi4.estimate(key).extrapolated

    assert not any(extrapolated(key) for key in mobilenet_v2(1.0, 224, "fp32"))
    assert extrapolated(DENSE)  # one network has such convolutions
    assert extrapolated(replace(POINTWISE, in_channels=4096))
    assert extrapolated(replace(POINTWISE, in_size=(512, 512), out_size=(512, 512)))
    assert extrapolated(replace(POINTWISE, groups=4))


def test_an_operator_no_table_knows_is_priced_by_its_bytes(rpi4: LatencyTable) -> None:
    key = OpKey("space_folding", 64, 64, in_size=(32, 32), out_size=(32, 32))
    known = rpi4.estimate(key)
    assert (known.source, known.extrapolated) == ("memory-bound", True)
    twice = rpi4.estimate(replace(key, in_size=(64, 32), out_size=(64, 32)))
    assert twice.ms == pytest.approx(2 * known.ms)
    assert rpi4.estimate(replace(key, op="add")).source == "fitted"


def test_widths_have_cliffs_where_the_kernels_have_blocks(rpi4: LatencyTable) -> None:
    ms = [rpi4.estimate(replace(POINTWISE, out_channels=c)).ms for c in range(88, 98)]
    steps = [after - before for before, after in pairwise(ms)]
    assert min(steps[0], steps[8]) > 5 * max(steps[1:8])


@given(
    st.sampled_from(["conv2d", "depthwise_conv2d", "linear", "conv_transpose2d", "add"]),
    st.sampled_from(["fp32", "int8"]),
    st.tuples(st.integers(1, 600), st.integers(1, 600), st.integers(1, 64)),
    st.sampled_from([1, 3, 5]),
)
def test_more_of_anything_never_costs_less(
    op: str, precision: str, extents: tuple[int, int, int], kernel: int
) -> None:
    def ms(channels: int, out: int, size: int, taps: int) -> float:
        depthwise = op == "depthwise_conv2d"
        key = OpKey(
            *(op, channels, channels if depthwise else out),
            kernel=(taps, taps),
            groups=channels if depthwise else 1,
            in_size=(size, size),
            out_size=(size, size),
            precision=precision,
        )
        return load_table("rpi4").estimate(key).ms

    channels, out, size = extents
    base = ms(channels, out, size, kernel)
    assert base > 0
    assert ms(channels + 1, out, size, kernel) >= base
    assert ms(channels, out + 1, size, kernel) >= base
    assert size == 1 or ms(channels, out, size + 1, kernel) >= base
    assert ms(channels, out, size, kernel + 2) >= base


def test_an_unknown_target_lists_the_known_ones() -> None:
    for name in ("rpi5", "", "../rpi4", "a" * 5000):
        with pytest.raises(TableError, match="known: rpi4"):
            load_table(name)


def test_an_unknown_precision_names_those_there_are(rpi4: LatencyTable) -> None:
    with pytest.raises(TableError, match="fp16; it has fp32, int8"):
        rpi4.estimate(replace(POINTWISE, precision="fp16"))
    with pytest.raises(TableError, match="fp16; it has fp32, int8"):
        rpi4.network_overhead_ms("fp16")


META = TableMeta(
    *("measured", "board", "soc", "TFLite", "2.14", 1, "performance"),
    *(("fp32",), 1, "2024-05-01", "measured for the test", "Apache-2.0"),
)


def test_a_measurement_beats_the_model(rpi4: LatencyTable) -> None:
    table = replace(rpi4, measured={DENSE: Measurement(1234.0, 10.0, 50)})
    assert table.estimate(DENSE) == OpEstimate(1.234, "measured", False)
    assert table.estimate(POINTWISE).source == "fitted"


def test_a_miss_without_a_model_says_what_is_missing() -> None:
    table = LatencyTable("board", META, {POINTWISE: Measurement(500.0, 3.0, 50)})
    assert table.estimate(POINTWISE).ms == 0.5
    assert table.network_overhead_ms("fp32") == 0.0
    with pytest.raises(TableError, match=r"board has no measurement of conv2d 96→96 kernel 3×3"):
        table.estimate(DENSE)
    assert table.mean_error_percent("fp32") is None


def test_a_network_is_estimated_within_50_ms_and_loading_takes_half_a_second() -> None:
    started = time.perf_counter()
    table = read_table(SHIPPED, "rpi4")  # not the cached one
    loaded = time.perf_counter()
    total_ms(table, mobilenet_v2(1.0, 224, "fp32"))
    assert time.perf_counter() - loaded < 0.050
    assert loaded - started < 0.5
