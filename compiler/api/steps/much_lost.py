"""What is said first of a changed network that lost much, and which goal would keep it."""

from __future__ import annotations

import time
from collections.abc import Callable

from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.plan.drop import estimates
from shrinkc.compiler.plan.plan_file import Plan
from shrinkc.compiler.report.sections import Judged
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.tasks.wording import AGREEMENT, error_words, score_words

MUCH = 0.03  # of the task's score, of the agreement without labels, of the variance of outputs
MUCH_DB = 1.0  # of a metric in decibels
SPARED = 0.2  # of the time that the work took, for looking for a milder goal
HALVINGS = 3

Attempt = Callable[[float], float]  # part of the way to the goal → what is lost


def much_lost(judged: Judged | None, advice: Callable[[float], str]) -> str | None:
    """One sentence; None where little was lost, or nobody judged. `advice`: asked with the loss."""
    if judged is None or judged.lost <= (MUCH_DB if judged.style == "dB" else MUCH):
        return None
    where = f"{judged.images} images that it had not seen"
    before, after = (
        score_words(one, judged.style, 1) for one in (judged.original_top1, judged.changed_top1)
    )
    if judged.original_top1 is not None and judged.changed_top1 is not None:
        lost = f"{100 * judged.lost:.1f} points"
        if judged.style == "dB":
            lost = f"{judged.lost:.1f} dB"
        fact = f"it loses {lost} of {judged.metric} ({before} before, {after} after) on {where}"
    elif judged.agreement is None:
        fact = f"its {error_words(judged.errors, briefly=True)} on {where}"
    elif judged.likeness == AGREEMENT:
        fact = f"it agrees with the original on only {judged.agreement:.1%} of {where}"
    else:
        fact = f"its {judged.likeness} is only {judged.agreement:.1%} on {where}"
    return f"{fact}; {advice(judged.lost)}"


def much_promised(plan: Plan, task: Task) -> str | None:
    """The same of a plan, by what it was promised to cost."""
    promise = plan.promise
    much = MUCH_DB if task.style == "dB" else MUCH
    if promise is None or promise.lost <= (MUCH if promise.drop is None else much):
        return None
    if promise.drop is None:
        return (
            f"its {error_words(estimates(promise), briefly=True)} on {promise.images} images that "
            f"it had not seen; `max_error` {MUCH:g} plans the fastest network within that"
        )
    return (
        f"it loses {task.points * promise.drop:.1f} {task.unit} on {promise.images} images that it "
        f"had not seen; `max_drop` {task.points * much:g} plans the fastest network that loses no "
        "more"
    )


def milder_goal(
    goal: Goal | None,
    lost: float,
    before_ms: float | None,
    attempt: Attempt | None = None,
    first_s: float = 0.0,
    most_s: float = 0.0,
) -> str:
    """In words, the goal that keeps the loss within MUCH: tried by halving the way to the goal, as
    long as that takes no more than `most_s` (the first attempt takes about `first_s`), and between
    what was found on a straight line."""
    if goal is None:
        return "keep more"
    low, high, spent, longest = (0.0, 0.0), (1.0, lost), 0.0, first_s
    for _ in range(HALVINGS if attempt is not None else 0):
        if attempt is None or spent + longest > most_s:
            break
        started, part = time.monotonic(), (low[0] + high[0]) / 2
        found = part, attempt(part)
        low, high = (found, high) if found[1] <= MUCH else (low, found)
        longest = time.monotonic() - started
        spent += longest
    part = low[0] or MUCH / high[1] * high[0]
    milder = goal.milder(part, before_ms)
    if milder is None:
        return (
            f"only a goal much milder than `{goal.kind}` {goal.value:g} keeps it without training"
        )
    return f"about `{milder.kind}` {milder.value:.3g} loses no more than {100 * MUCH:g}%"
