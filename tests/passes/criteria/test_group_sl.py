"""DepGraph's sparse learning: γ, the gradient of the penalty, the scores, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from channel_networks import graph_of
from hand_built import Net
from torch import Tensor, fx, nn

from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.methods import as_published
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.trained.group_sl import (
    GROUP_SL,
    GroupNorm,
    coupled,
    group_penalty,
    growth,
)


def chain() -> fx.GraphModule:
    """Three channels whose filters, scales and readers together have the norms 5, 3 and 1."""
    net = Net(1, 3, 2, 2)
    made = net.call(nn.BatchNorm2d(3), net.conv(net.x, 3, 3, 1, name="a"), "norm")
    graph = net.build(net.conv(made, 3, 2, 1, name="b"))
    values = {
        "a.weight": [[0.0, 0, 4], [2, 0, 0], [0, 0, 0]],
        "norm.weight": [3.0, 1, 0],
        "b.weight": [[0.0, 2, 0], [0, 0, 1]],
    }
    for path, numbers in values.items():
        parameter = graph.get_parameter(path)
        parameter.data.copy_(torch.tensor(numbers).reshape(parameter.shape))
    graph.get_parameter("a.bias").data.fill_(100.0)  # counts nowhere
    return graph


def test_gamma_grows_from_1_to_16() -> None:
    assert growth(torch.tensor([5.0, 3, 1])).tolist() == pytest.approx([1, 4, 16])
    assert growth(torch.tensor([2.0, 0])).tolist() == pytest.approx([1, 16])


@pytest.mark.parametrize("norms", [[0.0, 0, 0], [3.0, 3, 3], [2.0]])
def test_gamma_of_equal_channels_is_1(norms: list[float]) -> None:
    assert growth(torch.tensor(norms)).tolist() == [1.0] * len(norms)


def test_penalty_and_its_gradient() -> None:
    """½·0.1·(1·25 + 4·9 + 16·1); at a weight, 0.1·γ·w: γ is not derived."""
    graph = chain()
    loss = group_penalty(graph, channel_groups(graph), 0.1)(graph, None)
    assert float(loss.detach()) == pytest.approx(0.05 * 77)
    loss.backward()

    def gradient(path: str) -> Tensor:
        found = graph.get_parameter(path).grad
        assert found is not None
        return found.reshape(len(found), -1).squeeze(1).float()

    filters = torch.tensor([[0, 0, 0.4], [0.8, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(gradient("a.weight"), filters)
    torch.testing.assert_close(gradient("norm.weight"), torch.tensor([0.3, 0.4, 0]))
    torch.testing.assert_close(gradient("b.weight"), torch.tensor([[0, 0.8, 0], [0, 0, 1.6]]))
    assert graph.get_parameter("a.bias").grad is None


def test_scores_are_over_the_largest_of_the_group() -> None:
    graph = chain()
    scores = GroupNorm().scores(graph, channel_groups(graph))
    np.testing.assert_allclose(scores["a"], [1, 9 / 25, 1 / 25])
    options = as_published(Allocation(), GROUP_SL)
    assert (options.kind, options.normalise) == ("global", "none")


def test_a_network_of_zeros_has_scores() -> None:
    graph = chain()
    for parameter in graph.parameters():
        parameter.data.zero_()
    groups = channel_groups(graph)
    assert GroupNorm().scores(graph, groups)["a"].tolist() == [0, 0, 0]
    assert float(group_penalty(graph, groups)(graph, None).detach()) == 0


def test_all_that_makes_scales_or_reads_a_channel_counts() -> None:
    """The sum of a residual block: two layers make it, one is inside, two read it."""
    graph = graph_of("residual")
    group = channel_groups(graph)["a.0"]
    assert {part.path for part in coupled(graph, group)} == {
        *("a.0.weight", "a.1.weight", "c.weight", "b.0.weight", "head.2.weight"),
    }


@pytest.mark.parametrize(
    "network", ["depthwise_multiplier", "concat", "layer_norm", "flatten", "transposed"]
)
def test_scores_are_of_what_a_slice_takes_away(network: str) -> None:
    """Where no weight makes and reads the same group, the squares of the weights that are gone."""
    graph = graph_of(network)
    groups = channel_groups(graph)
    compared = 0
    for group in groups.groups:
        paths = [part.path for part in coupled(graph, group)]
        if len(np.bincount(group.cells)) > 1 or len(paths) > len(set(paths)):
            continue
        lost: list[float] = []
        for channel in range(group.size):
            keep = Selection({group.name: np.arange(group.size) != channel})
            lost.append(squares(graph) - squares(SliceChannels(keep)(graph).graph_module))
        found = GroupNorm().scores(graph, groups)[group.name]
        np.testing.assert_allclose(found, np.array(lost) / max(lost), rtol=1e-9)
        compared += 1
    assert compared


def squares(graph: fx.GraphModule) -> float:
    weights = [p for name, p in graph.named_parameters() if name.endswith(".weight")]
    return sum(float(weight.detach().square().sum()) for weight in weights)


def test_nothing_that_can_go() -> None:
    net = Net(1, 3, 2, 2)
    graph = net.build(net.conv(net.x, 3, 4, 1))
    with pytest.raises(InputError, match="group-sl finds no channels that can go"):
        group_penalty(graph, channel_groups(graph))
