"""Pruning under a budget while the network trains, by a criterion's own schedule."""

from __future__ import annotations

from torch import fx

from shrinkc.compiler.recover.recipe import Trainer
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.train.log import Row
from shrinkc.compiler.train.settings.config import Hooks
from shrinkc.compiler.width.price import Price
from shrinkc.errors import UnreachableGoalError
from shrinkc.passes.analysis.channels.channel_groups import Groups, Keep
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.criteria.base import Schedule, widths

LEAST = 1e-9  # share of the budget: what a channel takes, at least


def prune_while_training(
    graph: fx.GraphModule,
    groups: Groups,
    price: Price,
    budget: float,
    trainer: Trainer,
    schedule: Schedule,
    *,
    epochs: int,
    multiple: int,
) -> tuple[fx.GraphModule, Selection, tuple[Row, ...]]:
    """The network with the weights that it was left with, what stays of it, the training's log.

    What a channel takes of the budget is handed to the schedule: the mean over half of its
    group's width, since kernels compute channels in groups. Raises UnreachableGoalError before the
    training where it is too short to meet the budget, and where it ends before that.
    """

    def widths_of(keep: Keep) -> dict[str, int]:
        return {name: int(mask.sum()) for name, mask in keep.items()}

    def takes(keep: Keep) -> dict[str, float]:
        now = widths_of(keep)
        found = dict.fromkeys(now, LEAST * budget)
        for name, width in now.items():
            if name not in price.sizes:
                continue  # none of its smaller widths was allowed
            half = max(width // 2, 1)
            (change,) = price.changes(now, name, [half])
            found[name] = max(-change / max(width - half, 1), LEAST * budget)
        return found

    def enough(keep: Keep) -> bool:
        return price.total(widths_of(keep)) <= budget

    steps = epochs * (len(trainer.train.images) // trainer.training(1).batch)
    _check_reachable(groups, price, budget, schedule, steps, multiple)
    network, removal = schedule.start(graph, groups, takes, enough, multiple)
    hooks = Hooks(after_step=removal.after_step, state=removal)
    history = trainer.fit(network.train(), "removal", epochs, hooks).history
    if not enough(removal.keep):
        share = price.total(widths_of(removal.keep)) / budget
        raise UnreachableGoalError(
            f"after {epochs} epochs, {schedule}, the network costs {share:.2f} "
            "times the budget; give more `round_epochs` or a smaller `every`"
        )
    return schedule.finish(graph, network), removal.selection(), history


def _check_reachable(
    groups: Groups, price: Price, budget: float, schedule: Schedule, steps: int, multiple: int
) -> None:
    """Raises UnreachableGoalError where too little goes even if what costs most goes first."""
    now, count = dict(price.sizes), schedule.removals(steps, multiple)
    for _ in range(count):
        if price.total(now) <= budget:
            return
        best: tuple[float, str, int] | None = None
        for name, width in now.items():
            narrower = [n for n in widths(groups[name], multiple) if n < width]
            if narrower:
                (change,) = price.changes(now, name, narrower[-1:])
                best = min(best or (0.0, "", 0), (change, name, narrower[-1]))
        if best is None or best[0] >= 0:
            break
        now[best[1]] = best[2]
    if (total := price.total(now)) > budget:
        raise UnreachableGoalError(
            f"{schedule} of {steps}, there are {counted(count, 'removal')}: even if what costs "
            f"most went first, the network would cost {total / budget:.2f} times the budget",
            "give more `round_epochs` or a smaller `every`",
        )
