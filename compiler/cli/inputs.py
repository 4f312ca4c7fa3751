"""text of flags becomes values"""

from __future__ import annotations

from typing import Any

from shrinkc.compiler.api.steps.request import CompileArguments
from shrinkc.compiler.images.preprocessing import preprocessing_for
from shrinkc.errors import InputError


def parse_shape(text: str) -> tuple[int, ...]:
    """'1,3,224,224' → (1, 3, 224, 224)"""
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if len(shape) < 2 or min(shape) < 1 or max(shape) > 1 << 20:
        raise InputError(f"`inputs` {text}: give positive integers like 1,3,224,224")
    return shape


def preprocessing_of(a: CompileArguments, shapes: list[tuple[int, ...]]) -> Any:
    if a.images is None and a.calibration is None:
        return None
    return preprocessing_for(
        shapes[0],
        resize=a.resize,
        mean=_numbers("mean", a.mean),
        std=_numbers("std", a.std),
    )


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"`{name}` {text}: give numbers like 0.5,0.5,0.5") from error
