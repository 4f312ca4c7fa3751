"""One run at a time: a lock file that says who holds it.

The kernel holds the lock (flock), so that the dead never do, whatever they leave; the text in the
file is for whoever waits. Where a file system has no locks a warning says so, and Windows has none.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import sys
import time
import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from shrinkc.compiler.support.text import shown
from shrinkc.errors import InputError

LOCK = ".lock"
PAUSE_S = 0.05
_BUSY = (errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_FIRST = b'{"pid": '  # of what is written there
_NAME = 300  # characters of a command, at most


class BusyFolder(UserWarning):
    """Another run is there, and this one waits for it; or nothing tells whether one is."""


@contextmanager
def alone_in(folder: Path, path: Path | None = None) -> Generator[None]:
    """No other run works in `folder` meanwhile, which is made where it is missing. `path`: of the
    lock's file, where that lies elsewhere.

    Raises InputError, which names the run that does, or says why nothing can be written there.
    """
    path = folder / LOCK if path is None else path
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path, folder))
        except OSError as error:
            why = (error.strerror or "error").lower()
            raise InputError(
                f"{folder}: cannot be written ({why})", "choose another folder"
            ) from error
        yield


@contextmanager
def locked(path: Path, folder: Path, wait_s: float = 0.0) -> Generator[None]:
    """Alone with the lock file `path`, in a folder that is there, and thus with `folder`, as
    messages call it. The file goes with the lock.

    Waits up to `wait_s` for a run that holds it, with a BusyFolder warning that names that run.
    Raises InputError, which names it too, when the time is up; OSError where no file can be made.
    """
    descriptor = _acquired(path, folder, wait_s)
    try:
        with suppress(OSError):  # a full disk: who waits learns less
            if os.read(descriptor, len(_FIRST)) in (b"", _FIRST):  # else not a lock's file
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.write(descriptor, _own_name())
        yield
    finally:
        try:
            with suppress(OSError):
                path.unlink()  # while it is held: nobody locks a file that is about to go
        finally:
            with suppress(OSError):
                os.close(descriptor)
            if os.name == "nt":  # where no open file can be removed
                path.unlink(missing_ok=True)


def _acquired(path: Path, folder: Path, wait_s: float) -> int:
    """A descriptor that holds the lock of the file that `path` names now."""
    deadline, waiting = time.monotonic() + wait_s, False
    while True:
        descriptor = _opened(path)
        try:
            if _lock(descriptor, folder) and _is_named(descriptor, path):
                return descriptor
            owner = _owner(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if time.monotonic() >= deadline:
            after = f" for more than {wait_s:.0f} s" if wait_s else ""
            raise InputError(
                f"{folder}: {owner} is at work there{after}",
                "let it finish, or choose another folder",
            )
        if not waiting:
            waiting = True
            text = f"{folder}: waiting for {owner}, which is at work there"
            warnings.warn(text, BusyFolder, stacklevel=4)
        time.sleep(PAUSE_S)


def _opened(path: Path) -> int:
    """Not through a link, which whoever made the folder could have led anywhere."""
    way = getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | way, 0o666)
    except PermissionError:  # another user's, held or left behind
        return os.open(path, os.O_RDONLY | way)


def _lock(descriptor: int, folder: Path) -> bool:
    """False where another process has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        if error.errno not in _NO_LOCKS:
            raise
        text = f"{folder}: its file system has no locks; let no two runs write there at once"
        warnings.warn(text, BusyFolder, stacklevel=5)
    return True


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether `path` is still this file: who held it before may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _own_name() -> bytes:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:_NAME]
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": command}
    return json.dumps(owner).encode()


def _owner(descriptor: int) -> str:
    """As its file says; it may be anything, or nothing yet."""
    try:
        found: Any = json.loads(os.read(descriptor, 4096))
        who = f"process {int(found['pid'])} on {found['host']}, since {found['since']}"
        return shown(f"{who}: {found['command']}", 2 * _NAME)
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"
