"""What was measured and kept: damage costs the damaged line alone."""

import math
import os
from pathlib import Path

import pytest

from shrinkc.compiler.support.journal import Journal
from shrinkc.compiler.support.reading.checked_lines import append_lines, read_lines


def filled(folder: Path) -> Path:
    journal = Journal(folder, "j")
    for label, numbers in (("a", [1.5]), ("b", [2.0, math.nan, math.inf]), ("c", []), ("ü\n", [3])):
        journal.put(label, [float(x) for x in numbers])
    assert journal.path is not None
    return journal.path


def test_what_is_put_is_there_again(tmp_path: Path) -> None:
    filled(tmp_path)
    found = Journal(tmp_path, "j").entries
    assert found["a"] == [1.5]
    assert found["b"][0] == 2.0
    assert math.isnan(found["b"][1])
    assert found["b"][2] == math.inf
    assert found["c"] == []
    assert found["ü\n"] == [3.0]
    assert set(Journal(tmp_path, "j", count=1).entries) == {"a", "ü\n"}
    assert Journal(None, "j").entries == {}


def test_nan_is_no_measurement(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "j")
    journal.put("a", [math.nan])
    journal.put("b", [1.0])
    assert math.isnan(journal.entries["a"][0])  # of this run
    assert Journal(tmp_path, "j").entries == {"b": [1.0]}


def test_every_bit_is_checked(tmp_path: Path) -> None:
    path = filled(tmp_path)
    whole, known = path.read_bytes(), repr(Journal(tmp_path, "j").entries)
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1 << place % 8
        path.write_bytes(broken)
        found = Journal(tmp_path, "j").entries
        assert len(found) >= 2  # a line's end costs both
        assert all(repr(item)[1:-1].replace(", [", ": [", 1) in known for item in found.items())


def test_nothing_is_lost_behind_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = filled(tmp_path)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        before = Journal(tmp_path, "j").entries
        Journal(tmp_path, "j").put("more", [4.0])
        assert repr(Journal(tmp_path, "j").entries) == repr({**before, "more": [4.0]})


@pytest.mark.parametrize(
    "raw",
    [
        *(b"\xff\xfe\n", b"[" * 100_000 + b"\n", b'["c", 1' + b"0" * 5000 + b"]\n", b"\0" * 99),
        *(b'["a", 1.0]\n', b'["a", NaN]\n', b"\n\n\n", b"2 0 []\n", b"-1 -1 []\n", b"a b c\n"),
    ],
)
def test_other_bytes(tmp_path: Path, raw: bytes) -> None:
    """Journals of earlier versions among them."""
    (tmp_path / "j.jsonl").write_bytes(raw)
    assert Journal(tmp_path, "j").entries == {}
    Journal(tmp_path, "j").put("b", [2.0])
    assert Journal(tmp_path, "j").entries == {"b": [2.0]}


@pytest.mark.parametrize(
    "value",
    [[], {}, "a", 5, [5, 1.0], ["a", "x"], ["a", None], ["a", True], ["a", [1]], ["a", 10**400]],
    ids=str,
)
def test_lines_that_hold_something_else(tmp_path: Path, value: object) -> None:
    with (tmp_path / "j.jsonl").open("ab+") as file:
        append_lines(file.fileno(), [value])
    assert Journal(tmp_path, "j").entries == {}


def test_what_is_no_file_holds_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "j.jsonl")
    journal = Journal(tmp_path, "j")
    assert journal.entries == {}
    for index in range(2000):  # more than a pipe holds until somebody reads it
        journal.put(f"a label of {index}", [1.0] * 9)
    assert len(journal.entries) == 2000
    assert (tmp_path / "j.jsonl").is_fifo()
    assert list(read_lines(tmp_path / "missing")) == []
