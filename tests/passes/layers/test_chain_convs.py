"""Linear chains beside convolutions: nothing changes until they are trained; they merge back."""

from __future__ import annotations

from itertools import product
from typing import cast

import pytest
import torch
from hand_built import randomise
from pass_checks import random_inputs, run_exact
from small_networks import NETWORKS, conv
from torch import fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.passes.ir import module_of
from shrinkc.passes.layers.chain_convs import ChainConvs
from shrinkc.passes.merge.merge_spans import MergeSpans
from shrinkc.passes.simplify.simplify import Simplify


def captured(*layers: nn.Module, size: int = 7) -> fx.GraphModule:
    channels = next(m.in_channels for m in layers[0].modules() if isinstance(m, nn.Conv2d))
    model = nn.Sequential(*layers)
    randomise(model, torch.Generator().manual_seed(0))
    graph = capture(model.eval(), (torch.randn(2, channels, size, size),)).double()
    return Simplify()(graph).graph_module


def convs(graph: fx.GraphModule) -> dict[str, nn.Conv2d]:
    found = {n.name: module_of(graph, n) for n in graph.graph.nodes}
    return {name: m for name, m in found.items() if isinstance(m, nn.Conv2d)}


def as_if_trained(wide: fx.GraphModule) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in wide.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        for norm in wide.modules():
            if isinstance(norm, nn.BatchNorm2d):
                cast(torch.Tensor, norm.running_mean).normal_(generator=generator)


def back(wide: fx.GraphModule, names: tuple[str, ...]) -> fx.GraphModule:
    nodes = {node.name: node for node in wide.graph.nodes}
    pairs = tuple((nodes[f"{n}_conv"].all_input_nodes[0].name, n) for n in names)
    result = run_exact(MergeSpans(pairs), wide)
    assert not result.skipped
    return result.graph_module


def test_the_merged_kernel_of_a_chain_by_hand() -> None:
    """expand 2, batch norm 3·(y − 1)/2 + 1, a window of ones, project ½, batch norm 2·y + 1:

    2·½·Σ₉(3·x − ½) + 1 = 3·Σx − 3½ at every position, where zeros are padded, too."""
    graph = captured(nn.Conv2d(1, 1, 3, padding=1), size=4)
    (name,) = convs(graph)
    own = convs(graph)[name]
    wide = ChainConvs((name,), 1.0)(graph).graph_module
    chain = {kind: wide.get_submodule(f"{name}_{kind}") for kind in ("expand", "window", "project")}
    norms = [wide.get_submodule(f"{name}_{kind}_norm") for kind in chain]
    with torch.no_grad():
        for layer, weight in zip(chain.values(), (2.0, 1.0, 0.5), strict=True):
            cast(nn.Conv2d, layer).weight.fill_(weight)
        settings = ((1.0, 4.0, 3.0, 1.0), (0.0, 1.0, 1.0, 0.0), (0.0, 1.0, 2.0, 1.0))
        for norm, numbers in zip(norms, settings, strict=True):
            assert isinstance(norm, nn.BatchNorm2d)
            norm.eps = 0.0
            state = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
            for tensor, number in zip(state, numbers, strict=True):
                cast(torch.Tensor, tensor).fill_(number)
    merged = convs(back(wide, (name,)))[name]
    assert torch.allclose(merged.weight, own.weight + 3)
    assert own.bias is not None
    assert merged.bias is not None
    assert torch.allclose(merged.bias, own.bias - 3.5)
    assert (merged.kernel_size, merged.padding) == ((3, 3), (1, 1))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_stays_what_it_is_until_it_is_trained_and_again_when_merged(name: str) -> None:
    """In training mode, too, where batch norms look at the batch."""
    model = NETWORKS[name]()
    randomise(model, torch.Generator().manual_seed(0))
    graph = capture(model.eval(), (torch.randn(2, 3, 20, 20),)).double()
    names = tuple(convs(graph))
    result = run_exact(ChainConvs(names, 1.5), graph)
    assert not result.skipped
    wide = result.graph_module
    assert len(convs(wide)) >= 3 * len(names)
    x = random_inputs(graph)
    assert torch.equal(wide.train()(*x)[0], graph.train()(*x)[0])
    as_if_trained(wide.eval())
    merged = back(wide, names)
    before, after = convs(graph), convs(merged)
    assert before.keys() == after.keys()
    shapes = [
        {n: (c.weight.shape, c.groups, c.stride, c.padding) for n, c in found.items()}
        for found in (before, after)
    ]
    assert shapes[0] == shapes[1]
    nodes = [[(n.name, n.target) for n in g.graph.nodes] for g in (graph, merged)]
    assert nodes[0] == nodes[1]


GEOMETRIES = list(product((1, 2, 3), (1, 2), (1, 2), (0, 1, 2), (1, 2)))


@pytest.mark.parametrize(("kernel", "stride", "dilation", "pad", "groups"), GEOMETRIES)
def test_every_geometry_merges_back(
    kernel: int, stride: int, dilation: int, pad: int, groups: int
) -> None:
    layer = nn.Conv2d(4, 6, kernel, stride, pad, dilation, groups)
    graph = captured(layer, nn.BatchNorm2d(6), nn.ReLU())
    (name,) = convs(graph)
    wide = run_exact(ChainConvs((name,), 2.0), graph).graph_module
    as_if_trained(wide)
    merged = convs(back(wide, (name,)))[name]
    assert merged.weight.shape == layer.weight.shape
    assert merged.groups == groups


def test_without_bias_and_batch_norm_no_constant_appears() -> None:
    """One in front of a padded convolution would need a map for the border."""
    bare = nn.Conv2d(3, 4, 1, bias=False)
    graph = captured(bare, nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.ReLU())
    names = tuple(convs(graph))
    wide = run_exact(ChainConvs(names, 2.0), graph).graph_module
    assert not any(isinstance(m, nn.BatchNorm2d) for m in wide.modules())
    as_if_trained(wide)
    merged = convs(back(wide, names))
    assert all(layer.bias is None for layer in merged.values())


def test_what_cannot_have_a_chain_says_why() -> None:
    shared = nn.Conv2d(4, 4, 3, padding=1)
    graph = captured(conv(3, 4, 3), shared, nn.ReLU(), shared, nn.ReLU(), conv(4, 4, 1))
    fixed = list(convs(graph))[-1]
    convs(graph)[fixed].requires_grad_(False)
    relu = next(n.name for n in graph.graph.nodes if isinstance(module_of(graph, n), nn.ReLU))
    result = ChainConvs((*list(convs(graph))[1:], relu, "nothing"), 2.0)(graph)
    assert {s.reason for s in result.skipped} == {
        "the module is called 2 times",
        "its weight is not trained",
        "it is no convolution",
        "there is no such node",
    }
    assert not result.changes
