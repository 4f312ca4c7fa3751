"""Arguments of the Python interface that have a wrong type, told before any work is done."""

from __future__ import annotations

import math
import os
from numbers import Real
from pathlib import Path
from typing import Any, cast

from shrinkc.compiler.support.text import one_line
from shrinkc.errors import InputError


def check_whole(parameter: str, value: Any, least: int) -> None:
    """Raise InputError unless `value` is a whole number of `least` or more."""
    if type(value) is not int or value < least:
        raise InputError(f"`{parameter}` {_told(value)}: give a whole number of {least:,} or more")


def check_number(parameter: str, value: Any, *, least: float = 0.0, above: bool = False) -> None:
    """Raise InputError unless `value` is a finite number of `least` or more; `above`: more."""
    number = type(value) is not bool and isinstance(value, Real) and math.isfinite(value)
    if not number or value < least or (above and value == least):
        wanted = f"above {least:g}" if above else f"of {least:g} or more"
        raise InputError(f"`{parameter}` {_told(value)}: give a number {wanted}")


def check_kind(parameter: str, value: Any, kind: type | tuple[type, ...], wanted: str) -> None:
    """Raise InputError unless `value` is a `kind`; `wanted` says in words what is."""
    if not isinstance(value, kind):
        raise InputError(f"`{parameter}` is a {type(value).__name__}; give {wanted}")


def path_of(parameter: str, value: Any) -> Path:
    """The path that was given. Raises InputError for what is none."""
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"`{parameter}` is a {type(value).__name__}; give a path")
    path = os.fspath(cast("str | os.PathLike[str]", value))
    if not path:
        raise InputError(f"`{parameter}` is empty; give a path")
    return Path(path)


def listed(parameter: str, value: Any, kind: type, wanted: str) -> tuple[Any, ...]:
    """The things that were given. Raises InputError unless each is a `kind`; a single string is
    no list of letters."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise InputError(f"`{parameter}` is a {type(value).__name__}; give a list of {wanted}")
    found = tuple(value)
    for one in found:
        if not isinstance(one, kind):
            raise InputError(f"`{parameter}` holds a {type(one).__name__}; give {wanted}")
    return found


def _told(value: Any) -> str:
    return one_line(repr(value), 60) if isinstance(value, str) else one_line(str(value), 60)
