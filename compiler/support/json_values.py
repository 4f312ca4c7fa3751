"""Numbers that JSON lacks."""

from __future__ import annotations

from typing import Any


def finite(value: Any) -> Any:
    """The same with null for numbers that are infinite or none, and lists for tuples."""
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}  # pyright: ignore
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]  # pyright: ignore
    return value
