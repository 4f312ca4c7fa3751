"""Layer after layer, the search that judges anew, and the hooks of criteria in a training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from channel_networks import Coupled, captured, graph_of
from slice_checks import check_sliced
from torch import Tensor, fx, nn

from shrinkc.compiler.images.decoded import Data, Images
from shrinkc.compiler.recover.compensate import compensate
from shrinkc.compiler.train.settings.config import Hooks, Training
from shrinkc.compiler.train.settings.optimisers import Sgd
from shrinkc.compiler.train.train import train
from shrinkc.compiler.width.layer_by_layer import compensated_scores, prune_in_order
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.base import most_important
from shrinkc.passes.criteria.cap import CaP, structural_search
from shrinkc.passes.criteria.channel_pruning import ChannelPruning
from shrinkc.passes.criteria.fisher_training import fisher_network
from shrinkc.passes.criteria.magnitude import FilterNorm
from shrinkc.passes.criteria.shared.channel_costs import memory_per_channel
from shrinkc.passes.criteria.shared.data import Batch
from shrinkc.passes.criteria.trained.group_sl import GroupNorm, group_penalty
from shrinkc.passes.criteria.trained.slimming import NetworkSlimming, slimming_penalty


def images(count: int = 12, batches: int = 2) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [((torch.randn(count, 3, 8, 8, generator=generator),), None) for _ in range(batches)]


def test_each_group_is_judged_in_the_network_so_far() -> None:
    graph, batches = graph_of("residual"), images()
    criterion = ChannelPruning(batches)
    found = prune_in_order(graph, criterion, {"a.0": 5, "b.0": 3}, batches)
    groups = channel_groups(graph)
    first = most_important(groups["a.0"], criterion.scores(graph, groups)["a.0"], 5)
    assert found.selection.keep["a.0"].tolist() == first.tolist()
    alone = compensate(graph, SliceChannels(Selection({"a.0": first})), batches)
    student = SliceChannels(alone.selection)(graph).graph_module
    left = channel_groups(student)
    second = most_important(left["b.0"], criterion.scores(student, left)["b.0"], 3)
    assert found.selection.keep["b.0"].tolist() == second.tolist()
    assert {fit.layer for fit in found.fits} == {"b.0", "c", "head.2"}
    for path, values in alone.selection.weights.items():  # what was fitted before stays fitted
        assert torch.equal(found.selection.weights[path], values)
    assert not check_sliced(graph, SliceChannels(found.selection)).skipped


def test_groups_that_cannot_be_pruned_so() -> None:
    graph, batches = graph_of("residual"), images(2, 1)
    with pytest.raises(InputError, match="there is no channel group 'fc'"):
        prune_in_order(graph, FilterNorm(), {"fc": 3}, batches)
    with pytest.raises(InputError, match="cannot keep 0 of 8 channels"):
        prune_in_order(graph, FilterNorm(), {"a.0": 0}, batches)
    with pytest.raises(InputError, match="channel-pruning cannot judge channel group 'q'"):
        prune_in_order(product(), ChannelPruning(batches), {"q": 2}, batches)


def product() -> fx.GraphModule:
    """Queries and keys meet in a matrix product: no weights read them."""

    def body(m: Coupled, x: Tensor) -> object:
        return m.q(x).flatten(2).transpose(1, 2) @ m.k(x).flatten(2)

    return captured(Coupled(body, q=nn.Conv2d(3, 4, 1), k=nn.Conv2d(3, 4, 1)))


def test_the_search_judges_the_compensated_network_anew() -> None:
    graph, batches = graph_of("residual"), images()
    judge = compensated_scores(graph, CaP(batches), batches)
    seen: list[Selection] = []

    def watched(selection: Selection) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        seen.append(selection)
        return dict(judge(selection))

    groups = channel_groups(graph)
    found = structural_search(groups, watched, lambda c: sum(c.values()), 8, step=0.3)
    assert len(seen) > 1
    assert sum(int(found.keep.get(g.name, np.ones(g.size)).sum()) for g in groups.groups) <= 8
    scores = judge(seen[1])
    for name, mask in seen[1].keep.items():
        assert not scores[name][~mask].any()
        assert (scores[name][mask] > 0).all()
        assert not (found.keep[name] & ~mask).any()  # what is gone stays gone


# --- in a training -------------------------------------------------------------------------------


def data(count: int = 64) -> Data:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 8, 8, 3), generator=generator, dtype=torch.uint8)
    return Data(Images(pixels, torch.randint(5, (count,), generator=generator)))


def training(hooks: Hooks, epochs: int) -> Training:
    return Training(epochs, batch=16, optimiser=Sgd(1e-2), hooks=hooks)


def test_slimming_in_a_training() -> None:
    sums: list[float] = []
    for strength in (0.0, 0.5):
        graph = graph_of("residual").float()
        groups = channel_groups(graph)
        penalty = slimming_penalty(graph, groups, strength)
        train(graph, data(), training(Hooks(penalty=penalty), 3))
        scores = NetworkSlimming().scores(graph, groups)
        sums.append(sum(float(s.sum()) for s in scores.values()))
    assert sums[1] < 0.9 * sums[0]


def test_group_sl_in_a_training() -> None:
    """The smallest channels fall behind the largest of their groups."""
    means: list[float] = []
    for strength in (0.0, 0.05):
        graph = graph_of("residual").float()
        groups = channel_groups(graph)
        train(graph, data(), training(Hooks(group_penalty(graph, groups, strength)), 6))
        scores = GroupNorm().scores(graph, groups)
        means.append(float(np.mean([float(s.min()) for s in scores.values()])))
    assert means[1] < 0.7 * means[0]


def test_fisher_in_a_training() -> None:
    graph = graph_of("residual").float()
    groups = channel_groups(graph)
    costs = memory_per_channel(graph, groups)
    network, pruning = fisher_network(
        graph, groups, lambda _: costs, lambda keep: sum(map(sum, keep.values())) <= 10, every=2
    )
    hooks = Hooks(after_step=pruning.after_step, state=pruning)
    train(network, data(), training(hooks, 4))  # four steps an epoch: eight removals, four wanted
    assert sum(int(mask.sum()) for mask in pruning.keep.values()) == 10
    assert len(pruning.selection().keep) >= 1
