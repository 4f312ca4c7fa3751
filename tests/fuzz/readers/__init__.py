"""Every way in that files and devices have. A module is imported when one of its readers is asked
for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from reader import Reader

MODULES = {
    "models": (
        *(
            "pt",
            "pickle",
            "weights",
            "safetensors",
            "tensors",
            "graph",
            "onnx",
            "tflite",
            "runtimes",
        ),
    ),
    "own_files": ("plan", "report", "checkpoint"),
    "tables": ("table",),
    "images": ("image", "tar", "folder", "labels", "arrays", "cache"),
    "journals": ("journal", "profile_journal"),
    "devices": ("board", "tool", "on", "fleet"),
}
NAMES = tuple(name for names in MODULES.values() for name in names)
PLANTED = (
    *("traceback", "message", "memory", "memory_told", "code", "process", "outside", "here"),
    *("crash", "hang", "alone"),
)


def find(names: Sequence[str]) -> list[Reader]:
    """In that order."""
    modules = {**MODULES, "planted": PLANTED}
    needed = [module for module, own in modules.items() if set(own) & set(names)]
    known = {r.name: r for module in needed for r in import_module(f"readers.{module}").READERS}
    return [known[name] for name in names]
