"""This machine, in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from shrinkc.compiler.devices.jobs import CPU_RUNTIMES, Session, Setup
from shrinkc.compiler.devices.link import BOOT
from shrinkc.compiler.devices.session import Place, open_session
from shrinkc.compiler.support.choices import HOST


@dataclass(frozen=True)
class Host:
    """The interpreter that runs shrinkc, once more."""

    name: str = HOST

    @property
    def runtimes(self) -> Mapping[str, tuple[str, ...]]:
        return CPU_RUNTIMES

    def open(self, setup: Setup) -> AbstractContextManager[Session]:
        argv = (sys.executable, "-u", "-c", BOOT)
        return open_session(Place(self.name, argv, "this Python", lambda _: None), setup)
