"""A real sshd on loopback with keys of its own, and an `ssh` that knows nothing but these."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import device_doubles as doubles
import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
SSH = shutil.which("ssh")
INSTALLED = SSHD is not None and SSH is not None
MISSING = "no sshd and ssh here (Debian: openssh-server)"
KEYS = ("host_key", "other_key", "user_key", "stranger_key")


@contextmanager
def running(folder: Path, **more: str) -> Iterator[int]:
    """The server's port. `folder` gets KEYS and `authorized_keys`, which lets `user_key` in; `more`
    are settings of sshd_config."""
    folder.chmod(0o700)
    for name in KEYS:
        command = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        subprocess.run(command, check=True)
    (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it separates its privileges
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "ListenAddress": "127.0.0.1",
        "Port": port,
        "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "yes",
        **more,
    }
    (folder / "sshd_config").write_text("".join(f"{k} {v}\n" for k, v in settings.items()))
    assert SSHD is not None
    with (folder / "log").open("w") as log:
        process = subprocess.Popen((SSHD, "-D", "-e", "-f", folder / "sshd_config"), stderr=log)
        try:
            _wait_for(port)
            yield port
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("sshd did not start")


def client(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    """Put an `ssh` on the path that uses the folder's `user_key` and `known_hosts` instead of the
    user's own."""
    settings = {
        "UserKnownHostsFile": str(folder / "known_hosts"),
        "GlobalKnownHostsFile": "/dev/null",
        "IdentityFile": str(folder / "user_key"),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        **changes,
    }
    config = folder / "config"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    doubles.program(folder / "bin" / "ssh", f"exec {SSH} -F '{config}' \"$@\"")
    monkeypatch.setenv("PATH", doubles.in_front(folder / "bin"))
