"""Files that come from anywhere: opened only where they are files, read only up to a bound.

A named pipe keeps whoever opens it waiting, a device has no end and some change by being opened.
All of that is an OSError here, so that callers tell it in the line that they have for a file that
is missing: `strerror` says what stands there instead.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFIFO: "a pipe, no file",
    stat.S_IFSOCK: "a socket, no file",
    stat.S_IFCHR: "a device, no file",
    stat.S_IFBLK: "a device, no file",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: Path, most: int = sys.maxsize) -> BinaryIO:
    """A regular file of at most so many bytes, for reading. Raises OSError."""
    require_regular(path)
    file = path.open("rb")
    size = os.fstat(file.fileno()).st_size
    if size > most:
        file.close()
        raise OSError(errno.EFBIG, f"{size:,} bytes, the limit is {most:,}", str(path))
    return file


def read_regular(path: Path, most: int) -> bytes:
    """All of a regular file of at most so many bytes. Raises OSError."""
    with open_regular(path, most) as file:
        # as many as it is long: files of /proc have no length and some of them no end
        return file.read(os.fstat(file.fileno()).st_size)


def require_regular(path: Path) -> None:
    """Raise OSError for what is missing or no file, without opening it."""
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a name with a zero in it
        raise OSError(errno.EINVAL, "no name of a file", str(path)) from error
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, _KINDS.get(stat.S_IFMT(mode), "no file"), str(path))


def require_writable(path: Path) -> None:
    """Raise OSError where something else than a file has that name: writing to a pipe waits for
    ever, and what replaces a file would replace a device too."""
    with suppress(FileNotFoundError):
        require_regular(path)
