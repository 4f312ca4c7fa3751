"""JSON, console, progress"""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

from shrinkc.compiler.support.json_values import finite
from shrinkc.compiler.support.progress import Progress, Silent, Terminal

NOT_JUDGED = "not judged: give --evaluation DIR, images that it has not seen"


def measured_line(speedup: float, precision: str) -> str:
    """What `on_this_machine` found of the result, for people."""
    return f"measured here, TFLite, {precision} before and after: {speedup:.2f}×"


def print_json(value: dict[str, Any]) -> None:
    """One object on stdout; numbers that JSON lacks become null."""
    print(json.dumps(finite(value), indent=2, ensure_ascii=False))


# --- arguments -----------------------------------------------------------------------------------


def progress(as_json: bool) -> Progress:
    return Terminal() if sys.stderr.isatty() and not as_json else Silent()


def wide_console() -> Console:
    """As wide as the terminal, or wide enough for tables in a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)
