"""Android phones over adb: the runner in Termux's Python, or in one at a path that is given."""

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

FORM = "adb:SERIAL[/path/to/python]"
_NAME = re.compile(r"adb:(?P<serial>[A-Za-z0-9][\w.:-]*)(?P<python>/[\w./+~-]+)?")
# Termux keeps its files to itself; Android lets adb in where Termux is a debuggable build (those of
# F-Droid and GitHub are). Elsewhere Termux's own sshd does.
TERMUX = ("run-as", "com.termux", "files/usr/bin/python3")


@dataclass(frozen=True)
class Adb:
    """`serial` as `adb devices` shows it. Without `python`, Termux's."""

    serial: str
    python: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None unless the text has the form."""
        found = _NAME.fullmatch(text)
        return cls(found["serial"], found["python"]) if found else None

    @property
    def name(self) -> str:
        return f"adb:{self.serial}"

    @property
    def runtimes(self) -> Mapping[str, tuple[str, ...]]:
        return CPU_RUNTIMES

    def open(self, setup: Setup) -> AbstractContextManager[Session]:
        python = (self.python,) if self.python else TERMUX
        command = f"exec {shlex.join((*python, '-u', '-c', BOOT))}"
        argv = ("adb", "-s", self.serial, "shell", "-T", command)
        called = self.python or "Termux's Python"
        return open_session(Place(self.name, argv, called, self._explain), setup)

    def _explain(self, ended: LinkEndedError) -> str | None:
        trouble = adb_trouble(ended.said)
        if trouble:
            return trouble
        if "run-as: " in ended.said:
            return (
                "no Termux that adb may enter (F-Droid's build is one): start sshd in Termux and "
                f"use ssh://, or {_TOOL}"
            )
        if ended.code in (126, 127):
            if self.python:
                return f"{self.python} cannot be executed there; give the path of a Python for it"
            return f"no Python in Termux: pkg install python python-numpy there, or {_TOOL}"
        return None if ended.said.strip() else "the connection was lost"


_TOOL = "give TFLite's benchmark_model with --benchmark-model"


def adb_trouble(said: str) -> str | None:
    """What adb itself complains of, and what to do about it; None if it is not adb."""
    for sign, text in _TROUBLE.items():
        if re.search(sign, said):
            return text
    return None


_TROUBLE = {
    r"device unauthorized": "it does not trust this computer: accept the key it shows",
    r"device still authorizing": "it does not trust this computer yet: accept the key it shows",
    r"device offline": "it is offline: reconnect it, or adb connect ADDRESS again",
    r"more than one (device|emulator)": "several devices have this serial; disconnect one",
    r"cannot connect to daemon": "adb's server does not start: adb kill-server, then adb devices",
    r"device '.*' not found|no devices/emulators": "adb knows no such device; adb devices lists "
    "those that are there",
    r"No space left": "no space left there; free some in /data/local/tmp",
    r"error: closed|adb: error: failed to read": "the connection was lost",
}
