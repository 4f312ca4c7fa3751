"""What no input may lead to: code that runs, writes outside, memory.

Python tells of the first two by its audit events; what native code writes is seen in the folders
that it would write to.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import resource
import sys
from pathlib import Path
from types import CodeType
from typing import Any

from shrinkc.compiler.support.apart.runner import Worker

MEMORY_BYTES = 2 << 30
_NEVER = (
    *(
        "os.system",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.startfile",
    ),
    *("subprocess.Popen", "socket.connect", "socket.bind", "socket.getaddrinfo", "pty.spawn"),
    *("ctypes.dlopen", "code.__new__", "urllib.Request", "webbrowser.open", "os.kill"),
)
_WRITES = (
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate"),
    *("os.chmod", "os.chown", "os.utime", "shutil.rmtree", "shutil.copyfile", "shutil.move"),
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_OWN_CODE = (sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parents[2]), "<frozen ")
# Python source that libraries write: graphs by torch.fx; records, by those who make them alone.
_GRAPHS = "<eval_with_key>"
_RECORDS = (dataclasses.__file__, collections.__file__)
_FOREIGN = ("__import__", "os.system", "open(", "eval(", "exec(")


class Guard:
    """`findings` are what happened since it was last emptied."""

    def __init__(self, scratch: Path) -> None:
        """From now on, for the life of the process: an audit hook stays."""
        self.findings: list[tuple[str, str]] = []  # event, of what
        self.armed = False
        self._scratch = f"{scratch.resolve()}{os.sep}"
        self._sources: dict[str, str] = {}
        sys.addaudithook(self._audit)

    def limit_memory(self) -> None:
        """To what it has now and MEMORY_BYTES more, with some room for threads' stacks."""
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY_BYTES + (256 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event in _NEVER:
            if event != "subprocess.Popen" or not _starts_a_worker():
                self._found(event, arguments)
        elif event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING:
                self._check_path("open", path)
        elif event in _WRITES:
            self._check_path(event, arguments[0])
        elif event == "exec":
            self._check_code(arguments[0])
        elif event == "compile":
            self._check_source(*arguments)

    def _check_path(self, event: str, path: Any) -> None:
        if isinstance(path, int):
            return  # opened before
        name = os.path.realpath(os.fsdecode(path))
        if not name.startswith(self._scratch) and name != os.devnull:
            self._found(event, name)

    def _check_code(self, code: Any) -> None:
        """`exec` of code that is neither a module's nor made by a library that is known to."""
        name = code.co_filename if isinstance(code, CodeType) else ""
        caller = sys._getframe(2).f_code.co_filename
        own = name.startswith((*_OWN_CODE, _GRAPHS)) or "/site-packages/" in name
        if not own and caller not in _RECORDS:
            self._found("exec", f"{name} by {caller}")

    def _check_source(self, source: Any, name: Any) -> None:
        text = source if isinstance(source, str) else ""
        if str(name).startswith(_GRAPHS) and any(word in text for word in _FOREIGN):
            self._found("compile", text)

    def _found(self, event: str, what: Any) -> None:
        self.findings.append((event, f"{what!r:.300}"))


def _starts_a_worker() -> bool:
    """A process that model files are run in."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code is Worker.__init__.__code__:
            return True
        frame = frame.f_back
    return False


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def leftovers(folders: tuple[Path, ...]) -> list[str]:
    """What lies in folders that should be empty."""
    return [name for folder in folders for name in os.listdir(folder)]  # noqa: PTH208
