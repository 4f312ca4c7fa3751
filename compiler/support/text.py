"""Text of our messages: counts, and what is foreign: errors of libraries, names of files."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Control characters but for tabs and ends of lines, those that turn the direction of writing, ends
# of lines of Unicode's own, and halves of characters, such as names of files that are no UTF-8
# have. A terminal obeys them, or cannot encode them.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The text with such characters written out, as in \\x1b."""
    return UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(error: BaseException | str, limit: int = 160) -> str:
    """The text on one line, printable, at most `limit` characters; an empty error's class."""
    text = " ".join(str(error).split())
    if not text:
        text = type(error).__name__ if isinstance(error, BaseException) else ""
    return shown(text, limit)


def placed(place: Iterable[object], problem: str) -> str:
    """What is wrong where, on one line: "steps.0.kind: Field required"."""
    return one_line(": ".join([".".join(map(str, place)), problem]).lstrip(": "))


def named(error: BaseException) -> str:
    """`one_line` after the class: for errors of code that is not ours nor a library's."""
    return one_line(f"{type(error).__name__}: {error}")


def shown(name: str, limit: int = 100) -> str:
    """A name of unknown origin, without control characters."""
    plain = name if name.isprintable() else ascii(name)
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """'1 change', '3 changes', '1,234 images'; `plural` where it is not the noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
