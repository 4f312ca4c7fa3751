"""A pipe to a Python somewhere that runs the runner; nothing of it stays there."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from typing import IO, Any, cast

from shrinkc.compiler.devices.runner import MARK
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
    return (errors or lines or [""])[-1][:200]


class Link:
    """Objects and files to the runner, objects back."""

    def __init__(self, argv: Sequence[str], timeout_s: float, send_runner: bool = True) -> None:
        """Raises DeviceError when `argv[0]` cannot be started, LinkEndedError as all methods."""
        self._timeout_s, self._timed_out = timeout_s, False
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in close)
        try:
            # a session of its own: Ctrl-C is ours to handle, not the child's
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            raise DeviceError(f"{argv[0]} cannot be started: {error.strerror}") from error
        if send_runner:
            source = files(__package__ or __name__).joinpath("runner.py").read_bytes()
            try:
                self._write([b"%d\n" % len(source), source])
            except LinkEndedError:
                self.close()
                raise

    def send(self, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        self._write([json.dumps(message).encode("utf-8") + b"\n", *blobs])

    def receive(self) -> dict[str, Any]:
        """The next object; what libraries over there print is passed over."""
        assert self._process.stdout is not None
        while True:
            with self._deadline():
                line = self._process.stdout.readline()
            if not line.endswith(b"\n"):
                raise self._ended()
            _, mark, text = line.partition(MARK)
            if mark:
                return cast("dict[str, Any]", json.loads(text))

    def close(self) -> None:
        """Hang up; the runner ends by itself, or is ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()

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
        self._process.kill()

    def _ended(self) -> LinkEndedError:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._stderr.seek(0, 2)
        self._stderr.seek(max(0, self._stderr.tell() - TAIL_BYTES))
        said = self._stderr.read().decode("utf-8", "replace")
        return LinkEndedError(code, said, self._timeout_s if self._timed_out else None)
