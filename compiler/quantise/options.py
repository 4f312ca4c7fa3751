"""What a user can ask of int8."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import get_args

from shrinkc.compiler.support.choices import Int8Tuning
from shrinkc.errors import InputError

MOST_DB = 200.0  # that a signal to noise can be; float32 itself has about 150


@dataclass(frozen=True)
class Int8:
    """How a network becomes int8.

    tuning      what is done to its numbers first: biases corrected, channels equalised
    keep_fp32   layers whose arithmetic stays float
    min_snr_db  layers that alone are noisier stay float too
    noise       measure each layer's signal to noise (needed for `min_snr_db`)
    """

    tuning: Int8Tuning = "bias"
    keep_fp32: tuple[str, ...] = ()
    min_snr_db: float | None = None
    noise: bool = True


def check_int8(options: Int8, precision: str) -> None:
    """Raise InputError for what can be known to fail before any work is done."""
    known = get_args(Int8Tuning)
    if options.tuning not in known:
        raise InputError(f"`int8_tuning` {options.tuning}: choose {', '.join(known)}")
    decibels: object = options.min_snr_db
    if decibels is not None and not (isinstance(decibels, Real) and abs(decibels) <= MOST_DB):
        raise InputError(f"`min_snr_db` {options.min_snr_db}: give decibels, say 30")
    asked = {
        "int8_tuning": options.tuning != Int8.tuning,
        "keep_fp32": options.keep_fp32,
        "min_snr_db": options.min_snr_db is not None,
    }
    for name, given in asked.items():
        if given and precision != "int8":
            raise InputError(f"`{name}` is for int8 files; give `precision` int8 too")
