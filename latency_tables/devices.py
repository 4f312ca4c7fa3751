"""The machine this runs on, described for reports."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe_host() -> dict[str, str | int]:
    """JSON-ready: `cpu` (model name, "unknown" where the system does not say), `cores` this
    process may use, `machine` (x86_64, aarch64, …), `system` (name and release), `python`."""
    return {
        "cpu": cpu_name(_cpuinfo()) or platform.processor() or "unknown",
        "cores": _cores(),
        "machine": platform.machine() or "unknown",
        "system": f"{platform.system()} {platform.release()}".strip() or "unknown",
        "python": platform.python_version(),
    }


def cpu_name(cpuinfo: str) -> str | None:
    """The processor in the text of Linux's /proc/cpuinfo. Arm boards without a "model name" give
    their board's ("Raspberry Pi 4 Model B Rev 1.4"); None where neither stands."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    board = fields.get("model", "")  # on x86 a number
    return fields.get("model name") or (None if board.isdecimal() else board) or None


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
