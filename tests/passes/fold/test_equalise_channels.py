"""Channels are scaled where that is exact, ranges end up equal, and every refusal has a reason."""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hand_built import Net, modules_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pass_checks import run_exact
from random_graphs import conv_graphs
from small_networks import NETWORKS, folded
from torch import Tensor, fx, nn

from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.errors import VerificationError
from shrinkc.passes.base import PassResult
from shrinkc.passes.fold import equalise_channels
from shrinkc.passes.fold.equalise_channels import EqualiseChannels, read_range, written_range
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm

SLOW = [HealthCheck.too_slow]


def spread(net: Net, module: nn.Module, x: fx.Node, name: str = "") -> fx.Node:
    """A layer whose filters differ in size by orders of magnitude."""
    node = net.call(module, x, name)
    weight = net.root.get_submodule(str(node.target)).weight
    sizes = torch.logspace(-2, 2, len(weight))[torch.randperm(len(weight), generator=net.generator)]
    with torch.no_grad():
        weight.mul_(sizes.reshape(-1, *(1,) * (weight.ndim - 1)))
    return node


@settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
@given(conv_graphs(), st.booleans(), st.integers(0, 99))
def test_random_graphs_compute_the_same(
    graph_module: fx.GraphModule, by_activations: bool, seed: int
) -> None:
    graph_module = run_exact(FoldBatchNorm(), graph_module).graph_module
    generator = torch.Generator().manual_seed(seed)
    seen = {n.name: torch.rand(1, generator=generator) for n in graph_module.graph.nodes}
    run_exact(EqualiseChannels(seen if by_activations else None), graph_module)


@pytest.mark.parametrize("name", NETWORKS)
def test_known_families_compute_the_same(name: str) -> None:
    run_exact(EqualiseChannels(), folded(NETWORKS[name]()))


def triple(activation: Callable[[], nn.Module] = nn.ReLU) -> fx.GraphModule:
    net = Net(1, 4, 8, 8)
    x = net.call(activation(), spread(net, nn.Conv2d(4, 6, 1), net.x, "one"))
    x = net.call(activation(), spread(net, nn.Conv2d(6, 6, 3, 1, 1, groups=6), x, "two"))
    return net.build(spread(net, nn.Conv2d(6, 5, 1), x, "three"))


def layers(graph_module: fx.GraphModule) -> list[nn.Module]:
    return modules_of(graph_module, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def front_and_behind(graph_module: fx.GraphModule) -> list[tuple[Tensor, Tensor]]:
    """Ranges on both sides of each neighbouring pair."""
    found = layers(graph_module)
    return [(written_range([a]), read_range([b])) for a, b in pairwise(found)]


def ratio(values: Tensor) -> float:
    return float(values.max() / values.min())


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU, nn.Identity, lambda: nn.LeakyReLU(0.2), lambda: nn.PReLU(6), nn.Dropout],
)
def test_ranges_are_equal_across_a_triple(activation: Callable[[], nn.Module]) -> None:
    graph_module = triple(activation)
    assert max(ratio(front / behind) for front, behind in front_and_behind(graph_module)) > 10
    result = run_exact(EqualiseChannels(), graph_module)
    for front, behind in front_and_behind(result.graph_module):
        torch.testing.assert_close(front, behind, rtol=1e-3, atol=0)
    (change,) = result.changes
    assert change.node == "three"
    assert change.added == ("one", "two")
    assert "12 channels of 2 layers" in change.detail


def test_ranges_of_activations_are_equal_to_those_behind() -> None:
    net = Net(1, 4, 8, 8)
    x = net.call(nn.LeakyReLU(), spread(net, nn.Conv2d(4, 6, 3), net.x), "act")
    graph_module = net.build(net.conv(x, 6, 5, 1))
    (x,) = (torch.randn(1, 4, 8, 8, dtype=torch.float64),)

    def seen(graph: fx.GraphModule) -> Tensor:
        return graph.act(layers(graph)[0](x)).abs().amax((0, 2, 3)).detach()

    before = seen(graph_module)
    new = run_exact(EqualiseChannels({"act": before}), graph_module).graph_module
    assert ratio(seen(new)) < ratio(before) / 10
    torch.testing.assert_close(seen(new), read_range([layers(new)[1]]))


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("front", [nn.Conv2d, nn.ConvTranspose2d])
def test_kinds_and_groups(front: type[nn.Module], groups: int) -> None:
    net = Net(1, 6, 7, 7)
    x = net.call(nn.ReLU(), net.call(front(6, 6, 3, groups=groups), net.x))
    x = net.call(nn.ConvTranspose2d(6, 6, 2, 2, groups=groups), net.call(nn.MaxPool2d(2), x))
    result = run_exact(EqualiseChannels(), net.build(net.conv(x, 6, 6, 3, groups=groups)))
    for before, behind in front_and_behind(result.graph_module):
        torch.testing.assert_close(before, behind, rtol=1e-3, atol=0)


def test_through_pooling_and_flattening_to_a_linear_layer() -> None:
    net = Net(2, 4, 8, 8)
    x = net.call(nn.ReLU(), spread(net, nn.Conv2d(4, 6, 3), net.x))
    x = net.call(nn.AdaptiveAvgPool2d(1), net.pad(x, 0, 1, 0, 1))
    x = net.function(torch.reshape, x, (-1, 6))
    result = run_exact(EqualiseChannels(), net.build(net.call(nn.Linear(6, 3), x)))
    ((front, behind),) = front_and_behind(result.graph_module)
    torch.testing.assert_close(front, behind)


def test_a_residual_stream_is_scaled_as_one() -> None:
    net = Net(1, 4, 8, 8)
    a = spread(net, nn.Conv2d(4, 4, 1), net.x, "a")
    b = spread(net, nn.Conv2d(4, 4, 3, padding=1), a, "b")
    end = net.conv(net.add(a, b), 4, 3, 1, name="end")
    result = run_exact(EqualiseChannels(), net.build(end))
    (a, b, end) = layers(result.graph_module)
    torch.testing.assert_close(written_range([a, b]), read_range([b, end]), rtol=1e-3, atol=0)


# --- refusals ------------------------------------------------------------------------------------


def refusal(result: PassResult, node: str) -> str:
    assert not result.modified
    return next(skip.reason for skip in result.skipped if skip.node == node)


@pytest.mark.parametrize("kind", [nn.ReLU6, nn.Hardswish, nn.Sigmoid, lambda: nn.BatchNorm2d(4)])
def test_operators_that_do_not_commute(kind: Callable[[], nn.Module]) -> None:
    net = Net(1, 4, 8, 8)
    x = net.call(kind(), net.conv(net.x, 4, 4, 1, name="a"), "f")
    result = run_exact(EqualiseChannels(), net.build(net.conv(x, 4, 4, 1)))
    assert refusal(result, "a").startswith("'f' (")


def test_outputs_inputs_and_constants_stay() -> None:
    net = Net(1, 4, 8, 8)
    a = net.conv(net.x, 4, 4, 1, name="a")
    b = net.conv(net.add(a, net.x), 4, 4, 1, name="b")
    c = net.conv(net.add(b, net.constant(torch.ones(1, 4, 8, 8))), 4, 4, 1, name="c")
    result = run_exact(EqualiseChannels(), net.build(c))
    assert "'x' (placeholder)" in refusal(result, "a")
    assert "(get_attr)" in refusal(result, "b")
    assert "output of the network" in refusal(result, "c")


def test_functions_that_do_not_commute() -> None:
    net = Net(1, 4, 8, 8)
    a = net.function(operator.add, net.conv(net.x, 4, 4, 1, name="a"), 1.0)
    b = net.pad(net.conv(a, 4, 4, 1, name="b"), 1, 1, 1, 1, value=2.0)
    result = run_exact(EqualiseChannels(), net.build(net.conv(b, 4, 4, 1)))
    assert "(add)" in refusal(result, "a")
    assert "(pad)" in refusal(result, "b")


def test_linear_layers_on_maps() -> None:
    """Their features are the last dimension, not the channels."""
    net = Net(1, 8, 8, 8)
    a = net.call(nn.Linear(8, 8), net.conv(net.x, 8, 8, 1, name="conv"), "a")
    result = run_exact(EqualiseChannels(), net.build(net.conv(net.call(nn.ReLU(), a), 8, 4, 1)))
    assert "'a' (Linear)" in refusal(result, "conv")
    assert "'a' (Linear)" in refusal(result, "a")


def test_a_layer_called_twice() -> None:
    net = Net(1, 4, 8, 8)
    a = net.conv(net.x, 4, 4, 1, name="a")
    graph_module = net.build(net.conv(net.again(a, a), 4, 4, 1))
    result = run_exact(EqualiseChannels(), graph_module)
    assert "the module is called 2 times" in refusal(result, "a")


def test_dead_channels_keep_their_numbers() -> None:
    graph_module = triple()
    with torch.no_grad():
        graph_module.one.weight[2] = 0
    result = run_exact(EqualiseChannels(), graph_module)
    assert all(t.isfinite().all() for t in result.graph_module.parameters())


def test_where_nothing_is_to_scale_nothing_changes() -> None:
    net = Net(1, 4, 8, 8)
    x = net.conv(net.x, 4, 4, 1, bias=False, name="a")
    graph_module = net.build(net.conv(x, 4, 4, 1, bias=False))
    with torch.no_grad():
        graph_module.a.weight.zero_()
    assert not run_exact(EqualiseChannels(), graph_module).modified


def test_a_wrong_scale_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    graph_module = triple()
    run_exact_passes(graph_module, (EqualiseChannels(),))
    right = equalise_channels.fold_into_output

    def no_bias(rewriter, node, scale, shift):
        bias = rewriter.module(node).bias.detach()
        right(rewriter, node, scale, shift + (1 - scale) * bias)

    monkeypatch.setattr(equalise_channels, "fold_into_output", no_bias)
    with pytest.raises(VerificationError, match="equalise-channels"):
        run_exact_passes(graph_module, (EqualiseChannels(),))
