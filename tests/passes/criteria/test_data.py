"""Criteria that look at images, by hand on small networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from channel_networks import graph_of
from hand_built import Net
from torch import fx, nn

from shrinkc.compiler.width.sensitivity import correct_of, loss_of, sensitivity
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.base import copy_graph
from shrinkc.passes.criteria.dropnet import DropNet, drop, drop_iteratively
from shrinkc.passes.criteria.hrank import HRank, ranks
from shrinkc.passes.criteria.magnitude import FilterNorm
from shrinkc.passes.criteria.shared.data import Batch, Batches
from shrinkc.passes.criteria.shared.feature_maps import feature_maps


def images(*shape: int, batches: int = 2, classes: int = 2) -> list[Batch]:
    generator = torch.Generator().manual_seed(3)
    return [
        (
            (torch.randn(shape, generator=generator, dtype=torch.float64),),
            torch.randint(classes, shape[:1], generator=generator),
        )
        for _ in range(batches)
    ]


def copies(*factors: float) -> fx.GraphModule:
    """A channel for each factor times the image, an activation, a reader."""
    net = Net(1, 1, 4, 4)
    made = net.conv(net.x, 1, len(factors), 1, name="layer", bias=False)
    net.root.get_submodule("layer").weight.data.copy_(torch.tensor(factors).reshape(-1, 1, 1, 1))
    return net.build(net.conv(net.call(nn.ReLU(), made), len(factors), 2, 1, name="reader"))


def test_ranks_of_made_maps() -> None:
    outer = torch.outer(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 0, 1]))
    maps = torch.stack(
        [torch.zeros(3, 3), outer, torch.diag(torch.tensor([1.0, 2, 0])), torch.eye(3)]
    )
    assert ranks(maps[None]).tolist() == [[0, 1, 2, 3]]
    assert ranks(torch.tensor([[0.0, -2.0]])).tolist() == [[0, 1]]


def test_hrank_is_the_mean_rank_behind_the_activation() -> None:
    """Positive copies keep the image, negative ones what is negative: here nothing, then all."""
    one = torch.eye(4)
    two = -torch.outer(torch.arange(4.0), torch.ones(4))
    batch = (torch.stack([one, two])[:, None],), None
    graph = copies(1.0, -1.0, 0.0)
    found = HRank([batch]).scores(graph, channel_groups(graph))["layer"]
    assert found.tolist() == [(4 + 0) / 2, (0 + 1) / 2, 0]


def test_hrank_is_weighted_by_images_not_batches() -> None:
    eye = torch.eye(4)[None, None]
    batches: Batches = [((torch.cat([eye, eye, eye]),), None), ((0 * eye,), None)]
    graph = copies(1.0, 2.0)
    assert HRank(batches).scores(graph, channel_groups(graph))["layer"].tolist() == [3, 3]


def test_dropnet_is_the_mean_magnitude_behind_the_activation() -> None:
    x = torch.tensor([1.0, -2.0, 3.0, 0.0] * 4).reshape(1, 1, 4, 4)
    graph = copies(1.0, -1.0, 3.0)
    found = DropNet([((x,), None)]).scores(graph, channel_groups(graph))["layer"]
    assert found.tolist() == [1.0, 0.5, 3.0]


def test_dropnet_without_an_activation_counts_both_signs() -> None:
    net = Net(1, 1, 4, 4)
    made = net.conv(net.x, 1, 2, 1, name="layer", bias=False)
    net.root.get_submodule("layer").weight.data.copy_(torch.tensor([1.0, -3.0]).reshape(2, 1, 1, 1))
    graph = net.build(net.conv(made, 2, 2, 1))
    x = torch.tensor([1.0, -2.0, 3.0, 0.0] * 4).reshape(1, 1, 4, 4)
    found = DropNet([((x,), None)]).scores(graph, channel_groups(graph))["layer"]
    assert found.tolist() == [1.5, 4.5]


def test_maps_of_residuals_are_behind_the_sum() -> None:
    graph = graph_of("residual")
    maps = {(m.group.name, m.node) for m in feature_maps(graph, channel_groups(graph))}
    nodes = {n.name: n for n in graph.graph.nodes}
    kinds = {(g, type(graph.get_submodule(str(nodes[n].target))).__name__) for g, n in maps}
    assert len(maps) == 3
    assert kinds == {("a.0", "ReLU"), ("b.0", "ReLU")}
    after_sum = [
        n for g, n in maps if g == "a.0" and nodes[n].all_input_nodes[0].name.startswith("add")
    ]
    assert len(after_sum) == 1


def test_drop_by_layer_and_global() -> None:
    net = Net(1, 3, 4, 4)
    x = net.conv(net.x, 3, 4, 1, name="a")
    x = net.conv(x, 4, 4, 1, name="b")
    graph = net.build(net.conv(x, 4, 2, 1))
    groups = channel_groups(graph)
    scores = {"a": np.array([1.0, 2, 3, 4]), "b": np.array([5.0, 8, 7, 6])}
    by_layer = drop(groups, scores, 0.25, "layer").keep
    assert {n: m.tolist() for n, m in by_layer.items()} == {
        "a": [False, True, True, True],
        "b": [False, True, True, True],
    }
    everywhere = drop(groups, scores, 0.25, "global").keep
    assert {n: m.tolist() for n, m in everywhere.items()} == {"a": [False, False, True, True]}
    most = drop(groups, scores, 0.75, "global").keep
    assert most["a"].tolist() == [False, False, False, True]  # one stays
    assert most["b"].tolist() == [False, True, True, False]
    with pytest.raises(InputError, match="a fraction of 1 to drop"):
        drop(groups, scores, 1.0, "global")


@pytest.mark.parametrize("reset", [False, True])
def test_dropnet_iterates(reset: bool) -> None:
    graph = copies(1.0, 2.0, 3.0, 4.0, 5.0)
    initial = copy_graph(graph)
    initial.get_submodule("layer").weight.data.mul_(10)
    seen: list[list[float]] = []

    def train(network: fx.GraphModule) -> None:
        seen.append(network.get_submodule("layer").weight.flatten().tolist())
        network.get_submodule("layer").weight.data.neg_()

    batches = images(2, 1, 4, 4)
    before = graph.get_submodule("layer").weight.clone()
    result = drop_iteratively(
        *(graph, DropNet(batches), train, 2), 0.25, "layer", initial if reset else None
    )
    # the second round drops again the least magnitude, whatever the sign became
    assert seen == ([[20, 30, 40, 50], [30, 40, 50]] if reset else [[2, 3, 4, 5], [-3, -4, -5]])
    assert result.get_submodule("layer").out_channels == 3
    assert torch.equal(graph.get_submodule("layer").weight, before)


def test_sensitivity_curves() -> None:
    net = Net(1, 2, 1, 1)
    made = net.conv(net.x, 2, 2, 1, name="layer", bias=False)
    net.root.get_submodule("layer").weight.data.copy_(
        torch.diag(torch.tensor([3.0, 1.0]))[:, :, None, None]
    )
    read = net.conv(made, 2, 2, 1, name="reader", bias=False)
    net.root.get_submodule("reader").weight.data.copy_(torch.eye(2)[:, :, None, None])
    graph = net.build(net.function(torch.reshape, read, (-1, 2)))
    x = torch.tensor([[1.0, 2.0], [1.0, 4.0], [1.0, 0.0]]).reshape(3, 2, 1, 1)
    batches: Batches = [((x,), torch.tensor([0, 1, 0]))]
    groups = channel_groups(graph)
    scores = FilterNorm().scores(graph, groups)
    curves = sensitivity(graph, groups, scores, correct_of(batches), (0.5, 0.4))
    assert [(c.group, c.removed, c.values) for c in curves] == [("layer", (0.0, 0.5), (1.0, 2 / 3))]
    logits = torch.stack([3 * x[:, 0, 0, 0], x[:, 1, 0, 0]], 1)
    whole, masked = (
        torch.nn.functional.cross_entropy(z, torch.tensor([0, 1, 0]))
        for z in (logits, logits * torch.tensor([1.0, 0.0]))
    )
    (curve,) = sensitivity(graph, groups, scores, loss_of(batches), (0.5,))
    np.testing.assert_allclose(curve.values, [float(whole), float(masked)], rtol=1e-6)
    five = copies(1.0, 2.0, 3.0, 4.0, 5.0)
    groups5 = channel_groups(five)
    (curve,) = sensitivity(
        *(five, groups5, FilterNorm().scores(five, groups5)), lambda _: 0.0, (0.2, 0.6)
    )
    np.testing.assert_allclose(curve.removed, [0, 0.2, 0.6])
    with pytest.raises(InputError, match="a ratio of 1 to remove"):
        sensitivity(graph, groups, scores, correct_of(batches), (1.0,))
    with pytest.raises(InputError, match="needs labels"):
        sensitivity(graph, groups, scores, correct_of([((x,), None)]), (0.5,))


def test_batches_that_cannot_be_used() -> None:
    graph = copies(1.0, 2.0)
    groups = channel_groups(graph)
    with pytest.raises(InputError, match="no images to look at"):
        HRank([]).scores(graph, groups)
    with pytest.raises(InputError, match="read only once"):
        DropNet(iter(images(1, 1, 4, 4))).scores(graph, groups)


def test_statistics_and_modes_stay() -> None:
    graph = graph_of("residual").train()
    graph.get_submodule("b.1").eval()
    state = {k: v.clone() for k, v in graph.state_dict().items()}
    DropNet(images(2, 3, 8, 8)).scores(graph, channel_groups(graph))
    assert all(torch.equal(v, state[k]) for k, v in graph.state_dict().items())
    assert graph.training
    assert not graph.get_submodule("b.1").training


def test_every_network_has_maps_of_every_group() -> None:
    for name in ("shuffle", "concat", "squeeze_excite", "layer_norm", "pixel_shuffle", "grouped"):
        graph = graph_of(name)
        groups = channel_groups(graph)
        scores = DropNet(images(2, 3, 8, 8)).scores(graph, groups)
        assert {g.name: g.size for g in groups.groups} == {n: len(s) for n, s in scores.items()}
        assert all((s > 0).any() for s in scores.values()), name
