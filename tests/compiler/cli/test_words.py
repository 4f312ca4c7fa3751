"""Words that are wrong: neither a command, nor a file, nor a target."""

from __future__ import annotations

from pathlib import Path

import pytest

from shrinkc.compiler.cli.app import app
from shrinkc.compiler.cli.main import main

Streams = pytest.CaptureFixture[str]


def line(words: list[str], streams: Streams, code: int = 2) -> str:
    assert main(words) == code
    out, err = streams.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def test_a_mistyped_command_names_both_readings(capsys: Streams) -> None:
    said = line(["compil", "x.pt", "--target", "rpi4"], capsys)
    assert "'compil' is no command (did you mean compile?), and there is no file of that" in said


def test_a_file_that_is_missing_names_both_readings(capsys: Streams) -> None:
    said = line(["resnet50.pt", "--target", "rpi4"], capsys)
    assert "'resnet50.pt' is no command, and there is no file of that name to compile" in said


def test_a_file_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("compil").write_text("no weights")
    assert "compil: " in line(["compil", "--target", "rpi4"], capsys, 3)
    assert "compil: " in line(["--target", "rpi4", "compil"], capsys, 3)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["tables", "shw"], "Did you mean 'show'?"),
        (["estimate", "x.pt", "--tagret", "rpi4"], "--target"),
        (["tables", "show", "pixl4"], "did you mean pixel4?"),
    ],
)
def test_near_words_are_named(words: list[str], meant: str, capsys: Streams) -> None:
    assert meant in line(words, capsys)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "shrinkc estimate --target rpi5",
            {"rpi5", "rpi5/tflite-xnnpack", "rpi5/tflite-xnnpack-t1"},
        ),
        ("shrinkc model.pt --target hos", {"host"}),
        ("shrinkc prune --criterion h", {"hrank", "he"}),
        ("shrinkc shrink --method two", {"two-stage-dp"}),
        ("shrinkc bench --on c", {"cuda"}),
        ("shrinkc compile --int8-tuning b", {"bias", "both"}),
        ("shrinkc pru", {"prune"}),
        ("shrinkc tables sh", {"show"}),
    ],
)
def test_a_shell_completes(
    words: str, expected: set[str], capsys: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_SHRINKC_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit):
        app(prog_name="shrinkc")
    assert set(capsys.readouterr().out.split()) == expected


def test_the_completion_script_can_be_shown(
    capsys: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))
    with pytest.raises(SystemExit):
        main(["--show-completion"])
    assert "complete" in capsys.readouterr().out
