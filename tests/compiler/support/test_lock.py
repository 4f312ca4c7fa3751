"""One run at a time, and who is there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shrinkc.compiler.support.disk.lock import BusyFolder, locked
from shrinkc.errors import InputError

HOLDER = """
import sys
from pathlib import Path
from shrinkc.compiler.support.disk.lock import locked
with locked(Path(sys.argv[1]), Path('out')):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


class Holder:
    """Another process that holds a lock until it is told to let go, or killed."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", HOLDER, str(path)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def let_go(self) -> None:
        self.process.communicate("")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_who_is_there_is_named_and_waited_for(path: Path) -> None:
    holder = Holder(path)
    who = rf"process {holder.process.pid} on {socket.gethostname()}, since 20.*: -c "
    with (
        pytest.raises(InputError, match=rf"{who}.*is at work there; let it finish"),
        locked(path, path.parent),
    ):
        pass
    started = time.monotonic()
    with (
        pytest.warns(BusyFolder, match=f"waiting for {who}"),
        pytest.raises(InputError, match="for more than 0 s"),
        locked(path, path.parent, 0.2),
    ):
        pass
    assert time.monotonic() - started > 0.2
    holder.let_go()
    assert not path.exists()
    with locked(path, path.parent, 10):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_the_dead_hold_nothing(path: Path) -> None:
    holder = Holder(path)
    holder.kill()
    assert path.exists()
    with locked(path, path.parent):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_a_file_that_went_while_it_was_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of a file that has no name any more is worth nothing."""
    real, calls = fcntl.flock, 0

    def flock(descriptor: int, how: int) -> None:
        nonlocal calls
        calls += 1
        real(descriptor, how)
        if calls == 1:
            path.unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(BusyFolder), locked(path, path.parent, 10):
        assert path.exists()
    assert calls == 2


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"[1]", b'{"pid": "x"}', b"\x1b[31m" * 99])
def test_nonsense_in_the_file(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with (
            pytest.raises(InputError, match="another run is at work there"),
            locked(path, path.parent),
        ):
            pass


def test_a_file_system_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(BusyFolder, match="has no locks; let no two runs"), locked(path, path.parent):
        pass


def test_another_users_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left behind, and not to be written to: the kernel's lock is all that counts."""
    path.write_text("{}")
    real = os.open

    def only_read(name: Path, flags: int, *mode: int) -> int:
        if name == path and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(name, flags, *mode)

    monkeypatch.setattr(os, "open", only_read)
    with locked(path, path.parent):
        pass
    assert not path.exists()
