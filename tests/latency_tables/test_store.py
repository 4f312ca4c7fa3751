"""Where tables lie: the user's own, the shipped, short names."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from shrinkc.errors import TableError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.measured import Measurement
from shrinkc.latency_tables.meta import TableMeta
from shrinkc.latency_tables.store import (
    known_targets,
    load_table,
    read_statement,
    resolve,
    shipped_table,
    user_tables,
    write_table,
)
from shrinkc.latency_tables.table import LatencyTable

ONE = OpKey("conv2d", 8, 8, in_size=(4, 4), out_size=(4, 4))
META = TableMeta(
    *("measured", "a board", "a chip", "a runtime", "1", 1, "unknown", ("fp32",), 1),
    *("2026-01", "measured for this test", "Apache-2.0"),
)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHRINKC_TABLES", str(tmp_path))
    return tmp_path


def mine(name: str) -> LatencyTable:
    return LatencyTable(name, META, {ONE: Measurement(5.0, 0.1, 9)})


def test_short_names_lead_to_shipped_tables() -> None:
    aliases = tomllib.loads((files("shrinkc.latency_tables") / "data/aliases.toml").read_text())
    shipped = set(known_targets()) - set(aliases)
    for alias in aliases:
        steps, name = 0, alias
        while name in aliases and name not in shipped:
            name, steps = aliases[name], steps + 1
            assert steps <= len(aliases), f"{alias} leads in a circle"
    assert resolve("nowhere") == "nowhere"


def test_a_table_of_ones_own_goes_before_the_shipped_one(own: Path) -> None:
    assert user_tables() == own
    write_table(mine("rpi4"), own / "rpi4")
    assert load_table("rpi4").meta.device == "a board"
    assert load_table("rpi4").estimate(ONE).ms == 0.005


def test_what_a_name_means_without_a_table_of_ones_own() -> None:
    assert shipped_table("rpi4") == "rpi4/tflite-xnnpack"
    assert shipped_table("rpi4/tflite-ruy") == "rpi4/tflite-ruy"
    assert shipped_table("mypi") is None


def test_a_new_name_is_known_once_it_is_written(own: Path) -> None:
    with pytest.raises(TableError, match="unknown target 'board/tflite'; known: "):
        load_table("board/tflite")
    write_table(mine("board/tflite"), own / "board" / "tflite")
    assert "board/tflite" in known_targets()
    assert load_table("board/tflite").meta.soc == "a chip"


def test_a_statement_of_a_damaged_table_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHRINKC_TABLES", str(tmp_path))
    write_table(load_table("pixel4/tflite-gpu"), tmp_path / "mine")
    assert read_statement("mine")[1] == read_statement("pixel4/tflite-gpu")[1]
    (tmp_path / "mine" / "ops.csv").write_text("no operators\n")
    with pytest.raises(TableError, match=r"ops\.csv"):
        read_statement("mine")
