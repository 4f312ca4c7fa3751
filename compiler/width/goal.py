"""What is asked for when a network is pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shrinkc.compiler.cost.budget import budget_of
from shrinkc.compiler.width.price import Unit
from shrinkc.errors import InputError

SHARES: dict[str, tuple[Unit, str]] = {
    "macs": ("macs", "multiply-accumulates"),
    "params": ("params", "parameters"),
    "keep_ratio": ("channels", "channels"),
}


@dataclass(frozen=True)
class Goal:
    """How far to prune: exactly one of these.

    speedup     over what the table says of the network as it is
    budget_ms   by the table
    macs        share of the deployed network's multiply-accumulates to keep, 0 to 1
    params      share of its parameters
    keep_ratio  share of the channels that can go, of all groups together
    keep        group → share of its channels to keep; other groups stay whole
    """

    speedup: float | None = None
    budget_ms: float | None = None
    macs: float | None = None
    params: float | None = None
    keep_ratio: float | None = None
    keep: Mapping[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        given = [n for n in ("speedup", "budget_ms", *SHARES) if getattr(self, n) is not None]
        names = ", ".join(f"--{n.replace('_', '-')}" for n in [*given, *["keep"][: len(self.keep)]])
        if not names:
            raise InputError(
                "give --speedup, --budget-ms, --macs, --params, --keep-ratio or --keep GROUP=RATIO"
            )
        if "," in names:
            raise InputError(f"give one of {names}, not several")
        for name in SHARES:
            share = getattr(self, name)
            if share is not None and not 0 < share < 1:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} {share:g}: give the share to keep, between 0 and 1")

    @property
    def unit(self) -> Unit:
        """What the budget counts."""
        for name, (unit, _) in SHARES.items():
            if getattr(self, name) is not None:
                return unit
        return "ms"

    @property
    def share(self) -> float | None:
        """Of everything, to keep; None for milliseconds and single groups."""
        return next((v for n in SHARES if (v := getattr(self, n)) is not None), None)

    def budget(self, before: float) -> float:
        """In `unit`, of a network that costs `before`. Raises InputError."""
        share = self.share
        return budget_of(before, self.speedup, self.budget_ms) if share is None else share * before

    def closest(self, before: float, lowest: float) -> str:
        """What to ask for at most, in the terms of the request."""
        for name, (_, what) in SHARES.items():
            share = getattr(self, name)
            if share is not None:
                return f"{share:g} of the {what} cannot be reached; closest: {lowest / before:.3f}"
        return (
            f"a budget of {self.budget(before):.4g} ms cannot be reached: from {before:.4g} ms the "
            f"closest is {lowest:.4g} ms, {before / lowest:.2f}×"
        )
