"""What nobody caught is one line, too: a system that refuses, little memory, bugs."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from shrinkc.compiler.api.steps import network
from shrinkc.compiler.cli.main import main
from shrinkc.compiler.support.disk import cache
from shrinkc.errors import EXIT_CODES

Streams = pytest.CaptureFixture[str]
FULL = Path("/dev/full")


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model.pt"
    torch.save(nn.Conv2d(3, 4, 3), path)
    return str(path)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHRINKC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(network, "capture", fail)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EMFILE, "Too many open files", "x"), "x: too many open files; raise the"),
        (OSError(errno.EROFS, "Read-only file system", "/y"), "/y: read-only file system; write"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk quota exceeded; free some space"),
        (OSError(errno.ENOENT, "No such file", "a\x1b[2Jb"), "'a\\x1b[2Jb': no such file; check"),
        (OSError("an odd one"), "an odd one; check the path"),
        (MemoryError(), "there is not enough memory; end other programs"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "there is not enough memory"),
        (ImportError("libtorch: failed to map segment from"), "there is not enough memory; end"),
    ],
)
def test_the_system_refuses(
    model: str,
    error: Exception,
    message: str,
    capsys: Streams,
    monkeypatch: pytest.MonkeyPatch,
    kept: Path,
) -> None:
    failing(monkeypatch, error)
    assert main(["inspect", model, "--json"]) == EXIT_CODES["usage"]
    out, err = capsys.readouterr()
    assert err.startswith(f"shrinkc: {message}")
    assert err.count("\n") == 1
    assert json.loads(out)["error"]["kind"] == "usage"
    assert not kept.exists()


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero\nor so"), RecursionError("too deep")])
def test_a_bug(
    model: str, error: Exception, capsys: Streams, monkeypatch: pytest.MonkeyPatch, kept: Path
) -> None:
    failing(monkeypatch, error)
    assert main(["inspect", model, "--json"]) == EXIT_CODES["internal"] == 70
    out, err = capsys.readouterr()
    (written,) = (kept / "bugs").iterdir()
    told = json.loads(out)["error"]
    assert told["kind"] == "internal"
    assert told["message"].startswith(f"a bug in shrinkc: {type(error).__name__}: ")
    assert told["message"].endswith(f"; its traceback is in {written}")
    assert err == f"shrinkc: {told['message']}; {told['hint']}\n"
    text = written.read_text()
    assert f"shrinkc inspect {model} --json" in text
    assert "in fail" in text


def test_a_bug_without_a_cache(
    model: str, tmp_path: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch, kept: Path
) -> None:
    """Its traceback goes to the temporary files, and the line comes without them, too."""
    failing(monkeypatch, ZeroDivisionError())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert main(["inspect", model, "--no-cache"]) == 70
    (written,) = (tmp_path / "temporary").iterdir()
    assert str(written) in capsys.readouterr().err
    assert not kept.exists()
    kept.touch()  # no folder can be made there
    assert main(["inspect", model]) == 70
    assert str(tmp_path / "temporary") in capsys.readouterr().err
    monkeypatch.setattr("tempfile.tempdir", str(kept))
    assert main(["inspect", model]) == 70
    assert capsys.readouterr().err == (
        "shrinkc: a bug in shrinkc: ZeroDivisionError; please report it\n"
    )


def run(
    words: Sequence[str], limit: Callable[[], None] | None = None, **files: int | Path
) -> tuple[int, str, str]:
    """Exit code and streams; those of `files` go there instead."""
    opened = {name: os.open(path, os.O_WRONLY) for name, path in files.items()}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **opened}
    program = "import sys; from shrinkc.compiler.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, preexec_fn=limit, text=True, check=False, **pipes)
    for descriptor in opened.values():
        os.close(descriptor)
    return done.returncode, done.stdout or "", done.stderr or ""


@pytest.mark.skipif(not FULL.exists(), reason="Linux only")
@pytest.mark.parametrize("words", [["tables"], ["tables", "--json"], ["--version"], ["--help"]])
def test_a_full_stdout(words: list[str]) -> None:
    code, _, err = run(words, stdout=FULL)
    assert (code, err) == (
        2,
        "shrinkc: no space left on device; free some space, or write elsewhere\n",
    )


@pytest.mark.skipif(not FULL.exists(), reason="Linux only")
def test_a_full_stderr_keeps_nobody_from_answering() -> None:
    code, out, _ = run(["tables", "--jso"], stderr=FULL)
    assert (code, out) == (2, "")
    code, out, _ = run(["tables", "--json"], stderr=FULL)
    assert (code, json.loads(out)["tables"][0].keys() >= {"target"}) == (0, True)


def test_files_that_may_not_grow(model: str, tmp_path: Path) -> None:
    """RLIMIT_FSIZE, as a batch system sets it."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    given = [model, "--target", "rpi4", "--input", "1,3,8,8", "--runs", "0"]
    code, _, err = run([*given, "-o", str(tmp_path / "out")], limit)
    assert code == 2
    assert "a file is larger than may be written there; raise the limit (ulimit -f)" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_cache_is_shown_and_cleared(kept: Path, capsys: Streams) -> None:
    (kept / "damages").mkdir(parents=True)
    (kept / "damages" / "a.jsonl").write_bytes(b"x" * 2048)
    (kept / "notes.txt").write_text("the user's own")
    assert main(["cache", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["folder"], found["bytes"]) == (str(kept), 2048)
    assert [part["files"] for part in found["parts"] if part["name"] == "damages"] == [1]
    assert main(["cache"]) == 0
    assert f"{kept}: 2.0 KiB of at most" in capsys.readouterr().out
    assert main(["cache", "clear"]) == 0
    assert "removed 2.0 KiB" in capsys.readouterr().out
    assert [path.name for path in kept.iterdir()] == ["notes.txt"]
    assert main(["cache", "--no-cache"]) == 0
    assert capsys.readouterr().out.startswith("nothing is kept")


@pytest.mark.parametrize("given", ["a file", "a file/below"])
def test_a_cache_that_cannot_be_written_is_none(
    given: str, model: str, tmp_path: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("SHRINKC_CACHE", str(tmp_path / given))
    assert main(["estimate", model, "--target", "host", "--input", "1,3,8,8"]) == 0
    assert main(["cache"]) == 0
    assert "nothing is kept" in capsys.readouterr().out


def test_what_was_not_used_for_longest_goes_first(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LIMIT_BYTES", 250)
    cache._trim.cache_clear()  # pyright: ignore[reportPrivateUsage]
    for age, name in enumerate(("new", "older", "oldest")):
        path = kept / "damages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
        os.utime(path, (1e9 - age, 1e9 - age))
    assert cache.kept("host") == kept / "host"
    assert sorted(path.name for path in (kept / "damages").iterdir()) == ["new", "older"]


def test_no_cache_keeps_nothing(
    model: str, capsys: Streams, monkeypatch: pytest.MonkeyPatch, kept: Path
) -> None:
    given = ["estimate", model, "--target", "host", "--input", "1,3,8,8"]
    assert main([*given, "--no-cache"]) == 0
    assert not kept.exists()
    assert main(given) == 0
    assert [path.name for path in kept.iterdir()] == ["host"]
    capsys.readouterr()
