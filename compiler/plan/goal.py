"""What is asked of a plan."""

from __future__ import annotations

from dataclasses import dataclass

from shrinkc.errors import InputError

MOST_POINTS = 20  # of a frontier


@dataclass(frozen=True)
class PlanGoal:
    """Exactly one of these.

    speedup    over the original in fp32
    budget_ms  by the target's table
    max_drop   of top-1, in points
    pareto     points of the frontier, from the most accurate to the fastest
    """

    speedup: float | None = None
    budget_ms: float | None = None
    max_drop: float | None = None
    pareto: int | None = None

    @property
    def given(self) -> bool:
        return any(
            v is not None for v in (self.speedup, self.budget_ms, self.max_drop, self.pareto)
        )

    def check(self) -> None:
        """Raise InputError."""
        names = ("speedup", "budget_ms", "max_drop", "pareto")
        given = [f"--{n.replace('_', '-')}" for n in names if getattr(self, n) is not None]
        if len(given) > 1:
            raise InputError(f"give one of {', '.join(given)}, not several")
        if self.speedup is not None and not 1 < self.speedup < float("inf"):
            raise InputError(f"--speedup {self.speedup:g}: give more than 1")
        if self.budget_ms is not None and not 0 < self.budget_ms < float("inf"):
            raise InputError(f"--budget-ms {self.budget_ms:g}: give milliseconds above 0")
        if self.max_drop is not None and not 0 <= self.max_drop < 100:
            raise InputError(f"--max-drop {self.max_drop:g}: give points of top-1, 0 to 100")
        if self.pareto is not None and not 3 <= self.pareto <= MOST_POINTS:
            raise InputError(f"--pareto {self.pareto}: give 3 to {MOST_POINTS} points")
