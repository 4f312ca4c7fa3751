"""A measured table is written whole or not at all, and measured by one run at a time."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from shrinkc.compiler.profile.table_folder import alone_at, save_table
from shrinkc.errors import InputError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.measured import Measurement
from shrinkc.latency_tables.store import load_table, user_tables
from shrinkc.latency_tables.table import LatencyTable

RUY = load_table("rpi4/tflite-ruy")
META = replace(RUY.meta, kind="measured", model=None, precisions=("fp32",))
MEASURED = LatencyTable("mine", META, {OpKey("relu", 8, 8): Measurement(1.0, 0.1, 5)})


def test_the_whole_table_is_replaced_and_what_lies_below_stays(tmp_path: Path) -> None:
    folder = tmp_path / "table"
    save_table(RUY, folder)
    save_table(MEASURED, folder / "below")
    (folder / "notes.txt").write_text("the user's own")
    save_table(MEASURED, folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {"meta.toml", "ops.csv", "below", "notes.txt"}
    assert load_table(str(folder / "below")).measured == MEASURED.measured
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_a_failed_write_leaves_the_earlier_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "table"
    save_table(MEASURED, folder)
    replace_file = Path.replace

    def fails(self: Path, target: Path) -> Path:
        if target == folder / "model.csv" or target.name == "validation.csv":
            raise OSError(28, "No space left on device", str(target))
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(InputError, match="no space left"):
        save_table(RUY, folder)
    monkeypatch.undo()
    assert load_table(str(folder)).meta == META
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHRINKC_TABLES", str(tmp_path / "tables"))
    folder = user_tables() / "board" / "tflite"
    who = f"board/tflite: process {os.getpid()} on .* is at work there; let it finish"
    with alone_at(folder), pytest.raises(InputError, match=who), alone_at(folder):
        pass
    with alone_at(folder):
        pass
    assert not list(folder.parent.iterdir())
