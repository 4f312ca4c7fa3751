"""Readers that do what none may, so that a test sees each of it found."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

from reader import Files, Reader

from shrinkc.errors import LoadError

_kept: list[bytes] = []


def _traceback() -> None:
    raise KeyError("a bug")


def _message() -> None:
    raise LoadError("as long as the file" * 1000)


def _memory() -> None:
    _kept.append(bytes(3 << 30))


def _memory_told() -> None:
    try:
        bytes(3 << 30)
    except MemoryError as error:
        raise LoadError("damaged") from error


def _code() -> None:
    exec("x = 1")


def _process() -> None:
    os.system("true")


def _outside() -> None:
    Path(f"/tmp/shrinkc-fuzz-{os.getpid()}").touch()
    Path(f"/tmp/shrinkc-fuzz-{os.getpid()}").unlink()


def _here() -> None:
    Path("left").touch()


def _crash() -> None:
    os.abort()


def _hang() -> None:
    time.sleep(600)


_WRONG = (
    *(_traceback, _message, _memory, _memory_told, _code, _process, _outside, _here, _crash, _hang),
)


def _sound() -> list[Files]:
    return [{"x": b"sound"}]


def _changed(rng: Random, files: Files) -> Files:
    return {"x": rng.choice((b"sound", b"wrong"))}


def _reader(wrong: object) -> Reader:
    def read(folder: Path) -> None:
        if (folder / "x").read_bytes() == b"wrong":
            assert callable(wrong)
            wrong()

    return Reader(getattr(wrong, "__name__", "").lstrip("_"), _sound, _changed, read)


def _alone(folder: Path) -> None:
    (path,) = folder.iterdir()
    path.read_bytes()


READERS = (*map(_reader, _WRONG), Reader("alone", _sound, _changed, _alone))
