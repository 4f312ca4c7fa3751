"""`--fleet` of `shrinkc profile` and `shrinkc bench`, as a user meets it: boards are played."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sleeping_boards import SleepingBoard, fleet_file, lab, play
from torch import nn

import shrinkc
from shrinkc.compiler.cli.main import main
from shrinkc.compiler.devices.jobs import Ran
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.measure.device import Here
from shrinkc.errors import EXIT_CODES, InputError
from shrinkc.latency_tables.store import load_table

Streams = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHRINKC_TABLES", str(tmp_path / "tables"))
    monkeypatch.chdir(tmp_path)
    lab(tmp_path / "boards.toml", 4)
    return tmp_path / "tables"


@pytest.fixture
def boards(monkeypatch: pytest.MonkeyPatch) -> list[SleepingBoard]:
    """Four, of which one is half as fast as the others."""
    found = [SleepingBoard(f"ssh://pi@lab-{i}") for i in range(1, 5)]
    found[2].slower = 1.5
    play(monkeypatch, found)
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.Conv2d(8, 16, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
    )
    torch.save(network, tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two model files, which give ones on this machine."""
    x, y = ops.Value("x", (1, 3, 4, 4)), ops.Value("y", (1, 3, 4, 4))
    data = write_tflite(ops.Program((x,), (ops.Unary("a", y, x, "relu"),), (y,)))
    here = Ran((), (np.ones((1, 3), np.float32),), None, None, "")
    monkeypatch.setattr(Here, "run", lambda *_: here)
    for name in ("net.tflite", "second.tflite"):
        (tmp_path / name).write_bytes(data)
    return ["net.tflite", "second.tflite"]


def profile(model: Path, *more: str) -> int:
    return main(["profile", str(model), "--input", "1,3,16,16", "--fleet", "boards.toml", *more])


def test_a_profile_at_80_columns(
    boards: list[SleepingBoard], model: Path, tables: Path, capsys: Streams
) -> None:
    boards[3].lasts = 20
    assert profile(model) == EXIT_CODES["device"]
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("board  kind  state  measured  left  IQR, median")
    assert lines[1].split()[:3] == ["lab-1", "pi4", "done"]
    assert lines[3].split()[-1] == "1.50×"
    assert lines[4].split()[:3] == ["lab-4", "pi4", "lost"]
    text = " ".join(out.split())
    assert "lab-4: ssh://pi@lab-4: lost while running" in text
    assert "the same command goes on" in text
    assert "lab-3 takes 1.50 times as long as the median board of kind pi4" in text
    assert "median of 4 boards of kind pi4" in text
    assert err == "shrinkc: of 4 boards not all went well: lab-4\n"
    assert (tables / "pi4-lab@lab-1.profile.jsonl").is_file()
    seen = boards[0].seen
    assert profile(model) == 0
    assert boards[0].seen == seen  # it had measured everything
    assert [path.name for path in tables.iterdir()] == ["pi4-lab"]
    assert load_table("pi4-lab").meta.source == "shrinkc profile --fleet, 4 boards"


def test_a_profile_for_programs(
    boards: list[SleepingBoard], model: Path, tables: Path, capsys: Streams
) -> None:
    boards[3].away = True
    assert profile(model, "--json", "--threads", "2") == EXIT_CODES["device"]
    found = json.loads(capsys.readouterr().out)
    assert [board["board"] for board in found["boards"]] == ["lab-1", "lab-2", "lab-3", "lab-4"]
    assert [board["missing"] for board in found["boards"][:3]] == [0, 0, 0]
    assert {board["threads"] for board in found["boards"]} == {2}
    assert found["boards"][0]["error"] is None
    assert found["boards"][3]["error"]["kind"] == "device"
    (table,) = found["tables"]
    assert table["table"] == str(tables / "pi4-lab")
    assert table["boards"] == ["lab-1", "lab-2", "lab-3"]
    (difference,) = found["differences"]
    assert (difference["board"], difference["against"]) == ("lab-3", None)
    assert difference["ratio"] == pytest.approx(1.5, abs=0.1)
    assert found["error"]["kind"] == "device"


def test_errors_stay_where_the_report_is_left_out(
    boards: list[SleepingBoard], model: Path, capsys: Streams
) -> None:
    boards[3].away = True
    assert profile(model, "--quiet") == EXIT_CODES["device"]
    out, err = capsys.readouterr()
    assert out == ""
    assert "lab-4: ssh://pi@lab-4: no route to it" in err


def test_no_time_leaves_the_rest_to_the_next_call(
    boards: list[SleepingBoard], model: Path, tables: Path, capsys: Streams
) -> None:
    assert profile(model, "--budget-minutes", "0") == EXIT_CODES["device"]
    text = " ".join(capsys.readouterr().out.split())
    assert "time up" in text
    assert "run the same command again to go on with what is left" in text
    assert profile(model) == 0


def test_ctrl_c_keeps_what_is_done(
    boards: list[SleepingBoard],
    model: Path,
    tables: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Streams,
) -> None:
    for board in boards:
        board.sleep_s = 0.1
    monkeypatch.setattr("shrinkc.compiler.devices.fleet.side_by_side.PAUSE_S", 0.05)
    waited, stopped = threading.Thread.join, list[str]()

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        waited(thread, timeout)
        if thread.name.startswith("device") and min(b.seen for b in boards) and not stopped:
            stopped.append(thread.name)
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    assert profile(model) == EXIT_CODES["interrupted"]
    assert "run the same command again to go on" in capsys.readouterr().err
    kept = [path.name for path in tables.glob("*.profile.jsonl")]
    assert len(kept) == 4
    seen = [board.seen for board in boards]
    for board in boards:
        board.sleep_s = 0.0
    assert profile(model, "--json") == 0
    whole = 3 * 13  # passes, over ten operators in two groups
    assert all(
        0 < before < board.seen < before + whole for before, board in zip(seen, boards, strict=True)
    )
    found = json.loads(capsys.readouterr().out)
    assert {board["missing"] for board in found["boards"]} == {0}
    assert not list(tables.glob("*.profile.jsonl"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--on", "host"), "--on beside --fleet"),
        (("--target", "a"), "--target beside --fleet"),
        (("--precision", "fp16"), "boards.toml: lab-1: --precision fp16"),
        (("--runtime", "ncnn"), "boards.toml: lab-1: --runtime ncnn"),
    ],
)
def test_what_does_not_go_with_a_fleet(
    more: tuple[str, ...], message: str, model: Path, tables: Path, capsys: Streams
) -> None:
    assert profile(model, *more) == 2
    assert message in capsys.readouterr().err
    assert not tables.exists()


def test_bench_beside_a_device(files: list[str], capsys: Streams) -> None:
    assert main(["bench", files[0], "--on", "host", "--fleet", "boards.toml"]) == 2
    assert "--on beside --fleet" in capsys.readouterr().err


def test_a_fleet_that_is_none(model: Path, tables: Path, tmp_path: Path, capsys: Streams) -> None:
    boards = [{"name": "a", "address": "host", "kind": "k"}] * 2
    fleet_file(tmp_path / "boards.toml", boards)
    assert profile(model) == 2
    assert "boards.toml: a: listed 2 times" in capsys.readouterr().err
    (tmp_path / "boards.toml").unlink()
    assert profile(model) == EXIT_CODES["unreadable"]
    assert "boards.toml: cannot be read" in capsys.readouterr().err


def test_a_board_that_cannot_be_reached(model: Path, tmp_path: Path, capsys: Streams) -> None:
    board = {"name": "a", "address": "ssh://nobody@127.0.0.1:1", "kind": "k", "target": "t"}
    fleet_file(tmp_path / "boards.toml", [board])
    assert profile(model) == EXIT_CODES["device"]
    assert "a: ssh" in capsys.readouterr().out  # refused, or no ssh here


# --- bench ---------------------------------------------------------------------------------------


def bench(*arguments: str) -> int:
    return main(["bench", *arguments, "--fleet", "boards.toml"])


def test_a_bench_at_80_columns(
    boards: list[SleepingBoard], files: list[str], capsys: Streams
) -> None:
    boards[3].away = True
    assert bench(files[0]) == EXIT_CODES["device"]
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 80
    text = " ".join(out.split())
    assert "timed: net.tflite, 20 runs" in text
    assert "lab-3 takes 1.5" in text
    assert "more than their noise" in text
    assert "lab-4: ssh://pi@lab-4: no route to it" in text
    assert err == "shrinkc: of 4 boards not all went well: lab-4\n"


def test_two_files_on_every_board(
    boards: list[SleepingBoard], files: list[str], capsys: Streams
) -> None:
    assert bench(files[0], "--compare", files[1]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "first: net.tflite" in out
    assert "second: second.tflite" in out
    assert "ratio" in out
    assert bench(files[0], "--compare", files[1], "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [board["device"] for board in found["boards"]] == [b.name for b in boards]
    assert all(board["compare"]["ratio"] > 1 for board in found["boards"])
    (difference,) = found["differences"]
    assert (difference["board"], difference["beyond_noise"]) == ("lab-3", 2)


def test_a_board_that_computes_something_else(
    boards: list[SleepingBoard], files: list[str], capsys: Streams
) -> None:
    boards[1].factor = 1.5
    assert bench(files[0], "--json") == EXIT_CODES["verification"]
    found = json.loads(capsys.readouterr().out)
    assert [board["outputs_equal"] for board in found["boards"]] == [True, False, True, True]
    assert found["boards"][1]["error"]["kind"] == "verification"
    assert found["boards"][1]["median_ms"] > 0
    assert found["error"]["kind"] == "verification"


def test_ctrl_c_shows_the_boards_that_were_timed(
    boards: list[SleepingBoard],
    files: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Streams,
) -> None:
    boards[3].sleep_s = 20.0
    monkeypatch.setattr("shrinkc.compiler.devices.fleet.side_by_side.PAUSE_S", 0.05)
    waited, started = threading.Thread.join, time.monotonic()

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        waited(thread, timeout)
        if thread.name == "device 4":  # the others are done
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    assert bench(files[0], "--json") == EXIT_CODES["interrupted"]
    assert time.monotonic() - started < 15
    found = json.loads(capsys.readouterr().out)
    assert [board["board"] for board in found["boards"]] == ["lab-1", "lab-2", "lab-3"]
    assert found["error"]["kind"] == "interrupted"


# --- Python --------------------------------------------------------------------------------------


def test_python(boards: list[SleepingBoard], files: list[str], model: Path) -> None:
    timed = shrinkc.bench(*files, fleet="boards.toml", runs=20)
    assert [row.board.name for row in timed.boards] == ["lab-1", "lab-2", "lab-3", "lab-4"]
    assert timed.errors == ()
    assert [one.board for one in timed.differences] == ["lab-3"]
    found = shrinkc.profile(
        shrinkc.ModelFile(model), fleet="boards.toml", inputs=torch.zeros(1, 3, 16, 16)
    )
    assert [table.target for table in found.tables] == ["pi4-lab"]
    assert [one.board for one in found.differences] == ["lab-3"]
    call: Any = shrinkc.profile
    with pytest.raises(InputError, match="`on` beside `fleet`"):
        call(fleet="boards.toml", on="host")
    with pytest.raises(InputError, match="no `target`"):
        call(on="host")
    call = shrinkc.bench
    with pytest.raises(InputError, match="`on` beside `fleet`"):
        call(files[0], fleet="boards.toml", on="host")
