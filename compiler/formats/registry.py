"""The formats, and which of them a file is in."""

from __future__ import annotations

from pathlib import Path

from shrinkc.compiler.formats.onnx import OnnxRunner
from shrinkc.compiler.formats.runner import Runner
from shrinkc.compiler.formats.tflite import TfliteRunner
from shrinkc.errors import LoadError


def open_runner(path: Path, threads: int = 1) -> Runner:
    """The runner for a .onnx or .tflite file, told by its content."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LoadError(f"cannot read {path}: {error.strerror}") from error
    if data[4:8] == b"TFL3":
        return TfliteRunner(data, threads)
    if path.suffix == ".onnx":
        return OnnxRunner(data, threads)
    raise LoadError(f"{path} is neither a .onnx nor a .tflite file")
