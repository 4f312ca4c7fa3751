"""A board that says what it is told to, in place of a runner."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from shrinkc.compiler.devices.runner import MARK, PROTOCOL
from shrinkc.compiler.devices.session import Place

CONDITIONS = {"governor": None, "frequency_mhz": 1500.0, "temperature_c": 51.5, "load": 0.1}
HELLO: dict[str, Any] = {
    **{"event": "hello", "protocol": PROTOCOL, "device": "board", "cpu": "Cortex-A72"},
    **{"cores": 4, "machine": "aarch64", "system": "Linux 6", "python": "3.9.2", **CONDITIONS},
    **{"runtime": "ai-edge-litert", "runtime_version": "2.1"},
}
DONE: dict[str, Any] = {"event": "done", "before": CONDITIONS, "after": CONDITIONS}


def line(message: Any) -> bytes:
    return MARK + json.dumps(message).encode() + b"\n"


def at(model: str) -> dict[str, Any]:
    return {"event": "at", "model": model, "doing": "running"}


def measured(model: str, times_us: Sequence[Any], **more: Any) -> dict[str, Any]:
    found = {"event": "measured", "model": model, "times_us": list(times_us)}
    return {**found, "reference_us": [], "kernels": 0, **more}


def ran(output: dict[str, Any]) -> dict[str, Any]:
    memory = {"idle_memory_bytes": 1, "peak_memory_bytes": None}
    found = {"event": "ran", "model": "m", "inputs": [], "outputs": [output], **memory}
    return {**found, "runtime": "ai-edge-litert", "runtime_version": "2.1"}


def says(*parts: bytes, then: str = "sys.stdin.buffer.read()") -> Place:
    """A board that says these bytes, whatever it is asked; `then` is Python."""
    program = (
        "import os, sys, time; sys.stdin.buffer.readline(); "
        f"sys.stdout.buffer.write({b''.join(parts)!r}); sys.stdout.flush()\n{then}"
    )
    argv = (sys.executable, "-I", "-S", "-c", program)
    return Place("ssh://board", argv, "python3", lambda _: None, send_runner=False)
