"""How far a changed network's answers are from the original's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Damage:
    """Of one choice: `loss`, the task's divergence of the answers from the original's; `agreement`
    with them, 0 to 1; `error` of the fit on held-out images, of the target's variance (NaN where
    nothing is fitted)."""

    loss: float
    agreement: float
    error: float
