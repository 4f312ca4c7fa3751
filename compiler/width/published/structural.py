"""CaP's structural search (Xie et al., 2021): widths by one threshold, found by bisection, a step
at a time; after each step the network is compensated and all channels are judged anew."""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from shrinkc.compiler.width.allocation import Allocation, Space, UnreachableError
from shrinkc.compiler.width.layer_by_layer import compensated_scores
from shrinkc.compiler.width.price import Price
from shrinkc.compiler.width.prune import Look
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.criteria.base import Criterion
from shrinkc.passes.criteria.cap import structural_search
from shrinkc.passes.criteria.shared.data import Batches


def by_search(criterion: Criterion, batches: Batches, options: Allocation) -> Look:
    """For `Stages.look`."""

    def look(
        graph: fx.GraphModule,
        groups: Groups,
        space: Space,
        price: Price,
        budget: float,
        multiple: int,
    ) -> Selection:
        lowest = price.total(space.narrow)
        if lowest > budget:
            raise UnreachableError(budget, lowest)
        some = replace(groups, groups=tuple(space.groups.values()))
        judge = compensated_scores(graph, criterion, batches)
        given = some, judge, price.total, budget, options.search_step, multiple
        try:
            return structural_search(*given, floor=options.floor)
        except InputError as error:
            raise UnreachableError(budget, lowest, f": {error}") from None

    return look
