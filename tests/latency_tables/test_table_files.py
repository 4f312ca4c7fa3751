"""Damaged tables are refused with one line that names file, line and remedy; good ones survive."""

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrinkc.errors import TableError
from shrinkc.latency_tables.files import Validation
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.measured import OPS_COLUMNS, Measurement
from shrinkc.latency_tables.meta import TableMeta, meta_toml, read_meta
from shrinkc.latency_tables.store import known_targets, load_table, write_table
from shrinkc.latency_tables.table import LatencyTable

SHIPPED = Path(str(files("shrinkc.latency_tables"))) / "data" / "rpi4" / "tflite-ruy"
META = TableMeta(
    *("measured", "board", "soc", "TFLite", "2.14", 1, "unknown"),
    *(("fp32",), 1, "2024-05-01", "measured for the test", "Apache-2.0"),
)
KEY = OpKey("conv2d", 8, 16, (3, 3), (2, 2), (1, 1), 1, (32, 32), (16, 16), "relu6")
MEASURED = LatencyTable(
    *("board", META, {KEY: Measurement(120.5, 2.25, 40)}),
    validation=(Validation("net", "fp32", 10.0, 10.5, "network"),),
)


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def repeat_last_line(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1]]), "utf-8")


Damage = Callable[[Path], None]


def edit(name: str, old: str, new: str) -> Damage:
    return lambda folder: edited(folder / name, old, new)


def repeat(name: str) -> Damage:
    return lambda folder: repeat_last_line(folder / name)


def drop_last(name: str) -> Damage:
    def drop(folder: Path) -> None:
        lines = (folder / name).read_text("utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:-1]), "utf-8")

    return drop


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


FITTED_DAMAGE: dict[str, tuple[Damage, str]] = {
    "newer schema": (edit("meta.toml", "schema = 1", "schema = 2"), "schema 2 is newer than 1"),
    "no schema": (edit("meta.toml", "schema = 1\n", ""), "schema must be"),
    "no source": (edit("meta.toml", "source = ", "sources = "), "unknown key sources"),
    "empty source": (edit("meta.toml", 'licence = "Apache-2.0"', 'licence = ""'), "licence must"),
    "bad date": (edit("meta.toml", '"2022-09"', '"last year"'), "date is 'last year'; write"),
    "wrong kind": (edit("meta.toml", '"fitted"', '"guessed"'), "kind is 'guessed'; write measured"),
    "threads as text": (edit("meta.toml", "threads = 4", 'threads = "4"'), "threads must be"),
    "no thread": (edit("meta.toml", "threads = 4", "threads = 0"), "threads must be"),
    "precision twice": (edit("meta.toml", '"int8"]', '"fp32"]'), "precisions must list"),
    "precision unknown": (edit("meta.toml", '"int8"]', '"int4"]'), "precisions must list"),
    "precision without tiles": (edit("meta.toml", "tiles.int8", "tiles.fp16"), "one section for"),
    "unknown tile": (edit("meta.toml", "depthwise = 4", "depthways = 4"), "unknown key model.tile"),
    "broken TOML": (edit("meta.toml", "schema = 1", "schema 1"), "not valid TOML"),
    "no meta": (remove("meta.toml"), "no meta.toml"),
    "no model": (remove("model.csv"), "no model.csv, which a fitted table must have"),
    "no coverage": (remove("coverage.csv"), "no coverage.csv"),
    "no validation": (remove("validation.csv"), "no validation.csv"),
    "wrong unit": (
        edit("model.csv", "us_per_mmac", "ms_per_mmac"),
        "model.csv line 2: unit is 'ms_per_mmac'; use one of us_per_mmac",
    ),
    "unknown feature": (edit("model.csv", "fp32,gemm", "fp32,gem"), "line 2: feature is 'gem'"),
    "feature twice": (
        edit("model.csv", "int8,network,us_per_network", "int8,operator,us_per_op"),
        "line 33: int8 operator is already in line 32",
    ),
    "missing row": (drop_last("model.csv"), "int8 has no row for network; fit the table again"),
    "negative price": (edit("model.csv", "mmac,", "mmac,-"), "line 2: coefficient is -"),
    "not a number": (edit("model.csv", "mmac,", "mmac,x"), "line 2: coefficient is 'x"),
    "infinite": (edit("model.csv", "mmac,", "mmac,1e999"), "line 2: coefficient is"),
    "duplicate feature": (repeat("model.csv"), "int8 network is already in line 33"),
    "model column": (edit("model.csv", "coefficient", "coefficient_ms"), "unknown column 'coeff"),
    "no prior": (edit("model.csv", ",prior", ""), "column 'prior' is missing"),
    "columns swapped": (edit("model.csv", "floor,prior", "prior,floor"), "out of order"),
    "short row": (edit("model.csv", "fp32,gemm,", "fp32,"), "line 2: 5 values for 6 columns"),
    "empty range": (edit("coverage.csv", ",64,512,", ",512,64,"), "line 2: a minimum exceeds"),
    "duplicate class": (repeat("coverage.csv"), "int8 softmax is already in line"),
    "validation unit": (edit("validation.csv", "measured_ms", "measured_s"), "'measured_s'"),
    "no time": (edit("validation.csv", "fp32,73.6173", "fp32,0"), "line 2: measured_ms is 0"),
    "held out": (edit("validation.csv", ",none", ",maybe"), "line 2: held_out is 'maybe'"),
    "duplicate network": (repeat("validation.csv"), "family is already in line"),
    "not text": (lambda f: (f / "model.csv").write_bytes(b"\xff\xfe\x00"), "cannot be read"),
    "empty file": (lambda f: (f / "model.csv").write_bytes(b""), "line 1: column 'precision' is"),
}
MEASURED_DAMAGE: dict[str, tuple[Damage, str]] = {
    "milliseconds": (edit("ops.csv", "median_us", "median_ms"), "unknown column 'median_ms'"),
    "negative time": (edit("ops.csv", "120.5", "-120.5"), "line 2: median_us is -120.5"),
    "zero time": (edit("ops.csv", "120.5", "0"), "line 2: median_us is 0"),
    "negative spread": (edit("ops.csv", "2.25", "-2.25"), "line 2: iqr_us is -2.25"),
    "no runs": (edit("ops.csv", ",40", ",0"), "line 2: runs is '0'"),
    "huge count": (edit("ops.csv", "conv2d,8", "conv2d," + "8" * 5000), "in_channels is '888"),
    "fractional width": (edit("ops.csv", "conv2d,8", "conv2d,8.5"), "in_channels is '8.5'"),
    "duplicate key": (repeat("ops.csv"), "line 3: the same conv2d is already in line 2"),
    "activation": (edit("ops.csv", "relu6", "swish"), "activation is 'swish'; use one of none"),
    "no operator": (edit("ops.csv", "conv2d,", ","), "line 2: op is empty"),
    "precision": (edit("ops.csv", ",fp32", ",int8"), "has int8, which meta.toml does not list"),
    "no ops": (remove("ops.csv"), "no ops.csv, which a measured table must have"),
}


@pytest.mark.parametrize("name", FITTED_DAMAGE)
def test_a_damaged_fitted_table_is_refused(name: str, tmp_path: Path) -> None:
    damage, message = FITTED_DAMAGE[name]
    refused(Path(shutil.copytree(SHIPPED, tmp_path / "table")), damage, message)


@pytest.mark.parametrize("name", MEASURED_DAMAGE)
def test_a_damaged_measured_table_is_refused(name: str, tmp_path: Path) -> None:
    damage, message = MEASURED_DAMAGE[name]
    write_table(MEASURED, tmp_path / "table")
    refused(tmp_path / "table", damage, message)


def refused(folder: Path, damage: Damage, message: str) -> None:
    load_table(str(folder))
    damage(folder)
    with pytest.raises(TableError) as caught:
        load_table(str(folder))
    text = str(caught.value)
    assert message in text
    assert str(folder) in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "table", [MEASURED, load_table("rpi4/tflite-ruy")], ids=["measured", "fitted"]
)
def test_a_written_table_reads_back_the_same(table: LatencyTable, tmp_path: Path) -> None:
    write_table(table, tmp_path / "table")
    again = load_table(str(tmp_path / "table"))
    assert replace(again, target=table.target) == table
    write_table(again, tmp_path / "copy")
    for path in sorted((tmp_path / "table").iterdir()):
        assert path.read_bytes() == (tmp_path / "copy" / path.name).read_bytes()


def test_ops_columns_carry_their_units() -> None:
    assert {"median_us", "iqr_us", "runs"} <= set(OPS_COLUMNS)


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(str.strip))
def test_any_text_survives_meta(text: str) -> None:
    class File:
        def open(self, mode: str) -> io.BytesIO:
            told = meta_toml(replace(META, source=f"from {text}", device=text))
            return io.BytesIO(told.encode())

    meta = read_meta(cast(Any, File()))
    assert (meta.source, meta.device) == (f"from {text}", text)


@pytest.mark.parametrize(
    "line",
    [
        *(f"x = {'1' * 5000}", f"x = {'[' * 2000}", f"x = {'[' * 2000}{']' * 2000}"),
        *("precisions = [[1]]", 'precisions = "fp32"', "precisions = []", "kind = [[[]]]"),
        *("cliffs = []", "cliffs = {a = 1}", f"threads = {'9' * 4000}", "threads = true"),
        *(f"schema = {'9' * 4000}", "schema = 1.0", "date = 2024-05-01", "model = 1"),
        *("model = {kernels = [1]}", "batch = nan", "a" * (2 << 20), "\0", "device = []"),
    ],
    ids=lambda line: line[:20],
)
def test_descriptions_of_other_kinds(tmp_path: Path, line: str) -> None:
    folder = tmp_path / "t"
    write_table(MEASURED, folder)
    name = line.partition(" ")[0]
    kept = [
        one
        for one in (folder / "meta.toml").read_text("utf-8").splitlines()
        if one.partition(" ")[0] != name
    ]
    (folder / "meta.toml").write_text("\n".join([line, *kept]), "utf-8")
    with pytest.raises(TableError) as caught:
        load_table(str(folder))
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-1", "1e400", "1e300", "1e-300", "0x1", "", "1" * 5000]
)
@pytest.mark.parametrize("name", ["ops.csv", "validation.csv"])
def test_times_that_are_none(tmp_path: Path, name: str, value: str) -> None:
    folder = tmp_path / "t"
    write_table(MEASURED, folder)
    old = "120.5" if name == "ops.csv" else "10.0000"
    edited(folder / name, old, value)
    with pytest.raises(TableError) as caught:
        load_table(str(folder))
    assert len(str(caught.value).splitlines()) == 1


def test_folders_that_lead_in_circles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHRINKC_TABLES", str(tmp_path))
    write_table(MEASURED, tmp_path / "mine")
    for name in ("a", "b", "c"):
        (tmp_path / name).symlink_to(tmp_path)
    assert {"mine", "a/mine"} <= set(known_targets())
    assert not any(name.count("/") > 1 for name in known_targets())
