"""How far a changed network's answers are from the original's."""

from __future__ import annotations

from dataclasses import dataclass

from shrinkc.compiler.tasks.tally import WORST
from shrinkc.compiler.tasks.task import Answer, Task, total


@dataclass(frozen=True)
class Damage:
    """Of one choice: `loss`, the task's divergence of the answers from the original's; `agreement`
    with them, 0 to 1 (NaN where answers are not scored); `error` of the fit on held-out images, of
    the target's variance (NaN where nothing is fitted)."""

    loss: float
    agreement: float
    error: float


def agreeing(task: Task, got: Answer, want: Answer, samples: int) -> float:
    """The sum of the task's agreement; NaN where such answers are not scored."""
    return total(task.agree(got, want), samples) if task.judges(want) else float("nan")


def apart(task: Task, got: Answer, want: Answer, samples: int) -> float:
    """The sum of the task's divergence; of answers that are NaN or infinite so much that no other
    network loses more."""
    found = float(task.divergence(got, want).mean())
    return min(found if found == found else WORST, WORST) * samples
