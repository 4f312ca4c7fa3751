"""Criteria that training prepares: Network Slimming and SSL."""

from __future__ import annotations

from collections.abc import Sequence

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
from shrinkc.passes.criteria.base import above, lowest, uniform
from shrinkc.passes.criteria.trained.slimming import (
    SLIMMING,
    NetworkSlimming,
    authors_strength,
    slimming_penalty,
)
from shrinkc.passes.criteria.trained.ssl import SSL, ssl_penalty, zero_layers, zero_shapes


def scaled(*gammas: list[float]) -> fx.GraphModule:
    """A chain of 1×1 convolutions with these batch norm scales, and a reader."""
    net = Net(1, 3, 2, 2)
    x, inputs = net.x, 3
    for number, gamma in enumerate(gammas):
        x = net.conv(x, inputs, len(gamma), 1, name=f"conv{number}")
        x = net.call(nn.BatchNorm2d(len(gamma)), x, f"bn{number}")
        net.root.get_submodule(f"bn{number}").weight.data.copy_(torch.tensor(gamma))
        inputs = len(gamma)
    return net.build(net.conv(x, inputs, 2, 1, name="reader"))


def masks(graph: fx.GraphModule, ratio: float) -> dict[str, list[bool]]:
    groups = channel_groups(graph)
    keep = lowest(groups, NetworkSlimming().scores(graph, groups), ratio).keep
    return {name: mask.tolist() for name, mask in keep.items()}


def test_one_threshold_for_all_layers() -> None:
    graph = scaled([0.9, -0.8, 0.1, 0.7], [-0.2, 0.05, 0.6, 0.3])
    assert masks(graph, 0.5) == {
        "conv0": [True, True, False, True],
        "conv1": [False, False, True, False],
    }
    assert masks(graph, 0.13) == {"conv1": [True, False, True, True]}
    assert masks(graph, 0.1) == {}


def test_a_group_that_would_vanish() -> None:
    graph = scaled([0.9, 0.8, 0.7, 0.6], [0.1, 0.2])
    with pytest.raises(InputError, match=r"channel group 'conv1' would vanish: all its 2 channels"):
        masks(graph, 0.5)
    groups = channel_groups(graph)
    kept = lowest(groups, NetworkSlimming().scores(graph, groups), 0.5, "keep one").keep
    assert {n: m.tolist() for n, m in kept.items()} == {
        "conv0": [True, True, True, False],
        "conv1": [False, True],
    }


@pytest.mark.parametrize("ratio", [0.0, 1.0, float("nan")])
def test_ratios_that_cannot_be(ratio: float) -> None:
    with pytest.raises(InputError, match="give a number between 0 and 1"):
        masks(scaled([0.9, 0.8]), ratio)


def test_cells_lose_equally_many() -> None:
    groups = channel_groups(graph_of("grouped"))
    scores = {"b.0": np.array([9.0] * 4 + [1.0] * 4 + [9, 9, 1, 1] + [9, 1, 1, 1])}
    assert not above(groups, scores, 5.0).keep  # the fullest cell keeps all four
    scores["b.0"][:2] = 1.0
    assert above(groups, scores, 5.0).keep["b.0"].reshape(4, 4).sum(1).tolist() == [2] * 4


def test_coupled_norms_count_on_average() -> None:
    net = Net(1, 3, 2, 2)
    sides: list[fx.Node] = []
    for name, gamma in (("a", [1.0, 0.2]), ("b", [-0.5, 0.4])):
        sides.append(net.call(nn.BatchNorm2d(2), net.conv(net.x, 3, 2, 1, name=name), f"bn_{name}"))
        net.root.get_submodule(f"bn_{name}").weight.data.copy_(torch.tensor(gamma))
    graph = net.build(net.conv(net.add(*sides), 2, 2, 1))
    found = NetworkSlimming(streams=True).scores(graph, channel_groups(graph))["a"]
    np.testing.assert_allclose(found, [0.75, 0.3], rtol=1e-6)


def test_groups_without_norms_stay_whole() -> None:
    net = Net(1, 3, 2, 2)
    x = net.call(nn.BatchNorm2d(4), net.conv(net.x, 3, 4, 1, name="a"))
    graph = net.build(net.conv(net.conv(x, 4, 4, 1, name="b"), 4, 2, 1))
    groups = channel_groups(graph)
    scores = NetworkSlimming().scores(graph, groups)
    assert set(scores) == {"a"}
    assert set(uniform(groups, scores, 0.5).keep) == {"a"}


def test_no_norm_at_all() -> None:
    net = Net(1, 3, 2, 2)
    graph = net.build(net.conv(net.conv(net.x, 3, 4, 1), 4, 2, 1))
    for use in (
        lambda: NetworkSlimming().scores(graph, channel_groups(graph)),
        lambda: slimming_penalty(graph, channel_groups(graph)),
    ):
        with pytest.raises(InputError, match="needs batch norms with scales"):
            use()


def shortcut(*gammas: Sequence[float]) -> fx.GraphModule:
    """A stream of two channels, and two blocks that add to it, each of three hidden channels."""
    net = Net(1, 3, 2, 2)
    stream = net.call(nn.BatchNorm2d(2), net.conv(net.x, 3, 2, 1), name="stem")
    for number, gamma in enumerate(gammas):
        made = net.conv(stream, 2, 3, 1, name=f"block{number}")
        hidden = net.call(nn.BatchNorm2d(3), made, f"hidden{number}")
        net.root.get_submodule(f"hidden{number}").weight.data.copy_(torch.tensor(gamma))
        stream = net.add(stream, net.call(nn.BatchNorm2d(2), net.conv(hidden, 3, 2, 1)))
    return net.build(net.conv(stream, 2, 2, 1))


def test_slimming_prunes_inside_blocks_by_one_percentile() -> None:
    """Half of the six hidden channels go: 0.1, 0.2 and 0.3, two of them in the first block; the
    stream, with the smallest scales of all, stays."""
    graph = shortcut([0.1, 0.9, -0.2], [0.3, -0.8, 0.7])
    graph.get_parameter("stem.weight").data.fill_(0.01)
    groups = channel_groups(graph)
    scores = NetworkSlimming().scores(graph, groups)
    assert set(scores) == {"block0", "block1"}
    assert len(NetworkSlimming(streams=True).scores(graph, groups)) == 3
    keep = lowest(groups, scores, 0.5).keep
    assert keep["block0"].tolist() == [False, True, False]
    assert keep["block1"].tolist() == [False, True, True]
    options = as_published(Allocation(multiple=1, floor=0.0), SLIMMING)
    assert (options.kind, options.normalise) == ("global", "none")


def test_slimming_takes_the_authors_strengths() -> None:
    graph = shortcut([0.1, 0.9, -0.2])
    assert authors_strength(graph, channel_groups(graph)) == 1e-5
    chain = scaled([0.5, -2.0], [0.25, 1.0])
    assert authors_strength(chain, channel_groups(chain)) == 1e-4


def test_slimming_penalty_and_its_gradient() -> None:
    graph = scaled([0.5, -2.0], [0.25, 1.0])
    loss = slimming_penalty(graph, channel_groups(graph), 0.1)(graph, None)
    assert float(loss.detach()) == pytest.approx(0.375)
    loss.backward()
    assert graph.get_parameter("bn0.weight").grad.tolist() == pytest.approx([0.1, -0.1])
    assert graph.get_parameter("conv0.weight").grad is None


def test_penalty_drives_unneeded_scales_to_zero() -> None:
    graph = scaled([0.5, 0.5, 0.5])
    penalty = slimming_penalty(graph, channel_groups(graph), 1.0)
    gamma = graph.get_parameter("bn0.weight")
    for _ in range(100):
        loss = (gamma[0] - 2) ** 2 + penalty(graph, None)
        (gradient,) = torch.autograd.grad(loss, gamma)
        gamma.data -= 0.01 * gradient
    assert gamma[0] > 1
    assert gamma[1:].abs().max() < 0.011


# --- SSL -----------------------------------------------------------------------------------------


def pair(first: Tensor, second: Tensor) -> fx.GraphModule:
    """Two convolutions with these weights."""
    net = Net(1, first.shape[1], 4, 4)
    x = net.conv(
        net.x, first.shape[1], len(first), first.shape[2], name="a", padding=first.shape[2] // 2
    )
    net.root.get_submodule("a").weight.data.copy_(first)
    x = net.conv(x, len(first), len(second), 1, name="b")
    net.root.get_submodule("b").weight.data.copy_(second)
    return net.build(x)


FIRST = torch.tensor([[3.0, 0], [0, 0], [1, 2]])[:, :, None, None]
SECOND = torch.tensor([[4.0, 0, 1], [0, 0, 2]])[:, :, None, None]


def test_norms_of_filters_and_of_what_reads_them() -> None:
    graph = pair(FIRST, SECOND)
    groups = channel_groups(graph)
    by = {k: SSL(k).scores(graph, groups)["a"] for k in (("filter",), ("channel",))}
    np.testing.assert_allclose(by["filter",], [3, 0, 5**0.5])
    np.testing.assert_allclose(by["channel",], [4, 0, 5**0.5])
    both = SSL().scores(graph, groups)
    np.testing.assert_allclose(both["a"], [5, 0, 10**0.5])
    assert above(groups, both, 1e-3).keep["a"].tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("filter", 3 + 5**0.5), ("channel", 4 + 5**0.5), ("shape", 10**0.5 + 2 + 4 + 5**0.5)],
)
def test_penalties_by_hand(kind: str, expected: float) -> None:
    graph = pair(FIRST, SECOND)
    loss = ssl_penalty(graph, channel_groups(graph), 0.5, (kind,))(graph, None)
    assert float(loss.detach()) == pytest.approx(expected / 2)
    loss.backward()
    gradients = [p.grad for p in graph.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)


def test_coupled_filters_are_one_structure() -> None:
    graph = graph_of("residual")
    groups = channel_groups(graph)
    loss = ssl_penalty(graph, groups, 1.0, ("filter",))(graph, None)
    a, b, c = (
        graph.get_submodule(n).weight.detach().square().sum((1, 2, 3)) for n in ("a.0", "b.0", "c")
    )
    assert float(loss.detach()) == pytest.approx(float((a + c).sqrt().sum() + b.sqrt().sum()))


def test_grouped_filters_agree_with_their_norm() -> None:
    graph = graph_of("grouped")
    groups = channel_groups(graph)
    weight = graph.get_submodule("c.0").weight.detach()  # reads b.0's channels in four groups
    by_hand = weight.reshape(4, 4, 4, 3, 3).square().sum((1, 3, 4)).reshape(-1).sqrt()
    np.testing.assert_allclose(SSL(("channel",)).scores(graph, groups)["b.0"], by_hand.numpy())


def test_depth_is_the_last_layer_of_a_branch() -> None:
    graph = graph_of("residual")
    loss = ssl_penalty(graph, channel_groups(graph), 1.0, ("depth",))(graph, None)
    norm = graph.get_submodule("c").weight.detach().norm()
    assert float(loss.detach()) == pytest.approx(float(norm))
    assert zero_layers(graph, 1e-3) == ()
    graph.get_submodule("c").weight.data.mul_(1e-6)
    assert zero_layers(graph, 1e-3) == ("c",)
    flat = pair(FIRST, SECOND)
    with pytest.raises(InputError, match="nothing of kind 'depth'"):
        ssl_penalty(flat, channel_groups(flat), 1.0, ("depth",))


def test_zero_shapes() -> None:
    weight = torch.zeros(2, 1, 3, 3)
    weight[1, 0, 1, 1], weight[0, 0, 0, 2] = 1.0, 2.0
    found = zero_shapes(pair(weight, torch.ones(2, 2, 1, 1)), 1e-6)
    expected = torch.ones(1, 3, 3, dtype=torch.bool)
    expected[0, 1, 1] = expected[0, 0, 2] = False
    assert torch.equal(found["a"], expected)
    assert not found["b"].any()
