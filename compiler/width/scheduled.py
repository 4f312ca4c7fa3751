"""Group Fisher's schedule under a budget: one channel goes every few steps of a training."""

from __future__ import annotations

from torch import fx

from shrinkc.compiler.recover.recipe import School
from shrinkc.compiler.train.log import Row
from shrinkc.compiler.train.settings.config import Hooks
from shrinkc.compiler.width.price import Price
from shrinkc.errors import UnreachableGoalError
from shrinkc.passes.analysis.channels.channel_groups import Groups, Keep
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.criteria.fisher_training import fisher_network, unmasked

LEAST = 1e-9  # share of the budget: what a channel takes, at least


def fisher_scheduled(
    graph: fx.GraphModule,
    groups: Groups,
    price: Price,
    budget: float,
    school: School,
    *,
    epochs: int,
    every: int,
    multiple: int,
) -> tuple[fx.GraphModule, Selection, tuple[Row, ...]]:
    """The network with the weights that it was left with, what stays of it, the training's log.

    A channel's information is divided by what it takes of the budget: the mean over half of its
    group's width, since kernels compute channels in groups. Raises UnreachableGoalError where the
    training ends before the budget is met.
    """

    def widths(keep: Keep) -> dict[str, int]:
        return {name: int(mask.sum()) for name, mask in keep.items()}

    def takes(keep: Keep) -> dict[str, float]:
        now = widths(keep)
        found = dict.fromkeys(now, LEAST * budget)
        for name, width in now.items():
            if name not in price.sizes:
                continue  # none of its smaller widths was allowed
            half = max(width // 2, 1)
            (change,) = price.changes(now, name, [half])
            found[name] = max(-change / max(width - half, 1), LEAST * budget)
        return found

    def enough(keep: Keep) -> bool:
        return price.total(widths(keep)) <= budget

    network, pruning = fisher_network(graph, groups, takes, enough, every, multiple)
    hooks = Hooks(after_step=pruning.after_step, state=pruning)
    history = school.fit(network.train(), "fisher", epochs, hooks).history
    if not enough(pruning.keep):
        share = price.total(widths(pruning.keep)) / budget
        raise UnreachableGoalError(
            f"after {epochs} epochs, a channel every {every} steps, the network costs {share:.2f} "
            "times the budget; give more `round_epochs` or a smaller `every`"
        )
    return unmasked(graph, network), pruning.selection(), history
