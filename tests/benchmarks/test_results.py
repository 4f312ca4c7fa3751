"""Result files: every one is of the form; what is not is refused, and nothing is written then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.shared import results
from benchmarks.shared.common import ROOT
from benchmarks.shared.fields import FieldError, check_record

FILES = sorted(results.RESULTS.iterdir())
SHARES = ("top1", "top1_int8", "agreement", "original_top1", "untrained_top1", "held_out_top1")


def records(value: Any) -> list[dict[str, Any]]:
    """All dictionaries, however deep."""
    if isinstance(value, list):
        return [record for one in value for record in records(one)]
    if isinstance(value, dict):
        return [value, *records(list(value.values()))]
    return []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_of_the_form(path: Path) -> None:
    assert path.suffix == ".json"
    read = results.read(path)
    assert (ROOT / "benchmarks" / f"{read.benchmark}.py").exists()
    assert read.command.startswith(f"python -m benchmarks.{read.benchmark}")
    assert read.rows
    assert {"commit", "machine", "cpu", "python", "packages"} <= read.environment.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_share_is_a_fraction(path: Path) -> None:
    found = [
        record[name]
        for record in records(json.loads(path.read_text()))
        for name in SHARES
        if record.get(name) is not None
    ]
    assert all(0 <= share <= 1 for share in found)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"top1": 88.25}, r"row.top1: 88.25 is not a share between 0 and 1"),
        ({"top1": True}, "not a share"),
        ({"drop": -1.5}, "not a difference of two shares"),
        ({"speedup": 0}, "not a ratio"),
        ({"median_ms": float("nan")}, "not milliseconds"),
        ({"accuracy": 0.9}, "accuracy is not in benchmarks/shared/fields.py"),
        ({"taken": [{"saving_ms": "3"}]}, r"row.taken\[\].saving_ms"),
        ({"measured": {"int8": {"speed": 2.0}}}, "row.measured.int8: speed is not in"),
        ({"failure": "no file /home/someone/model.pt"}, "text without a path"),
        ({"reached": 0.01}, "in a row with its `unit`"),
        ({"unit": "%", "reached": 1.0}, "not in MEASURE_UNITS"),
        ({"unit": "share", "reached": 1.5}, "not a share"),
    ],
)
def test_what_is_not_of_the_form_is_named(record: dict[str, Any], said: str) -> None:
    with pytest.raises(FieldError, match=said):
        check_record(record, "row")


def test_slashes_in_names_are_no_paths() -> None:
    check_record({"predicted_speedups": {"rpi4/int8": 1.5}, "name": "timm/resnet18, a / b"}, "row")


def test_what_was_written_is_read_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "speeds.json"
    assert results.earlier_rows(path) == []
    rows = [{"network": "resnet18", "speedup": 1.5}]
    results.write(path, "prune_speed", rows, ("torch",), settings={"threads": 1})
    read = results.read(path)
    assert (read.benchmark, read.settings, read.rows) == ("prune_speed", {"threads": 1}, rows)
    assert read.environment["date"]
    assert read.environment["packages"].keys() == {"torch"}
    assert list(json.loads(path.read_text()))[-1] == "rows"
    results.write(path, "prune_speed", [*results.earlier_rows(path), *rows], ("torch",))
    assert results.read(path).rows == rows * 2


def test_a_wrong_row_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "speeds.json"
    results.write(path, "prune_speed", [{"speedup": 1.5}], ())
    before = path.read_bytes()
    with pytest.raises(results.ResultError, match=r"speeds.json: rows\[1\].top1: 75.0"):
        results.write(path, "prune_speed", [{"speedup": 1.5}, {"top1": 75.0}], ())
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "[]", '{"rows": []}', '{"points": [], "rows": []}'])
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "speeds.json"
    path.write_text(text)
    with pytest.raises(results.ResultError, match=r"speeds\.json"):
        results.read(path)


def test_commands_name_no_folder_of_this_machine() -> None:
    arguments = ["--data", "/home/someone/data", "--venvs=/tmp/venvs", "--seeds", "2", "-o", "/x/y"]
    assert results.command_line("peers", arguments) == (
        "python -m benchmarks.peers --data DIR --venvs=VENVS --seeds 2 -o OUT"
    )
