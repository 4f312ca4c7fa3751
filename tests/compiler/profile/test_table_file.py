"""Tables handed on as one file: the same comes out, and nothing else goes in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shrinkc.compiler.profile.table_file import export_table, import_table
from shrinkc.errors import InputError, TableError, UnknownTargetError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.store import load_table

FITTED, MEASURED = "rpi4/tflite-xnnpack", "pixel4/tflite-gpu"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHRINKC_TABLES", str(tmp_path / "own"))
    return tmp_path / "handed.json"


def changed(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **fields}), "utf-8")


@pytest.mark.parametrize("target", [FITTED, MEASURED])
def test_a_table_comes_out_as_it_went_in(file: Path, target: str) -> None:
    export_table(target, file)
    assert import_table(file, "theirs/tflite") == "theirs/tflite"
    given, taken = load_table(target), load_table("theirs/tflite")
    key = OpKey("conv2d", 64, 64, (3, 3), in_size=(28, 28), out_size=(28, 28))
    assert taken.estimate(key).ms == pytest.approx(given.estimate(key).ms, rel=1e-4)
    assert (taken.meta, taken.validation) == (given.meta, given.validation)
    assert dict(taken.measured) == dict(given.measured)


def test_the_file_says_where_it_comes_from(file: Path) -> None:
    export_table(FITTED, file)
    content = json.loads(file.read_text("utf-8"))
    assert content["target"] == FITTED
    assert "google/XNNPACK" in content["files"]["meta.toml"]
    assert content["written_by"].startswith("shrinkc ")


def test_two_tables_of_one_name_are_refused(file: Path) -> None:
    export_table(FITTED, file)
    with pytest.raises(InputError, match=f"there is a table '{FITTED}' already"):
        import_table(file)
    import_table(file, "mine")
    with pytest.raises(InputError, match="there is a table 'mine' already"):
        import_table(file, "mine")


def test_what_is_newer_damaged_or_changed_is_refused(file: Path) -> None:
    export_table(FITTED, file)
    whole = file.read_text("utf-8")
    changed(file, version=2)
    with pytest.raises(TableError, match="version 2 is newer than 1"):
        import_table(file, "mine")
    file.write_text(whole.replace("77.0000", "7.0000"), "utf-8")
    with pytest.raises(TableError, match="digest does not fit"):
        import_table(file, "mine")
    file.write_text(whole[:-50], "utf-8")
    with pytest.raises(TableError, match="not a table's file"):
        import_table(file, "mine")
    file.write_text(whole.replace('"target": "', '"target": "\\ud800'), "utf-8")
    with pytest.raises(TableError, match=r"not a table's file: .* surrogates not allowed"):
        import_table(file, "mine")
    file.write_text(whole, "utf-8")
    changed(file, more=1)
    with pytest.raises(TableError, match="missing, unknown"):
        import_table(file, "mine")
    file.write_text("[]", "utf-8")
    with pytest.raises(TableError, match="not a file that"):
        import_table(file, "mine")


def test_unknown_targets_and_files_that_cannot_be_written(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownTargetError, match="unknown target 'rpi6'") as error:
        export_table("rpi6", file)
    assert "did you mean rpi5?" in str(error.value)
    assert "profile" in str(error.value)
    with pytest.raises(InputError, match="cannot be written"):
        export_table(FITTED, tmp_path / "no" / "file.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.json"
    with pytest.raises(TableError) as refused:
        import_table(path)
    assert str(refused.value) == f"{path}: cannot be read: No such file or directory"
