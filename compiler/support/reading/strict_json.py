"""JSON out of files: whatever is wrong with it is a ValueError."""

from __future__ import annotations

import json
from collections.abc import Callable
from json import decoder
from typing import Any, NoReturn, cast

# (text, where a string begins) → (the string, where it ends); typeshed lacks it.
_scanned: Callable[[str, int], tuple[str, int]] = cast(Any, decoder).scanstring


def parse_json(data: bytes | str) -> Any:
    """The value. Raises ValueError, for text that is nested too deep and for NaN too."""
    try:
        return json.loads(data, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def more_containers(text: str, most: int) -> bool:
    """Whether text has more lists and objects than that outside of its strings: each takes thirty
    times as much memory as text, and a microsecond. Raises ValueError for a string without end."""
    if text.count("[") + text.count("{") <= most:
        return False
    at = found = 0
    while at >= 0 and found <= most:
        quote = text.find('"', at)
        end = len(text) if quote < 0 else quote
        found += text.count("[", at, end) + text.count("{", at, end)
        at = -1 if quote < 0 else _scanned(text, quote + 1)[1]
    return found > most


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
