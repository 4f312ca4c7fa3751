"""The formats, and which of them a file is in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shrinkc.compiler.formats.base import Format
from shrinkc.compiler.formats.onnx import ONNX
from shrinkc.compiler.formats.runner import Runner
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.support.reading.regular_file import read_regular
from shrinkc.errors import LoadError

MAX_BYTES = (2 << 30) - 1  # of a file; both formats' own limit
FORMATS: tuple[Format, ...] = (ONNX, TFLITE)
FALLBACK: Format = ONNX  # what torch.onnx writes, of a network that cannot be lowered
HOST_FORMAT: Format = TFLITE  # what this machine prices operators and times changed networks in


def format_of_runtime(runtime: str, formats: Sequence[Format] = FORMATS) -> Format | None:
    """The format whose files a runtime runs, by a device's or a latency table's name for it."""
    return next((one for one in formats if one.runs_in(runtime)), None)


def format_of_device(runtime: str) -> Format:
    """The format whose files are run by a runtime that devices have (`Device.runtimes`)."""
    return next(one for one in FORMATS if runtime in one.runtimes)


def read_model(path: Path) -> tuple[Format, bytes]:
    """A model file and its format, told by its content, else by its suffix. Raises LoadError."""
    try:
        data = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise LoadError(f"cannot read {path}: {error.strerror}") from error
    marked = [one for one in FORMATS if one.marks(data)]
    named = [one for one in FORMATS if one.magic is None and one.suffix == path.suffix]
    if not marked and not named:
        suffixes = " nor a ".join(one.suffix for one in FORMATS)
        raise LoadError(f"{path} is neither a {suffixes} file")
    return (marked or named)[0], data


def open_runner(path: Path, threads: int = 1) -> Runner:
    """The runner for a model file of any origin, in a process of its own. Raises LoadError."""
    found, data = read_model(path)
    try:
        found.check(data)
        return found.open_apart(data, threads)
    except LoadError as error:
        raise LoadError(f"{path}: {error}") from error
