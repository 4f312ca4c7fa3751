"""JSON out of files: whatever is wrong with it is a ValueError."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def parse_json(data: bytes | str) -> Any:
    """The value. Raises ValueError, for text that is nested too deep and for NaN too."""
    try:
        return json.loads(data, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
