"""Values as JSON: numbers that it lacks, text that a terminal would obey."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

from shrinkc.compiler.support.text import UNSEEN


def json_text(value: Any) -> str:
    """For people and programs: indented, and as it reads but for what `visible` writes out too."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def finite(value: Any) -> Any:
    """The same with null for numbers that are infinite or none, and lists for tuples."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}  # pyright: ignore
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]  # pyright: ignore
    return value
