"""The mobile GPU's script, on made-up networks; what the shipped table states."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from shrinkc.errors import TableError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.makers import pixel4_gpu as gpu
from shrinkc.latency_tables.store import load_table


def conv(inside: int, out: int, size: int) -> OpKey:
    return OpKey("conv2d", inside, out, (3, 3), in_size=(size, size), out_size=(size, size))


def us(key: OpKey) -> float:
    return 20.0 + key.macs / 1e5


WIDTHS = (8, 16, 24, 32, 48, 64)
TIMED = {
    f"net{size}": [(conv(i, o, size), us(conv(i, o, size))) for i, o in pairwise(WIDTHS)]
    for size in (14, 20, 28, 40, 56)
}
WHOLE = {name: 900.0 + 1.25 * sum(us for _, us in ops) for name, ops in TIMED.items()}


def test_an_inference_and_the_scale_are_separated() -> None:
    table = gpu.table_of(TIMED, WHOLE)
    assert table.network_overhead_ms("fp32") == pytest.approx(0.9, rel=1e-3)
    key, measured = TIMED["net28"][0]
    assert table.estimate(key).ms == pytest.approx(1.25 * measured / 1e3, rel=1e-3)
    assert [row.network for row in table.validation] == sorted(WHOLE)
    assert all(abs(row.relative_error) < 0.2 for row in table.validation[1:-1])


def test_a_median_stands_for_an_operator_of_several_networks() -> None:
    key = conv(8, 8, 10)
    timed = {name: [(key, value)] for name, value in (("a", 10.0), ("b", 30.0), ("c", 11.0))}
    table = gpu.table_of(timed, {"a": 1010.0, "b": 1040.0, "c": 1011.0})
    assert table.measured[key].median_us == 11.0


def test_one_network_is_not_enough() -> None:
    with pytest.raises(TableError, match="fewer than two networks"):
        gpu.table_of({"net14": TIMED["net14"]}, WHOLE)


def test_missing_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"tflite_cnn_ops_gpu.csv: not a list of operators"):
        gpu.build(tmp_path)


def test_the_shipped_table_states_its_error() -> None:
    table = load_table("pixel4/tflite-gpu")
    error = table.mean_error_percent("fp32")
    assert error is not None
    assert 0 < error < 5
    assert (table.meta.kind, table.meta.licence) == ("measured", "MIT")
