"""Parts of report.json that may be missing: older reports, and compilations without them."""

from __future__ import annotations

from typing import Any

from shrinkc.compiler.devices import is_host

Json = dict[str, Any]


def part(report: Json, key: str) -> Json:
    """An object; empty where there is none."""
    return report.get(key) or {}


def place(report: Json) -> str:
    """The target in a sentence: "on …"."""
    return "this machine" if is_host(report["target"]) else report["target"]


def listed(report: Json, key: str) -> list[Json]:
    """A list of objects; empty where there is none."""
    return report.get(key) or []
