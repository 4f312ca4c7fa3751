"""Any machine behind ssh: the system's own client, keys only, known hosts only."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Self

from shrinkc.compiler.devices.jobs import CPU_RUNTIMES, Session, Setup
from shrinkc.compiler.devices.link import BOOT, LinkEndedError
from shrinkc.compiler.devices.session import Place, open_session

CONNECT_SECONDS = 15
FORM = "ssh://user@host[:port][/path/to/python]"
_URL = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z_][\w.-]*)@)?(?P<host>[A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[1-9]\d{0,4}))?(?P<python>/[\w./+~-]*)?"
)
# Nobody is asked anything, no password leaves, no host is trusted that the user has not accepted;
# three unanswered probes, five seconds apart, end a dead connection.
_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "PreferredAuthentications": "publickey",
    "ConnectTimeout": str(CONNECT_SECONDS),
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "LogLevel": "INFO",
}


@dataclass(frozen=True)
class Ssh:
    """`host` as the user's ssh configuration knows it. `python` is a path on it, one relative to
    the home folder after `/~/`."""

    host: str
    user: str | None = None
    port: int | None = None
    python: str = "python3"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None unless the text has the form."""
        found = _URL.fullmatch(text)
        if found is None or int(found["port"] or 1) > 65535:
            return None
        path = (found["python"] or "").rstrip("/")
        python = f"./{path[3:]}" if path.startswith("/~/") else path or "python3"
        port = int(found["port"]) if found["port"] else None
        return cls(found["host"].strip("[]"), found["user"], port, python)

    @property
    def name(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"ssh://{self._login(host)}{port}"

    @property
    def runtimes(self) -> Mapping[str, tuple[str, ...]]:
        return CPU_RUNTIMES

    def open(self, setup: Setup) -> AbstractContextManager[Session]:
        argv = ("ssh", "-T", *self._options(), "--", self._login(self.host), self._command())
        return open_session(Place(self.name, argv, self.python, self._explain), setup)

    def _login(self, host: str) -> str:
        return f"{self.user}@{host}" if self.user else host

    def _options(self) -> tuple[str, ...]:
        port = ("-p", str(self.port)) if self.port else ()
        return (*port, *(f"-o{name}={value}" for name, value in _OPTIONS.items()))

    def _command(self) -> str:
        """What the shell there reads, quoted for it. A shell stays behind the Python: ssh does not
        tell which signal ended a command, and it does."""
        run = f"{shlex.join((self.python, '-u', '-c', BOOT))}; exit $?"
        return shlex.join(("exec", "sh", "-c", run))

    def _explain(self, ended: LinkEndedError) -> str | None:
        said = ended.said
        if ended.code == 127:
            return (
                f"no {self.python} there; install Python 3.8 or newer, "
                f"or name another one: {self.name}/path/to/python"
            )
        if ended.code == 126:
            return f"{self.python} there cannot be executed: is it made for another processor?"
        if ended.code != 255:
            return None
        port = f"-p {self.port} " if self.port else ""
        login = f"{port}{self._login(self.host)}"
        for sign, text in _CONNECTION.items():
            if sign in said:
                return text.format(login=login)
        return "the connection was lost"


# What the client says on stderr → what to do about it; the first that fits.
_CONNECTION = {
    "IDENTIFICATION HAS CHANGED": "its host key is not the one known here: if that is expected, "
    "remove the old key with ssh-keygen -R and connect once with: ssh {login}",
    "Host key verification failed": "its host key is not known here: connect once and compare "
    "the key that is shown: ssh {login}",
    "Permission denied": "it refuses the key: let it in with ssh-copy-id {login}, or load the key "
    "with ssh-add",
    "Too many authentication failures": "it refuses every key tried: name the right one as "
    "IdentityFile in ~/.ssh/config",
    "Could not resolve": "no such host name; check the spelling or use its address",
    "Connection refused": "it refuses the connection: is sshd running there, on that port?",
    "timed out": f"no answer within {CONNECT_SECONDS} s: is it switched on and in this network?",
    "not responding": "the connection was lost: it stopped answering",
    "No route to host": "no route to it: is it switched on and in this network?",
    "Network is unreachable": "no network leads to it",
    "kex_exchange_identification": "it ends the connection at once: is that port ssh?",
}
