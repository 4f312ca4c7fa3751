"""Group Fisher: the sum over coupled layers against finite differences, costs, and the schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from channel_networks import graph_of
from hand_built import Net
from torch import Tensor, fx, nn
from torch.nn.functional import cross_entropy

from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Groups, Keep, channel_groups
from shrinkc.passes.channels.mask_channels import mask_channels
from shrinkc.passes.channels.slice_channels import SliceChannels
from shrinkc.passes.criteria.fisher_training import FisherPruning, fisher_network, unmasked
from shrinkc.passes.criteria.group_fisher import GroupFisher
from shrinkc.passes.criteria.shared.channel_costs import macs_per_channel, memory_per_channel
from shrinkc.passes.criteria.shared.data import Batch, Observed
from shrinkc.passes.criteria.shared.masked_reads import masked_reads


def images(count: int = 3, classes: int = 5, seed: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, 8, 8, generator=generator, dtype=torch.float64)
    return (x,), torch.randint(classes, (count,), generator=generator)


def losses(
    graph: fx.GraphModule, groups: Groups, group: str, channel: int, m: float, batch: Batch
) -> Tensor:
    """(n,) Each image's loss, with one channel times m wherever it is read."""
    reads = masked_reads(groups)

    def read(node: fx.Node, source: fx.Node, value: Tensor) -> Tensor:
        for one in reads.get((node.name, source.name), ()):
            for position, of in zip(one.positions, one.channels, strict=True):
                if one.group == group and of == channel:
                    value = value.clone()
                    value.select(one.axis, int(position)).mul_(m)
        return value

    with torch.no_grad():
        outputs = Observed(graph, read=read).run(*batch[0])
        return cross_entropy(outputs[0], batch[1], reduction="none")


@pytest.mark.parametrize(
    "name", ["residual", "concat", "shuffle", "depthwise_multiplier", "grouped", "layer_norm"]
)
def test_sum_over_coupled_layers_by_finite_differences(name: str) -> None:
    graph = graph_of(name)
    if name == "depthwise_multiplier":
        graph = headed(graph)
    groups, batch = channel_groups(graph), images()
    scores = GroupFisher([batch], cost="none").scores(graph, groups)
    assert set(scores) == {g.name for g in groups.groups}
    for group in groups.groups:
        for channel in (0, group.size - 1):
            up, down = (
                losses(graph, groups, group.name, channel, 1 + h, batch) for h in (1e-5, -1e-5)
            )
            expected = float(((up - down) / 2e-5).square().sum())
            assert scores[group.name][channel] == pytest.approx(expected, rel=1e-6, abs=1e-12)


def headed(graph: fx.GraphModule) -> fx.GraphModule:
    """Class scores instead of maps."""
    net = Net(2, 3, 8, 8)
    x = net.conv(net.x, 3, 5, 3, name="a")
    x = net.conv(x, 5, 15, 3, groups=5, name="b")
    x = net.call(nn.AdaptiveAvgPool2d(1), net.conv(x, 15, 5, 1, name="c"))
    return net.build(net.function(torch.reshape, x, (-1, 5)))


def test_finite_differences_see_a_layer_that_is_left_out() -> None:
    """Half of the coupled layers give other scores."""
    graph = graph_of("residual")
    groups = channel_groups(graph)
    group = groups["a.0"]
    fewer = replace(group, read=group.read[:1])
    scores = [
        GroupFisher([images()], cost="none").scores(graph, some)["a.0"]
        for some in (groups, replace(groups, groups=(fewer, groups["b.0"])))
    ]
    assert len(group.read) > 1
    assert np.abs(scores[0] - scores[1]).max() > 1e-3 * scores[0].max()


def test_images_are_squared_one_by_one() -> None:
    graph = graph_of("residual")
    groups = channel_groups(graph)
    (x,), labels = images(4)
    assert labels is not None
    together = GroupFisher([((x,), labels)]).scores(graph, groups)
    alone = [((x[i : i + 1],), labels[i : i + 1]) for i in range(4)]
    for name, scores in GroupFisher(alone).scores(graph, groups).items():
        np.testing.assert_allclose(scores, together[name], rtol=1e-9)


def test_costs_by_hand() -> None:
    graph = graph_of("residual")  # 8×8 maps: a 3→8 3×3, b 8→6 3×3, c 6→8 1×1, a linear 8→5
    groups = channel_groups(graph)
    assert memory_per_channel(graph, groups) == {"a.0": 2 * 64, "b.0": 64}
    a = 64 * (27 + 9 * 6 + 6) + 5
    b = 64 * (9 * 8 + 8)
    assert macs_per_channel(graph, groups) == {"a.0": a, "b.0": b}
    keep = {"a.0": np.arange(8) < 4}
    assert macs_per_channel(graph, groups, keep) == {"a.0": a, "b.0": b / 2}
    grouped = graph_of("grouped")  # b 8→16 1×1, c 16→16 3×3 in four groups, d 16→8 1×1
    found = macs_per_channel(grouped, channel_groups(grouped))
    assert found["b.0"] == 64 * (8 + 4 * 9)
    depthwise = macs_per_channel(headed(grouped), channel_groups(headed(grouped)))
    assert depthwise == {"a": 36 * 27 + 16 * 27 + 16 * 15}


@pytest.mark.parametrize(
    ("cost", "divisor"), [("memory", 128), ("flops", 5573), ({"a.0": 0.5, "b.0": 2.0}, 0.5)]
)
def test_scores_are_divided_by_what_a_channel_takes(cost: object, divisor: float) -> None:
    graph = graph_of("residual")
    groups = channel_groups(graph)
    plain = GroupFisher([images()], cost="none").scores(graph, groups)["a.0"]
    found = GroupFisher([images()], cost=cost).scores(graph, groups)["a.0"]
    np.testing.assert_allclose(found, plain / divisor)


def test_what_cannot_be_scored() -> None:
    graph = graph_of("residual")
    groups = channel_groups(graph)
    with pytest.raises(InputError, match="Group Fisher needs labels"):
        GroupFisher([(images()[0], None)]).scores(graph, groups)
    with pytest.raises(InputError, match=r"channel group 'b.0' has no cost above 0"):
        GroupFisher([images()], cost={"a.0": 1.0}).scores(graph, groups)


# --- the schedule --------------------------------------------------------------------------------


def train(network: fx.GraphModule, pruning: FisherPruning, steps: int, lr: float = 0.0) -> None:
    network.train()
    network.apply(lambda m: m.eval() if isinstance(m, nn.BatchNorm2d) else m)
    for step in range(steps):
        (x,), labels = images(seed=step)
        network.zero_grad()
        cross_entropy(network(x)[0], labels, reduction="sum").backward()
        with torch.no_grad():
            for p in network.parameters():
                p -= lr * p.grad
            pruning.after_step(network, None)


def pruned(
    name: str = "residual", every: int = 2, until: Callable[[Keep], bool] = lambda keep: False
) -> tuple[fx.GraphModule, Groups, fx.GraphModule, FisherPruning]:
    graph = graph_of(name)
    groups = channel_groups(graph)
    costs = memory_per_channel(graph, groups)
    return graph, groups, *fisher_network(graph, groups, lambda keep: costs, until, every)


def test_masks_change_nothing_at_first() -> None:
    graph, _, network, _ = pruned()
    (x,), _ = images()
    assert torch.equal(graph(x)[0], network.eval()(x)[0])


def test_one_channel_every_few_steps_the_least_important() -> None:
    graph, groups, network, pruning = pruned()
    train(network, pruning, 1)
    assert all(mask.all() for mask in pruning.keep.values())
    train(network, pruning, 1)
    batches = [images(seed=0), images(seed=0)]
    scores = GroupFisher(batches).scores(graph, groups)
    least = min(scores, key=lambda n: scores[n].min())
    expected = {g.name: np.ones(g.size, bool) for g in groups.groups}
    expected[least][scores[least].argmin()] = False
    assert {n: m.tolist() for n, m in pruning.keep.items()} == {
        n: m.tolist() for n, m in expected.items()
    }
    assert all(not total.any() for total in pruning.information.values())


def test_the_masked_network_is_the_one_that_is_sliced() -> None:
    graph, _, network, pruning = pruned(
        every=1, until=lambda keep: sum(map(sum, keep.values())) <= 8
    )
    train(network, pruning, 12, lr=1e-3)
    assert sum(int(mask.sum()) for mask in pruning.keep.values()) == 8
    back = unmasked(graph, network)
    assert not torch.equal(back.get_parameter("c.weight"), graph.get_parameter("c.weight"))
    twin = mask_channels(back, SliceChannels(pruning.selection()))
    (x,), _ = images()
    np.testing.assert_allclose(
        network.eval()(x)[0].detach().numpy(), twin.eval()(x)[0].detach().numpy(), rtol=1e-12
    )


def test_cells_lose_one_each_and_groups_never_vanish() -> None:
    _, groups, network, pruning = pruned("grouped", every=1)
    train(network, pruning, 20)
    cells = groups["b.0"].cells
    left = np.bincount(cells[pruning.keep["b.0"]], minlength=4)
    assert left.min() == left.max() >= 1
    assert all(mask.any() for mask in pruning.keep.values())


def test_resumed_is_the_same() -> None:
    _, _, network, pruning = pruned(every=3)
    train(network, pruning, 4)
    state = pruning.state_dict()
    _, _, second, resumed = pruned(every=3)
    second.load_state_dict(network.state_dict())
    resumed.load_state_dict(state)
    for some in ((network, pruning), (second, resumed)):
        train(*some, 8)
    assert {n: m.tolist() for n, m in pruning.keep.items()} == {
        n: m.tolist() for n, m in resumed.keep.items()
    }
    assert pruning.steps == resumed.steps == 12


def test_groups_read_by_norms_over_channels_stay() -> None:
    _, _, _, pruning = pruned("layer_norm")
    assert "a.0" not in pruning.keep
    assert pruning.keep
    with pytest.raises(InputError, match="a channel every 0 steps"):
        pruned(every=0)
