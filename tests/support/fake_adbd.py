"""A small adbd: one phone on a TCP port, as `adb connect` finds it.

Speaks what `adb shell` and `adb push` need of
https://android.googlesource.com/platform/packages/modules/adb/+/refs/heads/main/protocol.txt:
CNXN, OPEN, OKAY, WRTE, CLSE, the shell protocol v2 and the sync service. The phone's
/data/local/tmp is a folder here, and its commands run in a shell here.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

FOLDER = "/data/local/tmp"
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)


class Adbd:
    """Serve one host until closed."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self._environment, self.full = folder, dict(environment), False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._streams: dict[int, Stream] = {}
        self.shells: list[Shell] = []
        self._sending = threading.Lock()
        self._host: socket.socket | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """The phone is unplugged, and what ran on it ends."""
        self._listener.close()
        if self._host is not None:
            with suppress(OSError):  # unplugged before
                self._host.shutdown(socket.SHUT_RDWR)
            self._host.close()
        for shell in self.shells:
            shell.end()

    def here(self, path: str) -> str:
        """A command or path of the phone, for this machine."""
        return path.replace(FOLDER, str(self.folder))

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        (number,) = struct.unpack("<I", command)
        checksum = sum(data) & 0xFFFFFFFF
        head = struct.pack("<6I", number, first, second, len(data), checksum, number ^ 0xFFFFFFFF)
        with self._sending:
            assert self._host is not None
            self._host.sendall(head + data)

    def _serve(self) -> None:
        try:
            self._host, _ = self._listener.accept()
            while True:
                self._handle(*self._message())
        except OSError:
            return

    def _message(self) -> tuple[bytes, int, int, bytes]:
        head = self._exactly(24)
        first, second, length = struct.unpack("<3I", head[4:16])
        return head[:4], first, second, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        assert self._host is not None
        data = b""
        while len(data) < count:
            more = self._host.recv(count - len(data))
            if not more:
                raise ConnectionError
            data += more
        return data

    def _handle(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command == b"CNXN":
            banner = b"device::ro.product.name=test;features=shell_v2,cmd"
            self.send(b"CNXN", 0x01000000, 1 << 18, banner)
        elif command == b"OPEN":
            service = data.rstrip(b"\0").decode()
            kind = Sync if service == "sync:" else Shell
            stream = self._streams[first] = kind(self, first, service)
            self.send(b"OKAY", first, first)
            stream.start()
        elif command == b"WRTE" and first in self._streams:
            self.send(b"OKAY", first, first)
            self._streams[first].feed(data)
        elif command == b"OKAY" and first in self._streams:
            self._streams[first].ready.release()
        elif command == b"CLSE":
            self._streams.pop(first, None)

    def environment(self) -> dict[str, str]:
        return self._environment


class Stream:
    """One service that the host has open; ids are the same on both ends."""

    def __init__(self, adbd: Adbd, number: int, service: str) -> None:
        self.adbd, self.number, self.service = adbd, number, service
        self.ready, self.buffer = threading.Semaphore(1), b""

    def start(self) -> None:
        pass

    def feed(self, data: bytes) -> None:
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """One packet at a time is under way."""
        self.wait()
        self.adbd.send(b"WRTE", self.number, self.number, data)

    def wait(self) -> None:
        """Until the host has taken the packet before."""
        if not self.ready.acquire(timeout=10):
            raise ConnectionError


class Shell(Stream):
    """shell,v2,raw:COMMAND"""

    def start(self) -> None:
        self._process = subprocess.Popen(
            ("/bin/sh", "-c", self.adbd.here(self.service.partition(":")[2])),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.adbd.environment(),
            start_new_session=True,
        )
        self.adbd.shells.append(self)
        self._attendant = threading.Thread(target=self._attend, daemon=True)
        self._attendant.start()

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._attendant.join(5)

    def _attend(self) -> None:
        with self._process, suppress(OSError):
            self._relay()

    def _relay(self) -> None:
        pumps = [
            threading.Thread(target=self._pump, args=(kind, stream), daemon=True)
            for kind, stream in ((STDOUT, self._process.stdout), (STDERR, self._process.stderr))
        ]
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        code = self._process.wait()
        code = 128 - code if code < 0 else code
        self.write(struct.pack("<BIB", EXIT, 1, code))
        self.wait()
        self.adbd.send(b"CLSE", self.number, self.number)

    def _pump(self, kind: int, stream: object) -> None:
        while data := stream.read1(16_384):  # type: ignore[attr-defined]
            try:
                self.write(struct.pack("<BI", kind, len(data)) + data)
            except OSError:
                return

    def feed(self, data: bytes) -> None:
        self.buffer += data
        stdin = self._process.stdin
        assert stdin is not None
        while len(self.buffer) >= 5:
            kind, length = struct.unpack("<BI", self.buffer[:5])
            if len(self.buffer) < 5 + length:
                return
            payload, self.buffer = self.buffer[5 : 5 + length], self.buffer[5 + length :]
            try:
                if kind == STDIN:
                    stdin.write(payload)
                    stdin.flush()
                elif kind == CLOSE_STDIN:
                    stdin.close()
            except OSError:
                return


class Sync(Stream):
    """sync: as `adb push` uses it: STAT, SEND, DATA, DONE, QUIT."""

    path, content = "", b""

    def feed(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= 8:
            name, (length,) = self.buffer[:4], struct.unpack("<I", self.buffer[4:8])
            size = 0 if name in (b"DONE", b"QUIT") else length
            if len(self.buffer) < 8 + size:
                return
            payload, self.buffer = self.buffer[8 : 8 + size], self.buffer[8 + size :]
            self._request(name, payload)

    def _request(self, name: bytes, payload: bytes) -> None:
        match name:
            case b"STAT":
                self.write(b"STAT" + struct.pack("<3I", 0, 0, 0))
            case b"SEND":
                self.path, self.content = payload.decode().rpartition(",")[0], b""
            case b"DATA":
                self.content += payload
            case b"DONE":
                self.write(self._save())
            case b"QUIT":
                self.adbd.send(b"CLSE", self.number, self.number)
            case _:
                raise NotImplementedError(name)

    def _save(self) -> bytes:
        if self.adbd.full:
            text = b"couldn't create file: No space left on device"
            return b"FAIL" + struct.pack("<I", len(text)) + text
        Path(self.adbd.here(self.path)).write_bytes(self.content)
        return b"OKAY" + struct.pack("<I", 0)
