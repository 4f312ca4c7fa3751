"""Numbers as people read them. None, and what is no number, is a dash."""

from __future__ import annotations

from math import isfinite

DASH = "–"


def ms(value: float | None) -> str:
    """'45.2 ms', '0.0123 ms'"""
    known = finite(value)
    return DASH if known is None else f"{plain(known)} ms"


def times(value: float) -> str:
    """'1.37×'"""
    return f"{value:.2f}×"


def percent(share: float | None) -> str:
    """'89.0%'; only what is all of it, to the last image, is '100.0%'."""
    known = finite(share)
    if known is None:
        return DASH
    exact, digits = 100 * known + 1e-9, 1  # 88.25 is 88.3
    while digits < 4 and known != 1 and float(f"{exact:.{digits}f}") == 100:
        digits += 1
    return f"{exact:.{digits}f}%"


def size(value: int | None) -> str:
    """Bytes: '2.34 MB', '237.4 kB'"""
    if value is None:
        return DASH
    return f"{value / 1e6:,.2f} MB" if abs(value) >= 1e6 else f"{value / 1e3:.1f} kB"


def macs(value: int | None) -> str:
    """Millions: '1.88 M'"""
    return DASH if value is None else f"{value / 1e6:,.2f} M"


def error(value: float | None) -> str:
    """'4.1e-07'"""
    known = finite(value)
    return DASH if known is None else f"{known:.1e}"


def counted(count: int, thing: str) -> str:
    """'1 layer', '3 layers'"""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def digits_for(total: float) -> int:
    """Decimals of numbers that are parts of `total`, so that they line up and add up."""
    digits = 3
    while total >= 10 and digits > 1:
        digits, total = digits - 1, total / 10
    while 0 < total < 1 and digits < 6:
        digits, total = digits + 1, total * 10
    return digits


def fixed(value: float | None, digits: int) -> str:
    known = finite(value)
    return DASH if known is None else f"{known:,.{digits}f}"


def plain(value: float) -> str:
    """Three significant digits, never an exponent."""
    digits, bound = 2, abs(value)
    while 0 < bound < 1 and digits < 6:
        digits, bound = digits + 1, bound * 10
    while bound >= 10 and digits > 0:
        digits, bound = digits - 1, bound / 10
    return f"{value:,.{digits}f}"


def finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None
