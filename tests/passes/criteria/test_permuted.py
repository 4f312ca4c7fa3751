"""Permuting channels permutes the selection, for every criterion."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest
import torch
from channel_networks import Coupled, captured, conv, graph_of
from torch import Tensor, fx, nn

from shrinkc.passes.analysis.channels.channel_groups import (
    ChannelGroup,
    Groups,
    ParameterSlice,
    channel_groups,
)
from shrinkc.passes.base import copy_graph
from shrinkc.passes.channels.channel_cuts import tensors
from shrinkc.passes.criteria.base import Criterion, uniform
from shrinkc.passes.criteria.cap import CaP
from shrinkc.passes.criteria.channel_pruning import ChannelPruning
from shrinkc.passes.criteria.dropnet import DropNet
from shrinkc.passes.criteria.group_fisher import GroupFisher
from shrinkc.passes.criteria.hrank import HRank
from shrinkc.passes.criteria.magnitude import FilterNorm
from shrinkc.passes.criteria.shared.data import Batch
from shrinkc.passes.criteria.trained.group_sl import GroupNorm
from shrinkc.passes.criteria.trained.slimming import NetworkSlimming
from shrinkc.passes.criteria.trained.ssl import SSL

Order = npt.NDArray[np.int64]


def batches() -> list[Batch]:
    """Images of low rank, so that feature maps have different ranks."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(24, 3, 8, 1, generator=generator) * torch.randn(
        24, 1, 1, 8, generator=generator
    )
    x[:, :, 2:5] = 0
    labels = torch.randint(5, (24,), generator=generator)
    return [((x[:12],), labels[:12]), ((x[12:],), labels[12:])]


def low_rank() -> fx.GraphModule:
    """1×1 convolutions: ranks are those of sums of the colours, cut off by ReLU."""

    def body(m: Coupled, x: Tensor) -> object:
        x = m.a(x)
        return m.head(torch.relu(x + m.c(m.b(x))))

    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    return captured(
        Coupled(body, a=conv(3, 6, 1), b=conv(6, 7, 1), c=nn.Conv2d(7, 6, 1), head=head)
    )


NETWORKS = {
    "low_rank": low_rank,
    **{
        n: lambda n=n: graph_of(n)
        for n in ("residual", "concat", "flatten", "squeeze_excite", "shuffle")
    },
}
CRITERIA: list[Criterion] = [
    *(FilterNorm(1), FilterNorm(2), NetworkSlimming(), SSL(), GroupNorm()),
    HRank(batches()),
    *(DropNet(batches()), ChannelPruning(batches()), CaP(batches())),
    *(GroupFisher(batches()), GroupFisher(batches(), cost="flops")),
]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda c: c.name)
def test_permuted(network: str, criterion: Criterion) -> None:
    graph = NETWORKS[network]()
    if network == "flatten" and isinstance(criterion, GroupFisher):
        labels = [((x,), y % 4) for (x,), y in batches() if y is not None]
        criterion = GroupFisher(labels, cost=criterion.cost)
    groups = channel_groups(graph)
    orders = {g.name: np.random.default_rng(7).permutation(g.size) for g in groups.groups}
    twin = permuted(graph, groups, orders)
    scores, changed = criterion.scores(graph, groups), criterion.scores(twin, channel_groups(twin))
    assert scores.keys() == changed.keys() != set()
    for name, order in orders.items():
        if name in scores:
            scale = np.abs(scores[name]).max()
            np.testing.assert_allclose(changed[name], scores[name][order], atol=1e-6 * scale)
    before, after = (uniform(groups, s, 0.5).keep for s in (scores, changed))
    for name, order in orders.items():
        if name in scores and clear(scores[name], before[name]):
            assert after[name].tolist() == before[name][order].tolist()


def test_most_selections_are_clear() -> None:
    """So that the comparison above compares something, for the ranks too."""
    graph = low_rank()
    groups = channel_groups(graph)
    for criterion in CRITERIA:
        scores = criterion.scores(graph, groups)
        keep = uniform(groups, scores, 0.5).keep
        assert any(clear(scores[name], keep[name]) for name in keep), criterion.name


def clear(scores: npt.NDArray[np.float64], keep: npt.NDArray[np.bool_]) -> bool:
    """The last that stays and the first that goes do not score alike."""
    return bool(scores[keep].min() > scores[~keep].max() * (1 + 1e-5))


def permuted(graph: fx.GraphModule, groups: Groups, orders: Mapping[str, Order]) -> fx.GraphModule:
    """Channel i of a group is what channel order[i] was; the same function."""
    twin = copy_graph(graph)
    old, new = (dict(tensors(g)) for g in (graph, twin))
    for group in groups.groups:
        for part in group.slices:
            swap(group, part, orders[group.name], old, new)
        for part in group.slices:  # a weight may hold the group along both dimensions
            old[part.path] = new[part.path].detach().clone()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(twin(x)[0], graph(x)[0], rtol=1e-9, atol=1e-9)
    return twin


def swap(
    group: ChannelGroup,
    part: ParameterSlice,
    order: Order,
    old: dict[str, Tensor],
    new: dict[str, Tensor],
) -> None:
    index = np.arange(new[part.path].shape[part.dim])
    places = [part.positions[part.channels == c] for c in range(group.size)]
    for channel, of in enumerate(order):
        index[places[channel]] = places[of]
    with torch.no_grad():
        source = new[part.path].detach().clone()
        new[part.path].copy_(source.index_select(part.dim, torch.from_numpy(index)))
