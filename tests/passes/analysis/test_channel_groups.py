"""Which channels go together, which may go, and why the others stay."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from channel_networks import NETWORKS, Coupled, captured, conv, graph_of, head
from hand_built import Net
from pass_checks import fingerprint
from slice_checks import check_sliced, groups_of, random_selection
from torch import Tensor, fx, nn

from shrinkc.compiler.width.skeleton import Skeleton
from shrinkc.passes import ir
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.analysis.channels.channel_reshape import blocks
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.channels.slice_channels import SliceChannels

# network → group → channels; the layers made of a group are checked below where it matters
EXPECTED: dict[str, dict[str, int]] = {
    "residual": {"a.0": 8, "b.0": 6},
    "concat": {"a.0": 4, "b.0": 6, "c.0": 8},
    "chunk": {"a.0": 4, "a.0#2": 4, "b.0": 6},
    "shuffle": {"a.0": 4, "a.0#2": 4, "a.0#3": 8},
    "group_shuffle": {"a.0": 12, "b.0": 6, "d.0": 12},
    "flatten": {"0.0": 6, "3": 10},
    "pixel_shuffle": {"0.0": 4, "2.0": 6},
    "pixel_unshuffle": {"0.0": 4, "2.0": 6},
    "transposed": {"0.0": 8, "1": 6, "3": 8},
    "depthwise_multiplier": {"0.0": 5, "2.0": 6},
    "grouped": {"a.0": 8, "b.0": 16, "c.0": 16},
    "squeeze_excite": {"a.0": 8, "down": 4},
    "broadcast": {"a.0": 6},
    "layer_norm": {"a.0": 8, "up": 20},
    "group_norm": {"0": 12, "3.0": 6},
    "pyramid": {"c1.0": 4, "c2.0": 6, "c3.0": 8, "l3": 6, "shared.0": 5},
    "two_inputs": {"a.0": 6},
    "called_twice": {"a.0": 6},
    "shared_weight": {"a.0": 6, "b": 4},
    "attention": {"a.0": 8, "qkv": 4},
    "zero_shortcut": {"a.0": 4, "b.0": 6, "c": 4},
    "conditions": {"a.0": 6},
    "order": {"b.0": 6},
    "lookup": {"a.0": 6},
    "windows": {"a.0": 6},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_of_a_network(name: str) -> None:
    graph = graph_of(name)
    before = fingerprint(graph)
    assert groups_of(graph) == EXPECTED[name]
    assert fingerprint(graph) == before


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("grouped", {"a.0": 8, "b.0": 4}),  # four convolution groups, in and out as one
        ("transposed", {"0.0": 8, "1": 2}),
        ("group_shuffle", {"a.0": 1}),  # the shuffle ties all groups together
    ],
)
def test_convolution_groups_as_a_whole(name: str, expected: dict[str, int]) -> None:
    assert groups_of(graph_of(name), whole_conv_groups=True) == expected


def slices(graph: fx.GraphModule, group: str, channel: int) -> dict[str, list[int]]:
    """`path[dim]` → positions of one channel."""
    return {
        f"{s.path}[{s.dim}]": s.positions[s.channels == channel].tolist()
        for s in channel_groups(graph)[group].slices
    }


def test_slices_of_a_residual_channel() -> None:
    assert slices(graph_of("residual"), "a.0", 5) == {
        "a.0.weight[0]": [5],
        "a.0.bias[0]": [5],
        **{f"a.1.{n}[0]": [5] for n in ("weight", "bias", "running_mean", "running_var")},
        "b.0.weight[1]": [5],
        "c.weight[0]": [5],
        "c.bias[0]": [5],
        "head.2.weight[1]": [5],
    }


def test_concatenated_twice_is_read_at_both_places() -> None:
    assert slices(graph_of("concat"), "a.0", 1)["c.0.weight[1]"] == [1, 11]


def test_flattened_channels_are_runs_of_features() -> None:
    assert slices(graph_of("flatten"), "0.0", 2)["3.weight[1]"] == list(range(32, 48))


def test_pixel_shuffle_takes_four_channels_for_one() -> None:
    found = slices(graph_of("pixel_shuffle"), "0.0", 1)
    assert found["0.0.weight[0]"] == [4, 5, 6, 7]
    assert found["2.0.weight[1]"] == [1]


def test_grouped_convolution_columns_count_over_all_groups() -> None:
    groups = channel_groups(graph_of("grouped"))
    (read,) = [s for s in groups["b.0"].slices if s.path == "c.0.weight"]
    assert (read.dim, read.groups, read.positions.tolist()) == (1, 4, list(range(16)))
    assert groups["b.0"].cells.tolist() == np.repeat(range(4), 4).tolist()


def test_where_channels_are_made_and_read() -> None:
    group = channel_groups(graph_of("residual"))["a.0"]
    assert [v.node for v in group.made] == ["a_0", "c"]
    assert [(v.node, v.source, v.axis) for v in group.read] == [
        ("b_0", "a_2", 1),
        ("head_2", "reshape", 1),
    ]


def test_every_maker_is_accounted_for() -> None:
    """Each output channel of each layer is in a group once or protected once."""
    for name in NETWORKS:
        graph = graph_of(name)
        found = channel_groups(graph)
        for path, layer in graph.named_modules():
            if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                continue
            parts = [s for g in found.groups for s in g.slices]
            parts = [s for s in parts if s.layer == path and s.role == "out"]
            freed = sum(len(s.positions) for s in parts if s.parameter == "bias")
            kept = sum(p.channels for p in found.protected if p.layer == path)
            outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            if freed or kept:  # a layer that shares its weight is listed under the other's name
                assert freed + kept == outputs, (name, path)


# --- what stays ----------------------------------------------------------------------------------


def reasons(graph: fx.GraphModule) -> dict[str, tuple[int, str, str]]:
    return {p.layer: (p.channels, p.node, p.reason) for p in channel_groups(graph).protected}


def test_outputs_and_classes_stay_unless_asked_for() -> None:
    graph = graph_of("two_inputs")
    assert reasons(graph) == {
        "c": (2, "c", "an output of the network"),
        "head.2": (5, "head_2", "an output of the network"),
    }
    assert groups_of(graph, outputs=True) == {"a.0": 6, "c": 2, "head.2": 5}
    assert not channel_groups(graph, outputs=True).protected


def test_one_channel_stays() -> None:
    assert reasons(graph_of("broadcast"))["map"] == (1, "map_1", "the only channel there")


def protected_network(kind: str) -> fx.GraphModule:
    net = Net(2, 4, 6, 6)
    x = net.x if kind == "grid" else net.conv(net.x, 4, 6, 3, name="layer")
    if kind == "input":
        x = net.add(net.conv(net.x, 4, 4, 1, name="layer"), net.x)
    elif kind == "softmax":
        x = net.call(nn.Softmax(1), x, "norm")
    elif kind == "positions":
        x = net.function(torch.permute, x, (0, 2, 3, 1))
        x = net.conv(x, 4, 3, 3, name="windows")
    elif kind == "across":
        both = net.function(torch.cat, (x, net.function(torch.permute, x, (0, 1, 3, 2))), 1)
        x = net.conv(both, 12, 8, 1, groups=4, name="windows")
    elif kind == "statistics":
        x = net.call(nn.GroupNorm(1, 4), net.function(torch.permute, x, (0, 2, 1, 3)), "norm")
        x = net.conv(x, 4, 4, 1)
    elif kind == "reflect":
        x = net.function(F.pad, x, (0, 0, 0, 0, 1, 1), "reflect", None)
    elif kind == "argmax":
        x = net.function(ir.argmax, x, 1, True)
    elif kind == "topk":
        x = net.function(ir.topk_values, x, 2, 1)
    elif kind == "take":
        x = net.function(ir.take, x, 1, (2, 0, 1))
    elif kind == "cumsum":
        x = net.function(ir.cumsum, x, 1)
    elif kind == "pick":
        rows = net.function(torch.reshape, net.function(ir.argmax, net.x, 1, False), (-1, 36))
        x = net.function(ir.pick, x, net.function(ir.clamp, rows, 0, 3))
    elif kind == "grid":
        grid = net.conv(net.x, 4, 2, 3, name="layer")
        grid = net.function(torch.permute, grid, (0, 2, 3, 1))
        x = net.function(ir.grid_sample, net.x, grid, "bilinear", "zeros", False)
    elif kind == "matrix":
        matrix = net.function(torch.reshape, net.x, (-1, 6, 24))
        x = net.function(torch.matmul, matrix, net.function(torch.reshape, x, (-1, 24, 4)))
    return net.build(net.function(torch.reshape, x, (2, -1)))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("input", "combined with a value that has no channels there"),
        ("softmax", "a softmax over channels"),
        ("argmax", "an argmax over channels"),
        ("topk", "the largest of its channels"),
        ("take", "its channels are picked by number"),
        ("cumsum", "running sums over channels"),
        ("pick", "picked by number"),
        ("grid", "a place in an image"),
        ("positions", "used as positions"),
        ("statistics", "used as positions"),
        ("reflect", "channels are padded (reflect) or cropped"),
        ("matrix", "multiplied with a matrix that has no channels there"),
    ],
)
def test_reasons(kind: str, reason: str) -> None:
    graph = protected_network(kind)
    assert reasons(graph)["layer"][2] == reason
    assert not any(s.layer == "layer" for g in channel_groups(graph).groups for s in g.slices)


def test_a_group_that_lies_across_convolution_groups_stays() -> None:
    """Six channels and again six, read in four groups of three: 0 is in groups 0 and 2."""
    assert reasons(protected_network("across"))["layer"][1:] == (
        "windows",
        "lies across its groups",
    )


def test_a_module_called_with_and_without_channels() -> None:
    def body(m: Coupled, x: Tensor) -> object:
        return m.head(m.b(m.a(x)) + m.b(x))

    found = reasons(captured(Coupled(body, a=conv(3, 3), b=conv(3, 4), head=head(4))))
    assert found["a.0"][2] == "'b.0' uses the same weight in another way"


def test_a_constant_follows_its_channels_only_if_nobody_else_reads_it() -> None:
    net = Net(2, 4, 6, 6)
    scale = net.constant(torch.rand(1, 4, 1, 1), "scale")
    x = net.conv(net.add(net.x, scale), 4, 4, 1, name="layer")
    graph = net.build(net.conv(net.add(x, scale), 4, 2, 1))
    assert reasons(graph)["layer"][2] == "'scale' is also used where nothing can be removed"


# --- the rest ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((2, 6, 4, 4), (2, 2, 3, 4, 4), [([0], [0]), ([1], [1, 2]), ([2], [3]), ([3], [4])]),
        ((1, 6, 4, 5), (1, 120), [([1, 2, 3], [1])]),
        ((1, 6, 1, 1), (6,), [([1], [0])]),
        ((4, 6), (6, 4), [([0, 1], [0, 1])]),
    ],
)
def test_blocks_of_a_reshape(
    before: tuple[int, ...], after: tuple[int, ...], expected: list[tuple[list[int], list[int]]]
) -> None:
    assert list(blocks(before, after)) == expected


def chain(layers: int, channels: int) -> fx.GraphModule:
    """A dense chain of residual blocks, with a channel shuffle in each."""
    net = Net(1, 4, 4, 4)
    x = net.conv(net.x, 4, channels, 1)
    for _ in range(layers):
        split = net.function(torch.reshape, x, (-1, 2, channels // 2, 4, 4))
        turned = net.function(torch.permute, split, (0, 2, 1, 3, 4))
        y = net.function(torch.reshape, turned, (-1, channels, 4, 4))
        y = net.conv(y, channels, channels, 3, padding=1, groups=channels)
        x = net.conv(net.add(x, y), channels, channels, 1, groups=2)
    return net.build(net.conv(x, channels, 2, 1))


def seconds(graph: fx.GraphModule) -> float:
    def once() -> float:
        start = time.process_time()
        channel_groups(graph)
        return time.process_time() - start

    return min(once() for _ in range(3))


def test_time_is_linear_in_layers_and_channels() -> None:
    """Eight times as much takes less than sixteen times as long; quadratic: sixty-four."""
    small = seconds(chain(8, 64))
    assert seconds(chain(64, 64)) < 16 * small
    assert seconds(chain(8, 512)) < 16 * small


def test_different_convolution_groups_on_the_same_channels() -> None:
    """Made in three blocks, read in two: nothing can go evenly from both. Two and four: it can."""
    net = Net(1, 3, 4, 4)
    x = net.conv(net.x, 3, 6, 3, padding=1, groups=3, name="three")
    x = net.conv(x, 6, 8, 1, groups=2, name="two")
    x = net.conv(x, 8, 8, 1, groups=4, name="four")
    graph = net.build(net.conv(x, 8, 2, 1))
    found = reasons(graph)
    assert found["three"] == (6, "three", "cannot lose equally many channels from each group")
    groups = channel_groups(graph)
    assert groups["two"].cells.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert groups["four"].cells.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_concatenation_read_in_convolution_groups_is_one_group() -> None:
    """Six and ten channels, read in four groups of four: as many of each go, whoever made them."""
    net = Net(1, 3, 4, 4)
    a, b = net.conv(net.x, 3, 6, 1, name="a"), net.conv(net.x, 3, 10, 1, name="b")
    x = net.conv(net.function(torch.cat, (a, b), 1), 16, 8, 1, groups=4, name="read")
    graph = net.build(net.conv(x, 8, 2, 1))
    groups = channel_groups(graph)
    assert groups["a"].size == 16
    assert groups["a"].cells.tolist() == np.repeat(range(4), 4).tolist()
    assert [v.node for v in groups["a"].made] == ["a", "b"]
    for seed in range(8):
        check_sliced(graph, SliceChannels(random_selection(groups, seed)))


def test_sets_of_different_sizes_do_not_balance() -> None:
    """One channel of a pixel unshuffle fills a whole block, of the other half of a block four."""
    net = Net(1, 4, 4, 4)
    a = net.call(nn.PixelUnshuffle(2), net.conv(net.x, 4, 2, 1, name="a"))
    b = net.conv(net.x, 4, 8, 2, stride=2, name="b")
    x = net.conv(net.function(torch.cat, (a, b), 1), 16, 8, 1, groups=4, name="read")
    graph = net.build(net.conv(x, 8, 2, 1))
    found = reasons(graph)
    assert {found[name][1:] for name in "ab"} == {
        ("read", "cannot lose equally many channels from each group")
    }


class Halves(nn.Module):
    """What is read of two halves has no parameters, so that nothing else tells them apart."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = conv(3, 16), nn.InstanceNorm2d(8), conv(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        parts = [y[:, :8].relu(), F.max_pool2d(self.norm(y[:, 8:]), 3, 1, 1)]
        return self.b(torch.cat(parts, 1))


def test_of_each_slice_some_channels_stay() -> None:
    graph = captured(Halves())
    groups = channel_groups(graph)
    assert [group.size for group in groups.groups] == [8, 8]
    for first in (True, False):
        keep = {groups.groups[first].name: np.arange(8) < 1}
        check_sliced(graph, SliceChannels(Selection(keep)))


class Again(nn.Module):
    """One norm without parameters for several layers: it knows how many channels it reads."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.norm(self.b(self.norm(self.a(x)).relu())).relu())


@pytest.mark.parametrize(
    "norm",
    [
        nn.InstanceNorm2d(8),
        nn.GroupNorm(8, 8, affine=False),
        nn.GroupNorm(1, 8, affine=False),
        nn.GroupNorm(2, 8, affine=False),
    ],
    ids=str,
)
def test_a_norm_without_parameters_is_called_twice(norm: nn.Module) -> None:
    graph = captured(Again(norm))
    groups = channel_groups(graph)
    for seed in range(4):
        check_sliced(graph, SliceChannels(random_selection(groups, seed)))
    narrowest = {group.name: 2 for group in groups.groups}
    assert Skeleton(graph.float(), groups).facts(narrowest).operators
