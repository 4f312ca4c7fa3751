"""Options that are given and that nobody reads. They are refused: what has no effect misleads."""

from __future__ import annotations

from typing import NamedTuple

from shrinkc.errors import InputError


class Option(NamedTuple):
    """One parameter of a call.

    given    whether it says anything else than its default
    read     whether anything that will run looks at it
    readers  who would, in words; parameters in backticks
    """

    name: str
    given: bool
    read: bool
    readers: str


def refuse_unread(*options: Option | tuple[str, bool, bool, str]) -> None:
    """Raise InputError for the first that is given and not read; it says who reads it."""
    for name, given, read, readers in options:
        if given and not read:
            raise InputError(f"`{name}` has no effect here: it is for {readers}")
