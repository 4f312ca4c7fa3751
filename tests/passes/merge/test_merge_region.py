"""Regions whose activations are removed equal the network without them, borders included."""

from __future__ import annotations

import pytest
import torch
from hand_built import Net, modules_of, operations
from hypothesis import HealthCheck, given, settings
from pass_checks import assert_close, random_inputs
from random_graphs import conv_graphs
from torch import fx, nn

from shrinkc.passes.analysis.linear.linear_ops import LinearOps
from shrinkc.passes.analysis.linear.linear_segments import LinearRegion, segments_of
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.analysis.usage import usage
from shrinkc.passes.base import copy_graph
from shrinkc.passes.merge.merge_region import merge_region
from shrinkc.passes.rewrite import Rewriter

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish)


def activations(graph_module: fx.GraphModule) -> dict[str, str]:
    """Node name → module path."""
    return {
        n.name: str(n.target)
        for n in graph_module.graph.nodes
        if n.op == "call_module"
        and isinstance(graph_module.get_submodule(str(n.target)), ACTIVATIONS)
    }


def merge_one(graph_module: fx.GraphModule, pick: int = -1) -> tuple[fx.GraphModule, LinearRegion]:
    """Merge one region, all activations being removable."""
    rewriter = Rewriter(graph_module)
    copy = rewriter.graph_module
    removable = frozenset(activations(copy))
    ops = LinearOps(copy, shapes(copy), usage(copy), removable)
    region = segments_of(ops).regions[pick]
    merge_region(rewriter, ops, region, {n.name: n for n in copy.graph.nodes})
    return rewriter.finish().graph_module, region


def without(graph_module: fx.GraphModule, removed: tuple[str, ...]) -> fx.GraphModule:
    """The reference: these activations replaced by identity."""
    twin = copy_graph(graph_module)
    paths = activations(graph_module)
    for name in removed:
        setattr(twin, paths[name], nn.Identity())
    return twin


def check(graph_module: fx.GraphModule, merged: fx.GraphModule, region: LinearRegion) -> None:
    inputs = random_inputs(graph_module)
    reference = without(graph_module, region.removed)
    with torch.no_grad():
        for got, want in zip(merged(*inputs), reference(*inputs), strict=True):
            assert_close(got, want, region.sink)


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_inverted_residual(kind: type[nn.Module], kernel: int, stride: int) -> None:
    net = Net(2, 4, 12, 12)
    x = net.call(nn.ReLU(), net.x)
    y = net.call(kind(), net.conv(x, 4, 16, 1))
    y = net.conv(y, 16, 16, kernel, stride=stride, padding=kernel // 2, groups=16)
    y = net.conv(net.call(kind(), y), 16, 4, 1)
    y = net.add(x, y) if stride == 1 else y
    graph_module = net.build(net.call(nn.ReLU(), y))
    merged, region = merge_one(graph_module)
    assert len(region.removed) == 2
    assert operations(merged) == ["ReLU", "Conv2d", "add", "ReLU"]
    assert modules_of(merged, nn.Conv2d)[0].kernel_size == (kernel, kernel)
    check(graph_module, merged, region)


def test_span_across_blocks_with_the_padding_in_front() -> None:
    """Two blocks, each with a shortcut, all padding done at the start: one 5×5, no map."""
    net = Net(2, 4, 9, 9)
    x = net.pad(net.call(nn.ReLU(), net.x), 2, 2, 2, 2)
    for _ in range(2):
        y = net.call(nn.ReLU(), net.conv(x, 4, 8, 1))
        y = net.conv(net.call(nn.ReLU(), net.conv(y, 8, 8, 3, groups=8)), 8, 4, 1)
        x = net.add(y, net.conv(x, 4, 4, 3, groups=4, bias=False))
    graph_module = net.build(x)
    merged, region = merge_one(graph_module)
    assert operations(merged) == ["ReLU", "Conv2d"]
    assert modules_of(merged, nn.Conv2d)[0].padding == (2, 2)
    check(graph_module, merged, region)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(conv_graphs())
def test_random_graphs(graph_module: fx.GraphModule) -> None:
    removable = frozenset(activations(graph_module))
    ops = LinearOps(graph_module, shapes(graph_module), usage(graph_module), removable)
    regions = segments_of(ops).regions
    for pick in {0, len(regions) // 2, len(regions) - 1} if regions else ():
        merged, region = merge_one(graph_module, pick)
        check(graph_module, merged, region)
