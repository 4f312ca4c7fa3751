"""Pipes, devices, sockets, links to themselves and names that are no UTF-8, wherever a command
takes a path: one line, an exit code of its kind, and nobody waits."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from shrinkc.compiler.cli.main import main

Streams = pytest.CaptureFixture[str]


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "socket": bound,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "zeros without end": lambda path: path.symlink_to("/dev/zero"),
    "a device": lambda path: path.symlink_to("/dev/full"),
    "a file of proc": lambda path: path.symlink_to("/proc/self/pagemap"),
    "a folder": lambda path: path.mkdir(),
    "nonsense": lambda path: path.write_bytes(b"\x1b[31m\0\xff" * 99),
    "nothing": lambda path: path.touch(),
}
IMAGES = ("shrink", "{model}", "--target", "rpi4", "--speedup", "1.1", "--images")
COMMANDS: dict[str, tuple[str, ...]] = {
    "model": ("inspect", "{odd}", "--input", "1,3,8,8"),
    "model to compile": ("{odd}", "--target", "rpi4"),
    "model to price": ("estimate", "{odd}", "--target", "rpi4"),
    "model to time": ("bench", "{odd}"),
    "table": ("tables", "show", "{odd}"),
    "target": ("estimate", "{model}", "--target", "{odd}", "--input", "1,3,8,8"),
    "log": ("tables", "--log", "{odd}"),
    "images": (*IMAGES, "{odd}"),
    "class indices": (*IMAGES, "{images}", "--classes", "{odd}"),
    "labels": (*IMAGES, "{images}", "--annotations", "{odd}"),
    "plan": ("apply", "{model}", "{odd}"),
    "folder to compare": ("compare", "{odd}", "{odd}"),
    "file to compare": ("compare", "{odd}", "{model}"),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("given")
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3)), folder / "m.pt")
    for name in ("cat", "dog"):
        (folder / "images" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "images" / name / "a.png")
    return {"model": str(folder / "m.pt"), "images": str(folder / "images")}


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", COMMANDS)
def test_paths(
    given: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Streams,
    place: str,
    kind: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = Path(os.fsdecode(b"\xff\x1b[31m"))
    KINDS[kind](odd)
    command = [word.format(**given, odd=odd) for word in COMMANDS[place]]
    with at_most(10):
        code = main(command)
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    if place == "log" and kind in ("nonsense", "nothing", "a link to nothing"):
        assert code == 0
        return
    assert 2 <= code <= 8
    assert len(err.splitlines()) == 1, err
    assert out == ""


TO = ("{model}", "--target", "rpi4", "--input", "1,3,8,8", "--runs", "0")
PRUNED = ("prune", *TO, "--macs", "0.7")
SENSITIVITY = ("sensitivity", "{model}", "--input", "1,3,8,8", "--images", "{images}")
ON_HOST = ("--on", "host", "--precision", "fp32")
OUTPUTS: dict[str, tuple[str, ...]] = {
    "files": (*TO, "-o", "{odd}"),
    "planned files": (*TO, "--images", "{images}", "--speedup", "1.1", "-o", "{odd}"),
    "pruned files": (*PRUNED, "-o", "{odd}"),
    "shrunk files": ("shrink", *TO, "--images", "{images}", "--speedup", "1.1", "-o", "{odd}"),
    "files of a plan": ("apply", "{model}", "not-read/plan.json", *TO[1:], "-o", "{odd}"),
    "a plot of widths": (*PRUNED, "--plot", "{odd}", "-o", "out"),
    "a plot of sensitivity": (*SENSITIVITY, "--plot", "{odd}"),
    "a profile": ("profile", "{model}", "--target", "odd", *ON_HOST, "--input", "1,3,8,8"),
    "a calibration": ("calibrate", "rpi4/tflite-ruy", *ON_HOST, "--name", "odd"),
    "a table": ("tables", "export", "rpi4", "{odd}"),
    "a plot of a table": ("tables", "show", "rpi4", "--plot", "{odd}"),
    "a log": ("tables", "--log", "{odd}"),
}
NO_FILES = ("pipe", "socket", "a link to itself", "zeros without end", "a device")
OF_FOLDERS = ("files", "profile", "calibration")


def written(place: str, kind: str) -> bool:
    """A folder is as good as none where files go, and a file where one file goes."""
    folder = any(word in place for word in OF_FOLDERS)
    return kind == ("a folder" if folder else "nothing")


@pytest.mark.parametrize(
    ("place", "kind"),
    [(p, k) for p in OUTPUTS for k in (*NO_FILES, "a folder", "nothing") if not written(p, k)],
)
def test_what_is_written(
    given: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Streams,
    place: str,
    kind: str,
) -> None:
    """What is no file is neither written to nor replaced, and no work is done before it is told."""
    if "plot" in place:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHRINKC_TABLES", str(tmp_path))
    odd = Path("odd")
    KINDS[kind](odd)
    before = odd.lstat()
    with at_most(20):
        code = main([word.format(**given, odd=odd) for word in OUTPUTS[place]])
    out, err = capsys.readouterr()
    assert code == 2
    assert len(err.splitlines()) == 1, err
    assert "odd: " in err
    assert out == ""
    assert (odd.lstat().st_ino, odd.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["odd"]
