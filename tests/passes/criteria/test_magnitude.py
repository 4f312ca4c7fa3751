"""Scores by hand, widths and masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from channel_networks import graph_of
from hand_built import Net
from torch import Tensor, fx, nn

from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.criteria.base import most_important, rounded, sites, uniform, widths
from shrinkc.passes.criteria.magnitude import EqualScores, FilterNorm, RandomScores


def small(weight: Tensor) -> fx.GraphModule:
    """A 1×1 convolution of two inputs with this weight, and a reader."""
    net = Net(1, 2, 3, 3)
    node = net.conv(net.x, 2, len(weight), 1, name="layer")
    net.root.get_submodule("layer").weight.data.copy_(weight[:, :, None, None])
    return net.build(net.conv(node, len(weight), 2, 1))


def test_filter_norms_by_hand() -> None:
    graph = small(torch.tensor([[3.0, -4.0], [0.0, 1.0], [-1.0, -1.0]]))
    groups = channel_groups(graph)
    assert FilterNorm(1).scores(graph, groups)["layer"].tolist() == [7, 1, 2]
    two = FilterNorm(2).scores(graph, groups)["layer"]
    np.testing.assert_allclose(two, [5, 1, 2**0.5])


def test_coupled_filters_are_summed() -> None:
    graph = graph_of("residual")
    a, c = (graph.get_submodule(n).weight.detach() for n in ("a.0", "c"))
    found = FilterNorm(1).scores(graph, channel_groups(graph))["a.0"]
    expected = a.abs().sum((1, 2, 3)) + c.abs().sum((1, 2, 3))
    np.testing.assert_allclose(found, expected.numpy())


def test_transposed_and_grouped_filters() -> None:
    graph = graph_of("transposed")
    up, grouped = graph.get_submodule("1").weight, graph.get_submodule("3").weight
    found = FilterNorm(1).scores(graph, channel_groups(graph))
    np.testing.assert_allclose(found["1"], up.detach().abs().sum((0, 2, 3)).numpy())
    by_hand = torch.stack([grouped[3 * g : 3 * g + 3].detach() for g in range(2)])
    np.testing.assert_allclose(found["3"], by_hand.abs().sum((1, 3, 4)).reshape(-1).numpy())


def test_permuting_channels_permutes_the_selection() -> None:
    weight = torch.randn(6, 2, generator=torch.Generator().manual_seed(4))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    masks: list[Tensor] = []
    for rows in (weight, weight[order]):
        graph = small(rows)
        groups = channel_groups(graph)
        mask = uniform(groups, FilterNorm().scores(graph, groups), 0.5).keep["layer"]
        masks.append(torch.from_numpy(mask))
    assert torch.equal(masks[0][order], masks[1])


def test_baselines() -> None:
    graph = graph_of("residual")
    groups = channel_groups(graph)
    assert [(s.name, s.size, s.kind) for s in sites(groups)] == [
        ("a.0", 8, "channels"),
        ("b.0", 6, "channels"),
    ]
    first = uniform(groups, EqualScores().scores(graph, groups), 0.5).keep
    assert first["a.0"].tolist() == [True] * 4 + [False] * 4
    one, two = (RandomScores(seed).scores(graph, groups)["a.0"] for seed in (0, 1))
    assert one.tolist() == RandomScores(0).scores(graph, groups)["a.0"].tolist() != two.tolist()


def test_widths() -> None:
    groups = channel_groups(graph_of("grouped"))
    assert widths(groups["a.0"]) == (1, 2, 3, 4, 5, 6, 7, 8)
    assert widths(groups["a.0"], 4) == (4, 8)
    assert widths(groups["a.0"], 16) == (8,)
    assert widths(groups["b.0"]) == (4, 8, 12, 16)  # four cells
    assert widths(groups["b.0"], 8) == (8, 16)
    four_each = channel_groups(graph_of("pixel_shuffle"))["0.0"]  # four filters for a channel
    assert widths(four_each, 8) == (2, 4)
    assert [rounded(groups["a.0"], n, 4) for n in (1, 5.9, 6, 7)] == [4, 4, 8, 8]


def test_as_many_of_each_cell() -> None:
    group = channel_groups(graph_of("grouped"))["b.0"]
    scores = np.arange(16.0)
    assert np.flatnonzero(most_important(group, scores, 8)).tolist() == [2, 3, 6, 7, 10, 11, 14, 15]
    with pytest.raises(InputError, match="cannot keep 10 of 16 channels: as many must go from"):
        most_important(group, scores, 10)
    with pytest.raises(InputError, match="cannot keep 0 of 16"):
        most_important(group, scores, 0)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -1.0, 1.5, float("nan")])
def test_ratios_that_cannot_be(ratio: float) -> None:
    graph = graph_of("residual")
    groups = channel_groups(graph)
    with pytest.raises(InputError, match="give a number between 0 and 1"):
        uniform(groups, EqualScores().scores(graph, groups), ratio)


def test_the_graph_is_left_alone() -> None:
    graph = graph_of("grouped")
    before = {n: p.clone() for n, p in graph.named_parameters()}
    groups = channel_groups(graph)
    for criterion in (FilterNorm(1), FilterNorm(2), RandomScores(), EqualScores()):
        criterion.scores(graph, groups)
    assert all(torch.equal(before[n], p) for n, p in graph.named_parameters())
    assert not any(isinstance(m, nn.Linear) and m.training for m in graph.modules())
