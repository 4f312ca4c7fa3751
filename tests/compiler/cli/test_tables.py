"""`shrinkc tables` from the command line."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from shrinkc.compiler.cli import output
from shrinkc.compiler.cli.main import main
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.measured import Measurement
from shrinkc.latency_tables.store import load_table, write_table
from shrinkc.latency_tables.table import LatencyTable


def test_every_target_is_listed_with_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", "--json"]) == 0
    rows = {row["target"]: row for row in json.loads(capsys.readouterr().out)["tables"]}
    assert rows["gpu"]["stands_for"] == "v100/tensorrt-b1"
    assert "networks held out" in rows["rpi4/tflite-ruy"]["stated_error"]
    assert main(["tables"]) == 0
    assert "gpu = v100/tensorrt-b1" in capsys.readouterr().out.replace("\n", " ")


def test_a_table_shows_error_coverage_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", "show", "rpi4/tflite-ruy", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "MLPerf" in shown["provenance"]["source"]
    assert {row["precision"] for row in shown["errors"]} == {"fp32", "int8"}
    assert {row["held_out"] for row in shown["errors"]} == {"none", "network", "family"}
    assert any(row["operators"] == "dense_conv" for row in shown["coverage"])
    assert main(["tables", "show", "rpi4/tflite-ruy"]) == 0
    assert "networks held out" in capsys.readouterr().out


def test_the_image_is_a_png(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rpi4.png"
    assert main(["tables", "show", "rpi4/tflite-ruy", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "rpi4.png" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tables", "show", "nowhere"], "unknown target 'nowhere'; known: gpu"),
        (["tables", "show", "rpi4", "--plot", "/nowhere/x.png"], "/nowhere/x.png cannot be"),
        (["tables", "shw"], "No such command 'shw'"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_a_damaged_table_of_ones_own_is_listed_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHRINKC_TABLES", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "meta.toml").write_text("schema = 99\n")
    assert main(["tables", "--json"]) == 0
    rows = {row["target"]: row for row in json.loads(capsys.readouterr().out)["tables"]}
    assert "newer" in rows["mine"]["error"]
    assert "device" in rows["rpi4/tflite-ruy"]


@pytest.mark.parametrize("columns", [80, 60])
def test_every_line_fits_into_a_narrow_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output.Console, "is_terminal", columns == 60)
    monkeypatch.setenv("COLUMNS", str(columns))
    for arguments in (["tables"], ["tables", "show", "rpi4"], ["tables", "show", "gpu"]):
        assert main(arguments) == 0
        lines = plain(capsys.readouterr().out).splitlines()
        assert max(map(len, lines)) <= columns
        assert len(lines) > 20
    assert main(["tables"]) == 0
    lines = plain(capsys.readouterr().out).splitlines()
    assert any(line.startswith("rpi4/tflite-xnnpack-t1  Raspberry Pi 4") for line in lines)
    assert "rpi4 = rpi4/tflite-xnnpack" in "\n".join(lines)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_table_that_states_no_error_says_how_it_comes_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHRINKC_TABLES", str(tmp_path))
    table = load_table("rpi4")
    key = OpKey("relu", 8, 8)
    meta = replace(table.meta, kind="measured", precisions=("fp32",), model=None)
    write_table(LatencyTable("mine", meta, {key: Measurement(1.0, 0.1, 3)}), tmp_path / "mine")
    assert main(["tables", "show", "mine"]) == 0
    assert "stated error: none; shrinkc calibrate mine" in capsys.readouterr().out
