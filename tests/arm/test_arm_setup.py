"""What building and reading the emulator does without one."""

import subprocess
import sys
from pathlib import Path

import pytest
from arm_emulator import SITES, EmulatorError, between
from build_root import keep, run

SCRIPT = Path(__file__).with_name("build_root.py")


def test_instructions_between_marks() -> None:
    assert between("0 100 9 9 9\n1 350 19 29 39\n0 400 40 40 40\n1 401 41 40 40\n") == [
        (250, 10, 20, 30),
        (1, 1, 0, 0),
    ]
    assert between("") == []


@pytest.mark.parametrize("marks", ["0 1\n", "1 1\n0 2\n", "0 1\n0 2\n"])
def test_marks_that_are_no_pairs(marks: str) -> None:
    with pytest.raises(EmulatorError, match="pairs"):
        between(marks)


def test_a_system_without_apt_is_told_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "make test-arm: the emulated Arm needs apt-get; not found here: "
        "install a Debian or Ubuntu system\n"
    )


def test_a_failed_command_is_one_line() -> None:
    script = "import sys; print('working'); sys.exit('E: no such package')"
    with pytest.raises(SystemExit) as stopped:
        run(sys.executable, "-c", script, hint="is it spelt right?")
    message = str(stopped.value)
    assert message.endswith("failed: E: no such package; is it spelt right?")
    assert "\n" not in message


def test_parts_are_made_once_for_each_recipe(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "content").write_text(str(len(made)))

    for recipe in ("a", "a", "b", "b"):
        keep(tmp_path / "part", recipe, make)
    assert len(made) == 2
    assert (tmp_path / "part" / "content").read_text() == "2"


def test_a_part_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "content").write_text("half")
        raise SystemExit("no network")

    keep(tmp_path / "part", "a", lambda folder: (folder / "content").write_text("whole"))
    with pytest.raises(SystemExit, match="no network"):
        keep(tmp_path / "part", "b", fail)
    assert (tmp_path / "part" / "content").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_wheels_that_exist_for_some_pythons_only() -> None:
    assert SITES["tflite-runtime"].serves("3.11")
    assert not SITES["tflite-runtime"].serves("3.13")
    assert SITES["current"].serves("3.13")
