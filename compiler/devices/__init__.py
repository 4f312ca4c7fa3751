"""Devices that models are timed on: this machine, boards behind ssh, phones behind adb, GPUs."""

from __future__ import annotations

from shrinkc.compiler.devices.runner import cpu_name
from shrinkc.compiler.devices.runner import describe as describe_host

__all__ = ["HOST", "cpu_name", "describe_host", "is_host"]

HOST = "host"  # this machine, as a device and as a target


def is_host(name: str) -> bool:
    """Whether a device's or target's name is this machine's: what it takes can be timed here."""
    return name == HOST
