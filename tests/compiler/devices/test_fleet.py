"""A fleet's file, the threads of its boards, and which boards differ."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sleeping_boards import fleet_file, lab

from shrinkc.compiler.devices.adb import Adb
from shrinkc.compiler.devices.benchmark_model import BenchmarkModel
from shrinkc.compiler.devices.fleet.differences import differences
from shrinkc.compiler.devices.fleet.file import MAX_BOARDS, MAX_BYTES, Board, read_fleet
from shrinkc.compiler.devices.fleet.side_by_side import side_by_side
from shrinkc.compiler.devices.jobs import Setup
from shrinkc.compiler.devices.samples import iqr
from shrinkc.compiler.devices.ssh import Ssh
from shrinkc.errors import InputError, LoadError, ShrinkcError
from shrinkc.latency_tables.measured import Measurement

ROOT = Path(__file__).resolve().parents[3]


def board(number: int = 1, **more: Any) -> dict[str, Any]:
    plain = {"name": f"lab-{number}", "address": f"ssh://pi@lab-{number}", "kind": "pi4"}
    return {**plain, **more}


def read(path: Path, *boards: dict[str, Any]) -> tuple[Board, ...]:
    return read_fleet(fleet_file(path / "boards.toml", boards)).boards


def test_what_one_board_states_holds_for_its_kind(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        board(1, target="pi4-lab", threads=4),
        board(2, runtime="onnxruntime"),
        board(3, kind="pixel", address="adb:8A1X"),
    )
    assert found[:2] == (
        Board("lab-1", "pi4", Ssh("lab-1", "pi"), "pi4-lab", "onnxruntime", 4),
        Board("lab-2", "pi4", Ssh("lab-2", "pi"), "pi4-lab", "onnxruntime", 4),
    )
    assert found[2] == Board("lab-3", "pixel", Adb("8A1X"))
    assert found[1].setup(Setup("tflite", 2, 9.0)) == Setup("onnxruntime", 4, 9.0)
    assert found[2].setup(Setup("tflite", 2, 9.0)) == Setup("tflite", 2, 9.0)


def test_benchmark_model_beside_the_file_or_on_the_phone(tmp_path: Path) -> None:
    phones = [board(i, kind="pixel", address=f"adb:S{i}") for i in (1, 2)]
    phones[0]["benchmark_model"] = "/data/local/tmp/tool"
    assert [b.device for b in read(tmp_path, *phones)] == [
        BenchmarkModel("S1", "/data/local/tmp/tool"),
        BenchmarkModel("S2", "/data/local/tmp/tool"),
    ]
    (tmp_path / "tool").write_text("")
    phones[0]["benchmark_model"] = "tool"
    (first, _) = read(tmp_path, *phones)
    assert first.device == BenchmarkModel("S1", str(tmp_path / "tool"))
    del phones[0]["benchmark_model"]
    path = fleet_file(tmp_path / "boards.toml", [*phones, board(3)])
    given = [one.device for one in read_fleet(path, "other").boards]
    assert given == [
        BenchmarkModel("S1", "other"),
        BenchmarkModel("S2", "other"),
        Ssh("lab-3", "pi"),
    ]


def test_the_documents_example(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "devices.md").read_text("utf-8")
    path = tmp_path / "boards.toml"
    path.write_text(text.partition("```toml\n")[2].partition("```")[0])
    first, second, phone = read_fleet(path).boards
    assert (first.target, first.threads) == (second.target, second.threads) == ("pi4-lab", 4)
    assert phone.device == BenchmarkModel("8A1X0QZ", "tools/benchmark_model")


@pytest.mark.parametrize(
    ("boards", "message"),
    [
        ([], "no board in it"),
        ([board(), board()], "lab-1: listed 2 times"),
        ([board(), board(2, name="LAB-1")], "lab-1 and LAB-1: listed 2 times"),
        ([board(), board(2, address="ssh://pi@lab-1")], "lab-1 and lab-2 are one board"),
        ([board(), board(2, address="ssh://other@LAB-1:22/bin/python")], "are one board"),
        ([board(address="host"), board(2, address="host")], "both are at host"),
        ([board(), board(2, colour="red")], "lab-2: unknown key colour; known: name, address"),
        ([board(runtime="ncnn")], "lab-1: runtime ncnn: ssh://pi@lab-1 has tflite, onnxruntime"),
        ([board(address="telnet://x")], "lab-1: no device 'telnet://x': write one of host"),
        ([board(target="No Such")], "lab-1: 'No Such' is not a target"),
        ([{"name": "a", "kind": "b"}], "a: no address; a board has name, address, kind"),
        ([{"address": "host", "kind": "b"}], "board 1: no name"),
        ([board(threads=0)], "lab-1: threads is no whole number from 1 to 1,024"),
        ([board(threads="4")], "lab-1: threads is no whole number"),
        ([board(kind=3)], "lab-1: kind is no text"),
        ([board(name="../x")], "../x: name ../x: write up to 60 letters"),
        ([board(name="a" * 300)], "name is no text of 1 to 200"),
        ([board(benchmark_model="x")], "lab-1: benchmark_model is for phones"),
        (
            [board(threads=1), board(2, threads=2)],
            "lab-2: threads 2, and lab-1, of the same kind pi4, has 1",
        ),
        (
            [board(target="a"), board(2, target="b")],
            "lab-2: target b, and lab-1, of the same kind pi4, has a",
        ),
        (
            [board(target="a"), board(2, kind="pi5", target="a")],
            "lab-1 (pi4) and lab-2 (pi5) are of different kinds and would fill one table, a",
        ),
        ([board(i) for i in range(MAX_BOARDS + 1)], "1,001 boards; at most 1,000"),
    ],
)
def test_what_no_fleet_can_be(tmp_path: Path, boards: list[Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, *boards)
    assert str(caught.value).startswith(f"{tmp_path / 'boards.toml'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, LoadError, "cannot be read"),
        (b"", InputError, "no board in it"),
        (b"boards = 3", InputError, "boards is no list"),
        (b"boards = [1]", InputError, "boards is no list"),
        (b"[[board]]\nname = 'a'", InputError, "unknown key board; known: boards"),
        (b"[[boards]\n", LoadError, "not valid TOML"),
        (b"\xff\xfe", LoadError, "not valid TOML"),
        (b"a = " + b"[" * 5000, LoadError, "not valid TOML"),
        (b"#" * (MAX_BYTES + 1), LoadError, "the limit is"),
    ],
)
def test_files_that_hold_no_fleet(
    tmp_path: Path, content: bytes | None, error: type[ShrinkcError], message: str
) -> None:
    path = tmp_path / "boards.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        read_fleet(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="a folder"):
        read_fleet(tmp_path)


def test_as_many_boards_as_there_may_be_are_read_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    assert len(read_fleet(lab(tmp_path / "boards.toml", MAX_BOARDS)).boards) == MAX_BOARDS
    assert time.monotonic() - started < 5


# --- threads -------------------------------------------------------------------------------------


def test_waiting_is_side_by_side_and_in_order() -> None:
    started = time.monotonic()

    def work(item: int) -> int:
        time.sleep(0.2 + 0.001 * (50 - item))
        return item * 2

    assert side_by_side(range(50), work, threading.Event()) == [2 * i for i in range(50)]
    assert time.monotonic() - started < 2


def test_a_bug_stops_the_others_and_is_told() -> None:
    stop, ended = threading.Event(), list[int]()

    def work(item: int) -> None:
        if item == 3:
            raise ZeroDivisionError
        assert stop.wait(20)
        ended.append(item)

    with pytest.raises(ZeroDivisionError):
        side_by_side(range(5), work, stop)
    assert sorted(ended) == [0, 1, 2, 4]


# --- differences ---------------------------------------------------------------------------------


def measurement(usual: float, noise: float, dice: random.Random, runs: int = 18) -> Measurement:
    times = sorted(usual * dice.gauss(1, noise) for _ in range(runs))
    return Measurement((times[runs // 2 - 1] + times[runs // 2]) / 2, iqr(times), runs)


def measured(slower: dict[str, float], noise: float = 0.05) -> dict[str, dict[int, Measurement]]:
    """200 operators of 20 to 2,000 µs on every board."""
    dice = random.Random(0)
    return {
        name: {key: measurement(20 + 10 * key * factor, noise, dice) for key in range(1, 200)}
        for name, factor in slower.items()
    }


def test_equal_boards_do_not_differ() -> None:
    for noise in (0.001, 0.02, 0.1, 0.3):
        assert differences("k", measured(dict.fromkeys("abcdefgh", 1.0), noise)) == ()
        assert differences("k", measured(dict.fromkeys("ab", 1.0), noise)) == ()


def test_one_that_is_slower_is_named_by_the_kinds_median() -> None:
    (found,) = differences("k", measured({"a": 1, "b": 1, "c": 1.5, "d": 1}))
    assert (found.board, found.kind, found.against, found.compared) == ("c", "k", None, 199)
    assert found.ratio == pytest.approx(1.5, abs=0.03)
    assert found.beyond > 190
    (faster,) = differences("k", measured({"a": 1, "b": 1, "c": 0.7, "d": 1}))
    assert faster.ratio == pytest.approx(0.7, abs=0.03)


def test_two_boards_have_no_middle() -> None:
    (found,) = differences("k", measured({"a": 1.4, "b": 1}))
    assert (found.board, found.against) == ("a", "b")
    assert found.ratio == pytest.approx(1.4, abs=0.03)


def test_what_the_noise_hides_is_no_difference() -> None:
    assert differences("k", measured({"a": 1, "b": 1, "c": 1.05}, 0.1)) == ()
    (found,) = differences("k", measured({"a": 1, "b": 1, "c": 1.05}, 0.005))
    assert found.board == "c"


def test_a_board_alone_or_with_few_runs_tells_nothing() -> None:
    alone = {"a": {1: Measurement(9.0, 0.1, 20)}}
    assert differences("k", alone) == ()
    single = Measurement(90.0, 0.0, 1)
    assert differences("k", {**alone, "b": {1: single}}) == ()
    assert differences("k", {**alone, "b": {2: Measurement(90.0, 0.1, 20)}}) == ()


def test_one_kind_of_operator_alone() -> None:
    boards = measured({"a": 1, "b": 1, "c": 1})
    slow = {k: Measurement(3 * m.median_us, m.iqr_us, m.runs) for k, m in boards["c"].items()}
    boards["c"].update({key: slow[key] for key in range(1, 40)})
    (found,) = differences("k", boards)
    assert found.beyond == 39
    assert found.ratio == pytest.approx(3, abs=0.1)
    boards["c"].update(
        {key: boards["a"][key] for key in range(6, 40)}
    )  # five of 199: a disturbance
    assert differences("k", boards) == ()
