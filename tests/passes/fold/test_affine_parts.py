"""Batch norms that no layer stands next to: behind concatenations, cuts, reshapes, permutations."""

from __future__ import annotations

import pytest
import torch
from hand_built import Net, operations
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_checks import run_exact
from torch import Tensor, fx, nn

from shrinkc.errors import VerificationError
from shrinkc.passes.fold import affine_parts, fold_batch_norm
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.ir import slice_dim
from shrinkc.passes.rewrite import Rewriter


def left(graph_module: fx.GraphModule) -> list[str]:
    return operations(run_exact(FoldBatchNorm(), graph_module).graph_module)


def reason(graph_module: fx.GraphModule) -> str:
    result = run_exact(FoldBatchNorm(), graph_module)
    assert not result.modified
    (skip,) = result.skipped
    return skip.reason


def inception(*outputs: int) -> tuple[Net, list[fx.Node], fx.Node]:
    net = Net(2, 4, 6, 6)
    parts = [net.conv(net.x, 4, n, 1, name=f"part{i}") for i, n in enumerate(outputs)]
    return net, parts, net.function(torch.cat, tuple(parts), 1)


def test_behind_a_concatenation_every_part_takes_its_share() -> None:
    net, _, joined = inception(3, 5, 2)
    norm = net.call(nn.BatchNorm2d(10), joined, "norm")
    result = run_exact(FoldBatchNorm(), net.build(net.call(nn.ReLU(), norm)))
    assert operations(result.graph_module) == ["Conv2d"] * 3 + ["cat", "ReLU"]
    (change,) = result.changes
    assert change.node == "cat"
    assert change.replaces == ("cat", "norm")
    assert change.added == ("part0", "part1", "part2")


def test_concatenations_inside_one_another_and_norms_in_a_row() -> None:
    net, _, joined = inception(3, 5)
    inner = net.call(nn.BatchNorm2d(8), joined)
    last = net.call(nn.BatchNorm2d(2), net.conv(net.x, 4, 2, 1))
    outer = net.function(torch.cat, (inner, last), 1)
    y = net.call(nn.BatchNorm2d(10), net.call(nn.BatchNorm2d(10), outer))
    assert left(net.build(y)) == ["Conv2d", "Conv2d", "cat", "Conv2d", "cat"]


def test_a_part_that_others_read_stays_as_it_is() -> None:
    """DenseNet: later layers read the parts without this norm."""
    net, parts, joined = inception(3, 5)
    norm = net.call(nn.BatchNorm2d(8), joined)
    graph_module = net.build(net.call(nn.ReLU(), norm), parts[0])
    assert "the output of 'part0' has 2 users" in reason(graph_module)


def test_a_part_that_is_no_layer() -> None:
    net, _, joined = inception(3, 5)
    joined = net.function(torch.cat, (joined, net.call(nn.ReLU(), net.x, "rest")), 1)
    norm = net.call(nn.ReLU(), net.call(nn.BatchNorm2d(12), joined))
    assert "in front is 'rest', no convolution or linear layer" in reason(net.build(norm))


def test_a_part_that_is_there_twice() -> None:
    net = Net(2, 4, 6, 6)
    part = net.conv(net.x, 4, 3, 1, name="part")
    norm = net.call(nn.BatchNorm2d(6), net.function(torch.cat, (part, part), 1))
    assert "concatenates 'part' twice" in reason(net.build(net.call(nn.ReLU(), norm)))


def test_a_concatenation_of_positions_is_none_of_channels() -> None:
    net = Net(2, 4, 6, 6)
    a, b = (net.conv(net.x, 4, 3, 1) for _ in range(2))
    norm = net.call(nn.BatchNorm2d(3), net.function(torch.cat, (a, b), 2))
    assert "'cat', no convolution" in reason(net.build(net.call(nn.ReLU(), norm)))


@pytest.mark.parametrize("both", [True, False])
def test_channels_cut_apart(both: bool) -> None:
    net = Net(2, 4, 6, 6)
    conv = net.conv(net.x, 4, 8, 3, padding=1)
    a = net.call(nn.BatchNorm2d(3), net.function(slice_dim, conv, 1, 0, 3, 1))
    b = net.function(slice_dim, conv, 1, 3, 8, 1)
    b = net.call(nn.BatchNorm2d(5), b) if both else b
    y = net.build(net.call(nn.ReLU(), a), net.call(nn.Sigmoid(), b))
    assert left(y) == ["Conv2d", "slice_dim", "slice_dim", "ReLU", "Sigmoid"]


def test_every_second_channel() -> None:
    net = Net(2, 4, 6, 6)
    conv = net.conv(net.x, 4, 8, 3)
    a, b = (net.function(slice_dim, conv, 1, i, 8, 2) for i in (0, 1))
    y = net.build(net.call(nn.ReLU(), net.call(nn.BatchNorm2d(4), a)), b)
    assert left(y) == ["Conv2d", "slice_dim", "slice_dim", "ReLU"]


@pytest.mark.parametrize("overlap", ["part", "whole"])
def test_channels_that_others_read_too(overlap: str) -> None:
    net = Net(2, 4, 6, 6)
    conv = net.conv(net.x, 4, 8, 3, name="conv")
    norm = net.call(nn.BatchNorm2d(4), net.function(slice_dim, conv, 1, 0, 4, 1))
    other = net.function(slice_dim, conv, 1, 3, 8, 1) if overlap == "part" else conv
    why = reason(net.build(net.call(nn.ReLU(), norm), net.call(nn.ReLU(), other)))
    assert "reads channels of 'conv' that are normalised" in why


def test_positions_cut_off_and_dimensions_moved() -> None:
    """A linear layer over (N, L, C), then a batch norm over (N, C, L) without the last position."""
    net = Net(2, 7, 4)
    y = net.function(torch.permute, net.call(nn.Linear(4, 6), net.x), (0, 2, 1))
    y = net.function(slice_dim, y, 2, 0, 6, 1)
    y = net.call(nn.ReLU(), net.call(nn.BatchNorm1d(6), y))
    assert left(net.build(y)) == ["Linear", "permute", "slice_dim", "ReLU"]


def test_a_reshape_that_keeps_channels_and_one_that_does_not() -> None:
    def graph(*shape: int) -> fx.GraphModule:
        net = Net(2, 4, 3, 4)
        flat = net.function(torch.reshape, net.conv(net.x, 4, 6, 1), (-1, *shape))
        return net.build(net.call(nn.ReLU(), net.call(nn.BatchNorm1d(shape[0]), flat)))

    assert left(graph(6, 12)) == ["Conv2d", "reshape", "ReLU"]
    assert "no convolution" in reason(graph(12, 6))


@pytest.mark.parametrize("moved", [False, True])
def test_the_layer_behind_a_reshape(moved: bool) -> None:
    net = Net(2, 4, 3, 5)
    y = net.call(nn.BatchNorm2d(4), net.call(nn.ReLU(), net.x))
    if moved:
        y = net.function(torch.permute, net.function(torch.reshape, y, (-1, 4, 15)), (0, 2, 1))
        y = net.call(nn.Linear(4, 3), y)
    else:
        y = net.call(nn.Linear(60, 3), net.function(torch.reshape, y, (-1, 60)))
    assert "BatchNorm2d" not in left(net.build(y))


def test_a_linear_layer_behind_that_reads_something_else() -> None:
    net = Net(2, 4, 3, 5)
    y = net.call(nn.BatchNorm2d(4), net.call(nn.ReLU(), net.x))
    assert "the linear layer behind reads the last" in reason(
        net.build(net.call(nn.Linear(5, 3), y))
    )


# --- everything at once --------------------------------------------------------------------------


@st.composite
def trees(draw: st.DrawFn) -> fx.GraphModule:
    """Batch norms on trees of concatenations, cuts and single convolutions, some read twice."""
    net = Net(2, 4, 4, 5, seed=draw(st.integers(0, 99)))
    extra: list[fx.Node] = []

    def value(depth: int) -> tuple[fx.Node, int]:
        kind = draw(st.sampled_from(("conv", "cat", "cut") if depth else ("conv",)))
        if kind == "conv":
            channels = draw(st.integers(2, 6))
            node = net.conv(net.x, 4, channels, 3, padding=1, bias=draw(st.booleans()))
        elif kind == "cat":
            parts = [value(depth - 1) for _ in range(draw(st.integers(2, 3)))]
            node = net.function(torch.cat, tuple(x for x, _ in parts), 1)
            channels = sum(n for _, n in parts)
        else:
            whole, size = value(depth - 1)
            start = draw(st.integers(0, size - 1))
            step = draw(st.integers(1, 2))
            node = net.function(slice_dim, whole, 1, start, size, step)
            channels = len(range(start, size, step))
            if start and draw(st.booleans()):
                extra.append(net.function(slice_dim, whole, 1, 0, start, 1))
        if draw(st.booleans()):
            node = net.call(nn.BatchNorm2d(channels), node)
        if draw(st.integers(0, 7)) == 0:
            extra.append(net.call(nn.ReLU(), node))
        return node, channels

    node, channels = value(3)
    return net.build(net.call(nn.BatchNorm2d(channels), node), *extra)


@settings(max_examples=150, deadline=None)
@given(trees())
def test_random_trees_compute_the_same(graph_module: fx.GraphModule) -> None:
    run_exact(FoldBatchNorm(), graph_module)


# --- planted mistakes ----------------------------------------------------------------------------


def test_a_share_that_is_anothers_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    net, _, joined = inception(4, 4)
    graph_module = net.build(net.call(nn.BatchNorm2d(8), joined))
    exact = fold_batch_norm.fold_into_output

    def forgetful(rewriter: Rewriter, node: fx.Node, *affine: Tensor) -> None:
        exact(rewriter, node, *(affine if node.name == "part0" else (affine[0].flip(0), affine[1])))

    monkeypatch.setattr(fold_batch_norm, "fold_into_output", forgetful)
    with pytest.raises(VerificationError):
        run_exact(FoldBatchNorm(), graph_module)


def test_a_forgotten_reader_of_the_same_channels_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(2, 4, 6, 6)
    conv = net.conv(net.x, 4, 8, 3)
    norm = net.call(nn.BatchNorm2d(4), net.function(slice_dim, conv, 1, 0, 4, 1))
    graph_module = net.build(norm, net.function(slice_dim, conv, 1, 3, 8, 1))
    exact = affine_parts._channels
    mine = {"slice_dim"}

    def forgetful(node: fx.Node, axis: int, channels: int) -> set[int]:
        return exact(node, axis, channels) if node.name in mine else set()

    monkeypatch.setattr(affine_parts, "_channels", forgetful)
    with pytest.raises(VerificationError):
        run_exact(FoldBatchNorm(), graph_module)
