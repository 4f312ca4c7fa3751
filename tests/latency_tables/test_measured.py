"""Measured operators as columns: files, packed files, damage, speed."""

from __future__ import annotations

import gzip
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from shrinkc.errors import TableError
from shrinkc.latency_tables import rows, store
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.measured import LazyOps, MeasuredOps, Measurement, ops_text, read_ops
from shrinkc.latency_tables.meta import TableMeta
from shrinkc.latency_tables.table import LatencyTable

ONE = OpKey(
    *("conv2d", 8, 16, (3, 1), (2, 1), (1, 2)),
    groups=2,
    in_size=(9, 7),
    out_size=(5, 7),
    activation="relu6",
)
TWO = replace(ONE, op="add", precision="int8")
GIVEN = {ONE: Measurement(12.5, 0.25, 40), TWO: Measurement(3.0)}
META = TableMeta(
    *("measured", "a board", "a chip", "a runtime", "1", 1, "unknown", ("fp32", "int8"), 1),
    *("2026-01", "measured for this test", "Apache-2.0"),
)


def test_columns_are_a_mapping_of_keys() -> None:
    ops = MeasuredOps.of(GIVEN)
    assert dict(ops) == GIVEN
    assert ops.get(replace(ONE, in_channels=9)) is None
    assert dict(ops.of_precision("int8")) == {TWO: GIVEN[TWO]}
    assert ops.kind("conv2d", "int8") is None


def test_what_the_source_does_not_state_stays_unstated(tmp_path: Path) -> None:
    path = tmp_path / "ops.csv"
    path.write_text(ops_text(MeasuredOps.of(GIVEN)))
    assert path.read_text().endswith("int8,3.0,,\n")
    assert dict(read_ops(path)) == GIVEN


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("12.5", "-12.5", "line 2: median_us is -12.5"),
        ("12.5", "nan", "line 2: median_us is nan"),
        ("12.5", "0", "line 2: median_us is 0"),
        ("12.5", "1_2.5", "line 2: median_us is '1_2.5', not a number"),
        ("12.5", "１2.5", "line 2: median_us is '１2.5', not a number"),
        (",40", ",４0", "line 2: runs is '４0'"),
        ("0.25", "inf", "line 2: iqr_us is inf"),
        (",40", ",0", "line 2: runs is '0'"),
        (",40", ",4_0", "line 2: runs is '4_0'"),
        ("conv2d,8", "conv2d,8.0", "line 2: in_channels is '8.0'"),
        ("conv2d,8", "conv2d,0", "line 2: in_channels is '0'"),
        ("conv2d,8", "conv2d,8000000000000", "line 2: in_channels is '8000000000000'"),
        ("conv2d,8", ",8", "line 2: op is empty"),
        ("relu6,fp32", "gelu,fp32", "line 2: activation is 'gelu'"),
        ("fp32", "fp64", "line 2: precision is 'fp64'"),
        ("median_us", "median_ms", "unknown column 'median_ms'"),
        ("add", "add,1", "line 3: 20 values for 19 columns"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_named_with_its_line(
    old: str, new: str, message: str, packed: bool, tmp_path: Path
) -> None:
    text = ops_text(MeasuredOps.of(GIVEN)).replace(old, new, 1)
    path = tmp_path / ("ops.fp32.csv.gz" if packed else "ops.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    with pytest.raises(TableError, match=message):
        read_ops(path)


def test_an_operator_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ops.csv"
    text = ops_text(MeasuredOps.of(GIVEN))
    path.write_text(text + text.splitlines(keepends=True)[1])
    with pytest.raises(TableError, match="line 4: the same conv2d is already in line 2"):
        read_ops(path)


def test_many_operators_are_packed_and_read_by_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MANY_OPERATORS", 1)
    store.write_table(LatencyTable("board", META, GIVEN), tmp_path / "board")
    names = sorted(path.name for path in (tmp_path / "board").iterdir())
    assert names == ["meta.toml", "ops.fp32.csv.gz", "ops.int8.csv.gz"]
    first = (tmp_path / "board" / "ops.fp32.csv.gz").read_bytes()
    table = store.load_table(str(tmp_path / "board"))
    (tmp_path / "board" / "ops.int8.csv.gz").write_bytes(b"not a gzip file")
    assert isinstance(table.measured, LazyOps)
    assert table.estimate(ONE).ms == 0.0125
    with pytest.raises(TableError, match="not a whole gzip file"):
        table.estimate(TWO)
    store.write_table(LatencyTable("board", META, GIVEN), tmp_path / "board")
    assert (tmp_path / "board" / "ops.fp32.csv.gz").read_bytes() == first


def test_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_BYTES", 1 << 20)
    path = tmp_path / "ops.fp32.csv.gz"
    path.write_bytes(gzip.compress(b"0" * (4 << 20)))
    with pytest.raises(TableError, match="more than 1 MB"):
        read_ops(path)


def test_thirty_thousand_operators_load_fast(tmp_path: Path) -> None:
    keys = (
        replace(ONE, in_channels=i, out_channels=o, in_size=(s, s))
        for i, o, s in product(range(1, 61), range(1, 51), range(1, 11))
    )
    path = tmp_path / "ops.csv"
    path.write_text(ops_text(MeasuredOps.of({key: Measurement(1.5, 0.1, 9) for key in keys})))
    begun = time.process_time()
    ops = read_ops(path)
    assert ONE not in ops
    assert len(ops) == 30_000
    assert time.process_time() - begun < 2.5  # half a second, on a machine five times slower
