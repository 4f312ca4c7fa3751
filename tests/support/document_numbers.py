"""Numbers in sentences: which fragments come from result files, and what is left besides them."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Not the digits of names: int8, MobileNetV2-1.0, CIFAR-10, top-1, x86-64.
_NUMBER = re.compile(r"(?<![\w.-])\d+(?:[.,]\d+)*")
_CODE = re.compile(r"`[^`]*`|\]\([^)]*\)")


def sections(page: str) -> dict[str, str]:
    """Heading → its text; what stands in front of the first `## ` has the page's own heading."""
    parts = re.split(r"^##? (.+)\n", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def plain(text: str) -> str:
    """Without code, where commands are, without the targets of links, on one line."""
    return " ".join(_CODE.sub("", text).split())


def problems(text: str, fragments: Iterable[str]) -> list[str]:
    """Fragments that the text lacks, and numbers that are in none of them."""
    text, missing = plain(text), list[str]()
    for fragment in fragments:
        found = plain(fragment)
        if found not in text:
            missing.append(f"not in the text: {found}")
        text = text.replace(found, " … ", 1)
    left = [
        f"a number that no fragment has: {text[max(0, n.start() - 30) : n.end() + 20]}"
        for n in _NUMBER.finditer(text)
    ]
    return missing + left
