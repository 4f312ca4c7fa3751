"""Lookups: measured, fitted, unknown."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from shrinkc.errors import TableError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.makers.sources.networks import mobilenet_v2
from shrinkc.latency_tables.measured import Measurement
from shrinkc.latency_tables.meta import TableMeta
from shrinkc.latency_tables.store import load_table
from shrinkc.latency_tables.table import LatencyTable, OpEstimate

SHIPPED = Path(str(files("shrinkc.latency_tables"))) / "data" / "rpi4"
POINTWISE = OpKey("conv2d", 96, 96, in_size=(28, 28), out_size=(28, 28))
DENSE = replace(POINTWISE, kernel=(3, 3))


@pytest.fixture(scope="module")
def rpi4() -> LatencyTable:
    return load_table("rpi4/tflite-ruy")


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


def test_an_unknown_target_lists_the_known_ones() -> None:
    for name in ("rpi9", "", "../rpi4", "a" * 5000):
        with pytest.raises(TableError, match=r"known: .*rpi4"):
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
