"""Devices that models are timed on: this machine, boards behind ssh, phones behind adb, GPUs."""

from __future__ import annotations

from shrinkc.compiler.devices.runner import cpu_name
from shrinkc.compiler.devices.runner import describe as describe_host

__all__ = ["cpu_name", "describe_host"]
