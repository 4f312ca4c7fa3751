"""Learning rates as functions of the step, so that a resume needs no state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from shrinkc.errors import TrainingError


class Schedule(Protocol):
    """`factor` is what the optimiser's learning rate is multiplied by in step 0 … steps − 1."""

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float: ...


@dataclass(frozen=True)
class Constant:
    """The same learning rate throughout, after a linear warm-up."""

    warmup_epochs: float = 0.0

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        warmup = round(self.warmup_epochs * steps_per_epoch)
        return (step + 1) / warmup if step < warmup else 1.0


@dataclass(frozen=True)
class Cosine:
    """From 1 to `final` along half a cosine (Loshchilov, Hutter 2017), after a linear warm-up."""

    warmup_epochs: float = 0.0
    final: float = 0.0

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        warmup = min(round(self.warmup_epochs * steps_per_epoch), steps)
        if step < warmup:
            return (step + 1) / warmup
        return _cosine(1.0, self.final, (step - warmup) / (steps - warmup))


@dataclass(frozen=True)
class OneCycle:
    """Up from `start` to 1 and down to `final` (Smith and Topin 2018), both along half a cosine.

    The shape of `torch.optim.lr_scheduler.OneCycleLR`; momentum stays as it is.
    """

    warmup: float = 0.3  # share of all steps
    start: float = 1 / 25
    final: float = 1 / 250_000

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise TrainingError(f"a warm-up of {self.warmup} of all steps; give 0 to below 1")

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        top = self.warmup * steps - 1
        if step <= top:
            return _cosine(self.start, 1.0, step / top if top else 1.0)
        return _cosine(1.0, self.final, (step - max(top, 0)) / max(steps - 1 - max(top, 0), 1))


def _cosine(first: float, last: float, position: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * position)) / 2
