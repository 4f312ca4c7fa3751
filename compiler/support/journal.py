"""What was measured, kept at once: lines in a file, so that an interrupted run goes on."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from torch import fx, nn

from shrinkc.compiler.support.reading.checked_lines import append_lines, read_lines
from shrinkc.compiler.support.reading.regular_file import require_writable


class Journal:
    """Numbers by label, in a file named after what they depend on (`about`); without a folder in
    memory.

    count  how many numbers each has; None: as many as it has
    """

    def __init__(self, folder: Path | None, about: str, count: int | None = None) -> None:
        self.path = None if folder is None else folder / f"{about}.jsonl"
        self.entries: dict[str, list[float]] = {}
        if self.path is not None:
            self.entries = {k: v for k, v in _entries(self.path) if count in (None, len(v))}

    def put(self, label: str, numbers: list[float]) -> None:
        """Keep them; in the file, unless the first is NaN, which is no measurement."""
        self.entries[label] = numbers
        if self.path is None or (numbers and math.isnan(numbers[0])):
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            require_writable(self.path)
        except OSError:  # a pipe, which waits for a reader when it is full: of it nothing was known
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            append_lines(descriptor, [[label, *map(_stored, numbers)]])
        finally:
            os.close(descriptor)


_NO_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}  # in JSON


def _stored(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)


def _entries(path: Path) -> Iterator[tuple[str, list[float]]]:
    """Of a file that cannot be read, nothing is known."""
    try:
        for value in read_lines(path):
            label, *rest = cast("list[Any]", value if isinstance(value, list) and value else [None])
            numbers = [number for one in rest if (number := _number(one)) is not None]
            wrong = len(numbers) < len(rest) or (numbers and math.isnan(numbers[0]))
            if isinstance(label, str) and not wrong:
                yield label, numbers
    except OSError:
        return


def _number(stored: Any) -> float | None:
    if isinstance(stored, str):
        return _NO_NUMBERS.get(stored)
    return float(stored) if is_measured(stored) else None


def is_measured(value: object) -> bool:
    """A finite number."""
    if type(value) is int:
        return abs(value) < 1 << 63
    return type(value) is float and math.isfinite(value)


def digest_of(network: nn.Module, settings: str) -> str:
    """Of a network's code or modules, its numbers, and settings; 24 hexadecimal digits."""
    code = network.graph if isinstance(network, fx.GraphModule) else network
    digest = hashlib.sha256(str(code).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    digest.update(settings.encode())
    return digest.hexdigest()[:24]
