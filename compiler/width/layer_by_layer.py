"""Layer after layer: each group is judged in the network that the groups before it leave.

As published for Channel Pruning (He et al., 2017) and CaP (Xie et al., 2021): choose channels with
what the pruned and compensated network computes, compensate what reads them, go on with the next
layer. What a criterion sees is that network; compensation fits to the original's outputs. How many
channels of each group stay is decided before, by what the criterion says of the whole network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch import fx

from shrinkc.compiler.recover.compensate import Compensation, compensate
from shrinkc.compiler.recover.fit_layer import Fit, LeastSquares
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.compiler.width.prune import Compensate
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup, Groups, channel_groups
from shrinkc.passes.base import Skip
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import Criterion, Scores, most_important
from shrinkc.passes.criteria.shared.data import Batches


def prune_in_order(
    graph_module: fx.GraphModule,
    criterion: Criterion,
    channels: Mapping[str, int],
    batches: Batches,
    options: LeastSquares | None = None,
    progress: Progress | None = None,
) -> Compensation:
    """Keep `channels` of each group that it names, chosen and compensated in execution order.

    Raises InputError for a name that is no group, a number that the group cannot keep, a group that
    the criterion cannot judge.
    """
    groups = channel_groups(graph_module)
    unknown = channels.keys() - {g.name for g in groups.groups}
    if unknown:
        raise InputError(f"there is no channel group '{min(unknown)}'")
    wanted = [g for g in groups.groups if channels.get(g.name, g.size) < g.size]
    done = Compensation(Selection({}), (), ())
    with (progress or Silent()).task("Pruning layer after layer", len(wanted)) as advance:
        for group in wanted:
            scores = _scores(graph_module, criterion, done.selection, group.name)
            mask = most_important(group, scores, channels[group.name])
            selection = Selection({**done.selection.keep, group.name: mask}, done.selection.weights)
            found = compensate(
                *(graph_module, SliceChannels(selection), batches, options), layers=_readers(group)
            )
            done = _joined(done, found)
            advance()
    return done


def in_order(
    criterion: Criterion, batches: Batches, skipped: list[Skip], progress: Progress
) -> Compensate:
    """For `Stages.compensate`: as many channels of each group as were chosen, but which of them is
    decided anew, layer after layer. Layers that could not be compensated are added to `skipped`."""

    def chosen_anew(graph: fx.GraphModule, _: Groups, selection: Selection) -> Selection:
        channels = {name: int(mask.sum()) for name, mask in selection.keep.items()}
        found = prune_in_order(graph, criterion, channels, batches, progress=progress)
        skipped.extend(found.skipped)
        return found.selection

    return chosen_anew


def compensated_scores(
    graph_module: fx.GraphModule,
    criterion: Criterion,
    batches: Batches,
    options: LeastSquares | None = None,
) -> Callable[[Selection], Scores]:
    """For `structural_search`: scores of the network that a selection leaves, compensated, at the
    places of the whole network's channels; what is gone scores 0."""
    groups = channel_groups(graph_module)

    def judge(selection: Selection) -> Scores:
        found = selection
        if selection.keep:
            slicing = SliceChannels(selection)
            found = compensate(graph_module, slicing, batches, options).selection
        student = SliceChannels(found)(graph_module).graph_module
        left = criterion.scores(student, channel_groups(student))
        return {n: _placed(groups, selection, n, s) for n, s in left.items()}

    return judge


def _scores(
    graph_module: fx.GraphModule, criterion: Criterion, selection: Selection, name: str
) -> npt.NDArray[np.float64]:
    """Of one group that is whole, in the network so far."""
    student = SliceChannels(selection)(graph_module).graph_module
    groups = channel_groups(student)
    found = criterion.scores(student, replace(groups, groups=(groups[name],)))
    if name not in found:
        raise InputError(f"{criterion.name} cannot judge channel group '{name}'; leave it whole")
    return found[name]


def _placed(
    groups: Groups, selection: Selection, name: str, scores: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    whole = np.zeros(groups[name].size)
    whole[selection.keep.get(name, np.ones(len(whole), bool))] = scores
    return whole


def _readers(group: ChannelGroup) -> set[str]:
    return {part.layer for part in group.slices if part.role == "in"}


def _joined(done: Compensation, found: Compensation) -> Compensation:
    """A layer that reads several groups was fitted again: its last fit counts."""
    fits: dict[str, Fit] = {fit.layer: fit for fit in (*done.fits, *found.fits)}
    return Compensation(found.selection, tuple(fits.values()), found.skipped)
