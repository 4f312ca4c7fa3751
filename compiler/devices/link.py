"""A pipe to a Python somewhere that runs the runner; nothing of it stays there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from typing import IO, Any

from shrinkc.compiler.devices.answers import NonsenseError
from shrinkc.compiler.devices.runner import MARK
from shrinkc.compiler.support.text import shown
from shrinkc.errors import DeviceError

# One line without single quotes, so that any shell takes it in single quotes. A folder of the
# name of a module in the directory that the shell starts in must not be taken for the module.
BOOT = (
    'import sys; sys.version_info >= (3, 8) or sys.exit("Python 3.8 or newer is needed"); '
    "sys.path[:] = [p for p in sys.path if p]; s = sys.stdin.buffer; "
    'exec(compile(s.read(int(s.readline())), "runner.py", "exec"), {"__name__": "__main__"})'
)
_ERROR = re.compile(r"^[\w.]*(Error|Exception): |ERROR")
TAIL_BYTES = 4000  # of what the other end wrote on stderr
MAX_LINE = 1 << 28  # bytes of one answer: the outputs of a network in base64


class LinkEndedError(Exception):
    """The other end is gone. `code` as from a shell (negative: a signal here), `said` its last
    words on stderr, `silent_s` the time-out when that ended it."""

    def __init__(self, code: int, said: str, silent_s: float | None) -> None:
        super().__init__(said)
        self.code, self.said, self.silent_s = code, said, silent_s


def last_words(said: str) -> str:
    """The last line that names an error, behind which advice may stand, else the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.search(line)]
    return shown((errors or lines or [""])[-1], 200)


def next_answer(stream: IO[bytes]) -> bytes | None:
    """The JSON of the next answer, None at the end; what libraries over there print is passed over.
    Raises NonsenseError for a line without end."""
    while (line := stream.readline(MAX_LINE)).endswith(b"\n"):
        _, mark, text = line.partition(MARK)
        if mark:
            return text
    if len(line) == MAX_LINE:
        raise NonsenseError(f"more than {MAX_LINE >> 20} MiB in one line")
    return None


class Drain:
    """Reads a pipe to its end, however much comes, and keeps the last `most` bytes."""

    def __init__(self, pipe: IO[bytes], most: int) -> None:
        self._pipe, self._most, self._kept = pipe, most, b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Of a process that has ended: one that it started may keep the pipe open."""
        self._thread.join(1)
        return self._kept.decode("utf-8", "replace")

    def _read(self) -> None:
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), 1 << 16):
                self._kept = (self._kept + chunk)[-self._most :]


def kill(process: subprocess.Popen[bytes]) -> None:
    """The process, and what it has started where it leads a session: that holds its pipes too."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


class Link:
    """Objects and files to the runner, lines of JSON back."""

    def __init__(self, argv: Sequence[str], timeout_s: float, send_runner: bool = True) -> None:
        """Raises DeviceError when `argv[0]` cannot be started, LinkEndedError as all methods."""
        self._timeout_s, self._timed_out = timeout_s, False
        try:
            # a session of its own: Ctrl-C is ours to handle, not the child's
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(f"{argv[0]} cannot be started: {error.strerror}") from error
        assert self._process.stderr is not None
        self._stderr = Drain(self._process.stderr, TAIL_BYTES)
        if send_runner:
            source = files(__package__ or __name__).joinpath("runner.py").read_bytes()
            try:
                self._write([b"%d\n" % len(source), source])
            except LinkEndedError:
                self.close()
                raise

    def send(self, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        self._write([json.dumps(message).encode("utf-8") + b"\n", *blobs])

    def receive(self) -> bytes:
        """The JSON of the next answer, which must come within the time-out. Raises NonsenseError
        for one without end."""
        assert self._process.stdout is not None
        with self._deadline():
            answer = next_answer(self._process.stdout)
        if answer is None:
            raise self._ended()
        return answer

    def close(self) -> None:
        """Hang up; the runner ends by itself, or is ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            kill(self._process)
            self._process.wait()
        self._process.stdout.close()

    def _write(self, parts: Sequence[bytes]) -> None:
        assert self._process.stdin is not None
        try:
            for part in parts:
                with self._deadline():
                    self._process.stdin.write(part)
            with self._deadline():
                self._process.stdin.flush()
        except OSError:
            raise self._ended() from None

    @contextmanager
    def _deadline(self) -> Generator[None]:
        """End the process if the body waits for longer than the time-out."""
        timer = threading.Timer(self._timeout_s, self._expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._timed_out = True
        kill(self._process)

    def _ended(self) -> LinkEndedError:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:  # it goes on with its pipe closed
            kill(self._process)
            self._process.wait()
            code = 0
        return LinkEndedError(
            code, self._stderr.text(), self._timeout_s if self._timed_out else None
        )
