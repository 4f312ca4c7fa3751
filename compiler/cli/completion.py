"""What a shell completes beyond files and choices. PyTorch is not imported for it."""

from __future__ import annotations

from typing import get_args

from shrinkc.compiler.support.choices import HOST, TaskName


def targets(incomplete: str) -> list[str]:
    """The user's tables, the shipped ones, short names and this machine."""
    from shrinkc.latency_tables.store import known_targets

    return [name for name in (*known_targets(), HOST) if name.startswith(incomplete)]


def tasks(incomplete: str) -> list[str]:
    """What a network may be for."""
    return [name for name in get_args(TaskName) if name.startswith(incomplete)]


def devices(incomplete: str) -> list[str]:
    """Devices, or how the text of one begins."""
    return [name for name in (HOST, "cuda", "ssh://", "adb:") if name.startswith(incomplete)]
