"""What a network is to become: the one thing that is asked of a plan, of pruning, of shrinking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from numbers import Real
from typing import Literal, get_args

from shrinkc.errors import InputError

GoalKind = Literal["speedup", "budget_ms", "max_drop", "max_error", "macs", "params", "channels"]
Unit = Literal["ms", "macs", "params", "channels"]

KINDS: tuple[GoalKind, ...] = get_args(GoalKind)
PLAN_GOALS: tuple[GoalKind, ...] = ("speedup", "budget_ms", "max_drop", "max_error")
PRUNE_GOALS: tuple[GoalKind, ...] = ("speedup", "budget_ms", "macs", "params", "channels")
SHRINK_GOALS: tuple[GoalKind, ...] = ("speedup", "budget_ms")
LEAST = 1.01  # times as fast or small, before a milder goal is worth naming
WORDS = {"macs": "multiply-accumulates", "params": "parameters", "channels": "channels"}


@dataclass(frozen=True, repr=False)
class Goal:
    """How far to go; made by one of the constructors.

    speedup    so many times as fast as the original by the target's table; more than 1
    budget_ms  milliseconds by the target's table; above 0
    max_drop   points of accuracy that may be lost, 0 to 100: the fastest network within them;
               `confident`: with a confidence of 95%, not by what was found on the images alone
    max_error  the squared error of any output, and of any of its columns, over its variance, 0 to
               1: the fastest network that keeps to it, for outputs that are no classes
    macs       share of the original's multiply-accumulates to keep, between 0 and 1
    params     share of its parameters
    channels   share of the channels that can go, of all groups together

    Raises InputError, which names the parameter, for any other value.
    """

    kind: GoalKind
    value: float
    confident: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"`kind` {self.kind!r}: give one of {', '.join(KINDS)}")
        if isinstance(self.value, bool) or not isinstance(self.value, Real):
            raise InputError(f"`{self.kind}` {self.value!r}: give a number")
        try:
            value = float(self.value)
        except OverflowError:  # an integer beyond all floats
            value = inf
        if self.confident and self.kind != "max_drop":
            raise InputError("`confident` is for `max_drop` alone; leave it out")
        fits, wanted = _range(self.kind, value)
        if not fits:
            raise InputError(f"`{self.kind}` {value:g}: {wanted}")
        object.__setattr__(self, "value", value)

    @classmethod
    def speedup(cls, factor: float) -> Goal:
        return cls("speedup", factor)

    @classmethod
    def budget_ms(cls, ms: float) -> Goal:
        return cls("budget_ms", ms)

    @classmethod
    def max_drop(cls, points: float, *, confident: bool = False) -> Goal:
        return cls("max_drop", points, confident)

    @classmethod
    def max_error(cls, share: float) -> Goal:
        return cls("max_error", share)

    @classmethod
    def macs(cls, share: float) -> Goal:
        return cls("macs", share)

    @classmethod
    def params(cls, share: float) -> Goal:
        return cls("params", share)

    @classmethod
    def channels(cls, share: float) -> Goal:
        return cls("channels", share)

    @classmethod
    def of(
        cls,
        *,
        speedup: float | None = None,
        budget_ms: float | None = None,
        max_drop: float | None = None,
        max_error: float | None = None,
        macs: float | None = None,
        params: float | None = None,
        channels: float | None = None,
        confident: bool = False,
        kinds: Sequence[GoalKind] = KINDS,
    ) -> Goal:
        """The one that is given. Raises InputError for none, for several, and for one that is not
        among `kinds`."""
        every = (speedup, budget_ms, max_drop, max_error, macs, params, channels)
        given: list[tuple[GoalKind, float]] = [
            (kind, value) for kind, value in zip(KINDS, every, strict=True) if value is not None
        ]
        if not given:
            raise missing(kinds)
        if len(given) > 1:
            raise InputError(
                f"give exactly one of {_listed([kind for kind, _ in given])}, not several"
            )
        return cls(*given[0], confident).among(kinds)

    def among(self, kinds: Sequence[GoalKind]) -> Goal:
        """Itself. Raises InputError where it is of another kind."""
        if self.kind not in kinds:
            raise InputError(f"`{self.kind}` cannot be the goal here: give one of {_listed(kinds)}")
        return self

    @property
    def unit(self) -> Unit:
        """What a budget for it counts; there is none for what may be lost."""
        match self.kind:
            case "speedup" | "budget_ms":
                return "ms"
            case "max_drop" | "max_error":
                raise ValueError("what may be lost of the accuracy counts no cost")
            case share:
                return share

    def budget(self, before: float) -> float:
        """In `unit`, of a network that costs `before`. Raises InputError for milliseconds that it
        fits into as it is."""
        if self.unit != "ms":
            return self.value * before
        if self.kind == "speedup":
            return before / self.value
        if self.value >= before:
            raise InputError(f"{before:.4g} ms fit into {self.value:g} ms already; give less")
        return self.value

    def milder(self, part: float, before_ms: float | None) -> Goal | None:
        """The goal that is this part of the way to this one, 0 to 1; None where that is nearly no
        way at all. `before_ms`: of the network as it is, for milliseconds."""
        way = 0.0
        match self.kind:
            case "speedup":
                way = value = 1 + (self.value - 1) * part
            case "budget_ms" if before_ms is not None:
                value = before_ms - (before_ms - self.value) * part
                way = before_ms / value
            case "macs" | "params" | "channels":
                value = 1 - (1 - self.value) * part
                way = 1 / value
            case _:
                return None
        return Goal(self.kind, value) if way >= LEAST else None

    def closest(self, before: float, lowest: float) -> str:
        """What to ask for at most, in the terms of the request."""
        if self.unit != "ms":
            share, what = lowest / before, WORDS[self.unit]
            return f"{self.value:g} of the {what} cannot be reached; closest: {share:.3f}"
        return (
            f"a budget of {self.budget(before):.4g} ms cannot be reached: from {before:.4g} ms the "
            f"closest is {lowest:.4g} ms, {before / lowest:.2f}×"
        )

    def __repr__(self) -> str:
        return f"Goal.{self.kind}({self.value:g}{', confident=True' if self.confident else ''})"


def required(goal: object, kinds: Sequence[GoalKind]) -> Goal:
    """The goal that a user gave. Raises InputError for none, one of another kind, and anything
    else: a number, a name."""
    if goal is None:
        raise missing(kinds)
    if not isinstance(goal, Goal):
        kind = goal.__name__ if isinstance(goal, type) else type(goal).__name__
        raise InputError(f"`goal` is a {kind}; give one such as Goal.{kinds[0]}(…)")
    return goal.among(kinds)


def missing(kinds: Sequence[GoalKind]) -> InputError:
    """No goal was given where one of these is needed."""
    return InputError(f"give exactly one of {_listed(kinds)}")


def _range(kind: GoalKind, value: float) -> tuple[bool, str]:
    """Whether the value lies within what the kind takes, and what that is."""
    match kind:
        case "speedup":
            return 1 < value < inf, "give more than 1"
        case "budget_ms":
            return 0 < value < inf, "give milliseconds above 0"
        case "max_drop":
            return 0 <= value < 100, "give points of top-1, 0 to 100"
        case "max_error":
            return 0 < value < 1, "give a share of the variance, between 0 and 1"
        case _:
            return 0 < value < 1, "give the share to keep, between 0 and 1"


def _listed(kinds: Sequence[GoalKind]) -> str:
    return ", ".join(f"`{kind}`" for kind in kinds)
