"""Devices that models are timed on: this machine, boards behind ssh, phones behind adb, GPUs."""

from .runner import cpu_name
from .runner import describe as describe_host

__all__ = ["cpu_name", "describe_host"]
