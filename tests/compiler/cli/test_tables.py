"""`shrinkc tables` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shrinkc.compiler.cli.main import main


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
