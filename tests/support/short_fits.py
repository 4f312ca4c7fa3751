"""Fits and distillations as short as tests of tiny networks can wait for. What longer ones win back
has tests of its own, which ask for their steps themselves or for `as_shipped`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shrinkc.compiler.recover import distil
from shrinkc.compiler.recover.rebuild_span import Rebuilding

Change = Callable[[Any, str, Any], None]
STEPS, DEFAULTS = distil.STEPS, Rebuilding.__init__.__defaults__ or ()


def shorten(change: Change = setattr) -> None:
    """What nobody gives a number of steps for."""
    change(distil, "STEPS", (20, 40))
    change(Rebuilding.__init__, "__defaults__", (40, *DEFAULTS[1:]))


def as_shipped(change: Change) -> None:
    """As long as a user's."""
    change(distil, "STEPS", STEPS)
    change(Rebuilding.__init__, "__defaults__", DEFAULTS)
