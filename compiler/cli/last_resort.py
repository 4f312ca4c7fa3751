"""What nobody caught: the system refuses, memory is short, or it is a bug. One line each."""

from __future__ import annotations

import errno
import os
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path

from shrinkc.compiler.support.disk.cache import kept
from shrinkc.compiler.support.text import named, one_line, shown
from shrinkc.errors import InputError, InternalError, ShrinkcError
from shrinkc.version import __version__

_ADVICE = {
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "free some space, or write elsewhere",
    errno.EROFS: "write elsewhere",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files, or end other programs",
    errno.EAGAIN: "raise the limit of processes (ulimit -u), or end other programs",
    errno.ENOMEM: "end other programs, or take a machine with more memory",
}

_NO_MEMORY = (  # in PyTorch's words, the loader's and C++'s
    *("can't allocate memory", "Cannot allocate memory"),
    *("failed to map segment", "std::bad_alloc"),
)


def told(error: Exception, typed: str, keep: bool) -> ShrinkcError:
    """The failure in one line. `typed` is the command; a bug's traceback is kept in the cache, or
    where that is not wanted or not possible among temporary files."""
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        return InputError("there is not enough memory", _ADVICE[errno.ENOMEM])
    if isinstance(error, OSError):
        place = "" if error.filename is None else f"{shown(str(error.filename))}: "
        what = (error.strerror or one_line(error)).lower()
        return InputError(f"{place}{what}", _ADVICE.get(error.errno or 0, "check the path"))
    where = _written(error, typed, keep)
    traced = f"; its traceback is in {where}" if where else ""
    return InternalError(
        f"a bug in shrinkc: {named(error).removesuffix(':')}{traced}", "please report it"
    )


def _written(error: Exception, typed: str, keep: bool) -> str:
    """The file's name; empty where none can be written."""
    text = "".join(
        (
            f"shrinkc {__version__}, Python {platform.python_version()}, {platform.platform()}\n",
            f"{typed}\n\n",
            *traceback.format_exception(error),
        )
    )
    name = f"{time.strftime('%Y-%m-%d-%H%M%S')}-{os.getpid()}.txt"
    bugs = kept("bugs") if keep else None
    for folder in (bugs, Path(tempfile.gettempdir())):
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                path = folder / (name if folder == bugs else f"shrinkc-{name}")
                path.write_text(text, "utf-8", "backslashreplace")
                return str(path)
        except OSError:
            continue
    return ""


def silence_stdout() -> None:
    """What it still holds cannot be written; at its end Python would try, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)
