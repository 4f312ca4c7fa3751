"""`shrinkc profile` as a user meets it: tables, several devices, kill -9, what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import device_doubles as doubles
import pytest
import torch
from interruptible import started
from torch import nn

from shrinkc.compiler.cli.main import main
from shrinkc.compiler.support.reading.checked_lines import read_lines
from shrinkc.errors import EXIT_CODES
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.measured import Measurement
from shrinkc.latency_tables.meta import TableMeta
from shrinkc.latency_tables.store import load_table, write_table
from shrinkc.latency_tables.table import NETWORK, LatencyTable

Streams = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHRINKC_TABLES", str(tmp_path / "tables"))
    return tmp_path / "tables"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6()),
        *(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 16, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
    )
    torch.save(network, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def profile(*arguments: str | Path) -> int:
    read = ("--input", "1,3,16,16") if any(isinstance(one, Path) for one in arguments) else ()
    return main(["profile", *map(str, arguments), *read])


def error(streams: Streams) -> str:
    (line,) = streams.readouterr().err.splitlines()
    assert line.startswith("shrinkc: ")
    return line


def test_a_table_of_this_machine(model: Path, tables: Path, capsys: Streams) -> None:
    assert profile("--target", "mine", "--on", "host", model, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["tables"]
    assert found["table"] == str(tables / "mine")
    assert found["not_measured"] == []
    table = load_table("mine")
    assert found["operators"] == len(table.measured) > 10
    assert table.meta.kind == "measured"
    assert table.meta.source.startswith("shrinkc profile --on host")
    assert "reference convolution" in table.meta.note
    stem = OpKey("conv2d", 3, 8, (3, 3), (2, 2), in_size=(16, 16), out_size=(8, 8))
    assert any(key.kernel == stem.kernel and key.in_channels == 3 for key in table.measured)
    assert table.network_overhead_ms("fp32") > 0
    assert [p.name for p in tables.iterdir()] == ["mine"]  # no journal is left
    arguments = ("estimate", str(model), "--target", "mine", "--input", "1,3,16,16", "--json")
    assert main(arguments) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert {layer["source"] for layer in layers} == {"measured"}


def test_onnx_runtime_int8_and_a_second_run_into_the_same_table(
    model: Path, capsys: Streams
) -> None:
    pytest.importorskip("ai_edge_quantizer")
    base = ("--target", "mine/ort", "--on", "host", "--runtime", "onnxruntime", model)
    assert profile(*base, "--widths", "1", "--precision", "int8") == 0
    shown = capsys.readouterr().out
    assert "mine/ort" in shown
    assert "conv2d 3×3" in shown
    assert profile(*base, "--widths", "1") == 0
    table = load_table("mine/ort")
    assert table.precisions == ("fp32", "int8")
    assert {key.precision for key in table.measured} == {"fp32", "int8"}
    assert table.meta.runtime == "onnxruntime"


def test_several_devices_side_by_side(model: Path, tables: Path, capsys: Streams) -> None:
    """One of them is not there; the others' tables are written all the same."""
    devices = ("--on", "host", "--on", "ssh://nobody@127.0.0.1:1", "--on", "host")
    assert (
        profile("--target", "many", *devices, model, "--widths", "1", "--json")
        == EXIT_CODES["device"]
    )
    captured = capsys.readouterr()
    found = json.loads(captured.out)["tables"]
    assert [t["target"] for t in found] == ["many-1", "many-3"]
    assert "ssh" in captured.err  # refused, or no ssh here
    assert {p.name for p in tables.iterdir()} == {"many-1", "many-3"}


def test_a_shipped_tables_name_is_told_to_mean_another_one(
    model: Path, tables: Path, capsys: Streams
) -> None:
    quick = ("--widths", "1", "--budget-minutes", "0.01")
    assert profile(model, "--target", "rpi4", "--on", "host", *quick) == 0
    told = capsys.readouterr().err
    assert "rpi4 means this table from now on, no longer the shipped rpi4/tflite-xnnpack" in told
    assert load_table("rpi4").meta.kind == "measured"
    assert profile(model, "--target", "mypi", "--on", "host", *quick) == 0
    assert "from now on" not in capsys.readouterr().err


def test_a_table_of_another_device_is_not_mixed_with(tables: Path, capsys: Streams) -> None:
    meta = TableMeta(
        *("measured", "Other Board", "unknown", "ai-edge-litert", "1", 1, "unknown", ("fp32",), 1),
        *("2024", "someone", "MIT"),
    )
    key = OpKey(NETWORK, 1, 1)
    write_table(LatencyTable("mine", meta, {key: Measurement(1.0, 0.1, 5)}), tables / "mine")
    assert profile("--target", "mine", "--on", "host") == 2
    assert "Other Board" in error(capsys)
    assert load_table("mine").meta.device == "Other Board"


def test_no_time(tables: Path, capsys: Streams) -> None:
    given = ("--target", "mine", "--on", "host", "--budget-minutes", "0")
    assert profile(*given) == EXIT_CODES["device"]
    assert "time was up" in error(capsys)
    assert not (tables / "mine").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--target", "a", "--on", "telnet://x"), "write one of host"),
        (("--target", "a", "--target", "b", "--on", "host"), "2 --target for 1 --on"),
        (("--target", "a", "--target", "a", "--on", "host", "--on", "host"), "same name"),
        (("--target", "No/Such/Name", "--on", "host"), "not a target"),
        (
            ("--target", "a", "--on", "host", "--precision", "int4"),
            "'int4' is not one of",
        ),
        (("--target", "a", "--on", "host", "--precision", "fp16"), "tflite on host has fp32, int8"),
        (("--target", "a", "--on", "host", "--runtime", "ncnn"), "has tflite, onnxruntime"),
        (("--target", "a", "--on", "cuda", "--precision", "int8"), "pytorch on cuda has"),
        (("--target", "a"), "--on"),
        (("--on", "host"), "--target"),
    ],
)
def test_wrong_arguments(
    arguments: tuple[str, ...], expected: str, tables: Path, capsys: Streams
) -> None:
    assert profile(*arguments) == 2
    assert expected in error(capsys)
    assert not tables.exists()


@pytest.fixture
def slow(tmp_path: Path) -> dict[str, str]:
    """An environment where a TFLite runtime takes a millisecond for everything."""
    packages = doubles.fake_runtime(tmp_path / "packages")
    return {**os.environ, "PYTHONPATH": str(packages), "FAKE_SECONDS": "0.001"}


def profiling(environment: dict[str, str], *arguments: str | Path) -> subprocess.Popen[str]:
    code = "import sys; from shrinkc.compiler.cli.main import main; sys.exit(main())"
    command = (sys.executable, "-c", code, "profile", *map(str, arguments))
    return started((*command, "--input", "1,3,16,16"), environment)


def lines(path: Path) -> list[dict[str, Any]]:
    return list(read_lines(path))


def measured(path: Path) -> int:
    return sum("times_us" in line for line in lines(path))


def wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("it takes too long")


def test_a_device_that_is_lost_and_comes_back(
    tables: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(doubles.fake_runtime(tmp_path / "packages")))
    monkeypatch.setenv("FAKE_CRASH", "900")  # in the second of two groups of the first pass
    journal = tables / "mine.profile.jsonl"
    assert profile("--target", "mine", "--on", "host", model) == EXIT_CODES["device"]
    said = error(capsys)
    assert "lost while running" in said
    assert "the same command goes on" in said
    kept = lines(journal)
    assert measured(journal) > 5
    assert sum(line.get("crash", False) for line in kept) <= 1  # none at the reference
    monkeypatch.delenv("FAKE_CRASH")
    assert profile("--target", "mine", "--on", "host", model, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["tables"]
    assert found["missing"] == 0
    assert found["not_measured"] == []


def test_killed_and_started_again_it_goes_on(
    model: Path,
    tables: Path,
    slow: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Streams,
) -> None:
    arguments = ("--target", "mine", "--on", "host", model, "--json")
    journal = tables / "mine.profile.jsonl"
    process = profiling(slow, *arguments)
    wait_for(lambda: measured(journal) > 0, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = lines(journal)
    assert not (tables / "mine").exists()
    again = profiling(slow, *arguments)
    wait_for(lambda: measured(journal) > sum("times_us" in line for line in before), again)
    assert lines(journal)[: len(before)] == before
    again.send_signal(signal.SIGINT)  # Ctrl-C, too, keeps everything
    _, said = again.communicate()
    assert again.returncode == 130
    assert "run the same command again to go on" in said
    assert measured(journal) > sum("times_us" in line for line in before)
    monkeypatch.setenv("PYTHONPATH", slow["PYTHONPATH"])
    assert profile(*arguments) == 0
    (found,) = json.loads(capsys.readouterr().out)["tables"]
    assert found["missing"] == 0
    assert not journal.exists()
