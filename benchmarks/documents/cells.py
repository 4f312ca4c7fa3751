"""Cells of the tables in the documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

Row = Mapping[str, Any]
Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # header, rows


def the_one(rows: Iterable[Row], **fields: Any) -> Row:
    """The only row with these values. Raises ValueError where there is none or another."""
    (found,) = those(rows, **fields)
    return found


def those(rows: Iterable[Row], **fields: Any) -> list[Row]:
    return [row for row in rows if all(row.get(name) == want for name, want in fields.items())]


def percent(share: float, digits: int = 2) -> str:
    return f"{points(share, digits)}%"


def points(share: float, digits: int = 2) -> str:
    """A share, or a difference of shares, times a hundred, without the sign for percent."""
    return f"{100 * share:.{digits}f}".replace("-", "−")


def times(ratio: float) -> str:
    """A speedup."""
    return f"{ratio:.2f}×"


def asked(ratio: float) -> str:
    """A speedup as it was asked for."""
    return f"{ratio:g}×"


def spread(shares: Sequence[float], digits: int = 1) -> str:
    """The mean, and the standard deviation where there are several: 81.7 ± 0.1."""
    text = points(mean(shares), digits)
    return f"{text} ± {points(stdev(shares), digits)}" if len(shares) > 1 else text


def counted(count: int, noun: str) -> str:
    """1 block, 2 blocks."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def part(count: int, of: int) -> str:
    """127 (95%)."""
    return f"{count} ({100 * count / of:.0f}%)"
