"""Blocks of known networks through all exact passes, every position compared."""

from __future__ import annotations

import operator

import pytest
import torch
from hand_built import Net, modules_of, operations
from pass_checks import run_exact
from torch import Tensor, fx, nn

from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.merge.merge_linear import MergeLinear
from shrinkc.passes.simplify.simplify import Simplify


def all_passes(graph_module: fx.GraphModule) -> tuple[fx.GraphModule, list[str]]:
    for exact_pass in (Simplify(), FoldBatchNorm(), MergeLinear(), Simplify()):
        graph_module = run_exact(exact_pass, graph_module).graph_module
    return graph_module, operations(graph_module)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_repvgg_block(stride: int, groups: int) -> None:
    """3×3, 1×1 and, at stride 1, identity branches with batch norms: one 3×3 convolution."""
    net = Net(2, 8, 10, 10)
    x = net.call(nn.ReLU(), net.x)
    options = {"stride": stride, "groups": groups, "bias": False}
    y = net.call(nn.BatchNorm2d(8), net.conv(x, 8, 8, 3, padding=1, **options))
    y = net.add(y, net.call(nn.BatchNorm2d(8), net.conv(x, 8, 8, 1, **options)))
    if stride == 1:
        y = net.add(y, net.call(nn.BatchNorm2d(8), x))
    graph_module, left = all_passes(net.build(net.call(nn.ReLU(), y)))
    assert left == ["ReLU", "Conv2d", "ReLU"]
    (conv,) = modules_of(graph_module, nn.Conv2d)
    assert (conv.kernel_size, conv.padding, conv.groups) == ((3, 3), (1, 1), groups)


def expanded(size: int, stride: int, residual: bool = False) -> fx.GraphModule:
    """An inverted residual without activations: 1×1, 3×3 depthwise with padding, 1×1."""
    net = Net(2, 4, size, size)
    y = net.call(nn.BatchNorm2d(24), net.conv(net.x, 4, 24, 1, bias=False))
    y = net.conv(y, 24, 24, 3, stride=stride, padding=1, groups=24, bias=False)
    y = net.conv(net.call(nn.BatchNorm2d(24), y), 24, 4, 1)
    return net.build(net.add(net.x, y) if residual else y)


def border_map(graph_module: fx.GraphModule) -> Tensor:
    """(C, h, w)"""
    (buffer,) = graph_module.buffers()
    return buffer[0]


def distinct_vectors(border: Tensor) -> int:
    return len({tuple(vector) for vector in (border * 1e9).round().flatten(1).T.tolist()})


@pytest.mark.parametrize("residual", [True, False])
def test_expanded_block_at_stride_one(residual: bool) -> None:
    """Four corners, four edges and the interior: nine vectors."""
    graph_module, left = all_passes(expanded(7, 1, residual))
    assert left == ["Conv2d", "add"]
    assert distinct_vectors(border_map(graph_module)) == 9


@pytest.mark.parametrize(("size", "vectors"), [(8, 4), (9, 9)])
def test_expanded_block_at_stride_two(size: int, vectors: int) -> None:
    """On an even map the padding below and to the right is never read."""
    graph_module, left = all_passes(expanded(size, 2))
    assert left == ["Conv2d", "add"]
    assert distinct_vectors(border_map(graph_module)) == vectors


def test_padding_by_the_first_convolution_needs_no_map() -> None:
    net = Net(2, 4, 7, 7)
    y = net.call(nn.BatchNorm2d(24), net.conv(net.x, 4, 24, 1, padding=1, bias=False))
    y = net.call(nn.BatchNorm2d(24), net.conv(y, 24, 24, 3, groups=24, bias=False))
    y = net.add(net.x, net.conv(y, 24, 4, 1))
    graph_module, left = all_passes(net.build(y))
    assert left == ["Conv2d"]
    assert modules_of(graph_module, nn.Conv2d)[0].padding == (1, 1)


def test_resnet_stem_and_downsampling_branch() -> None:
    """Activations stay between, the pooled shortcut (ResNet-D) becomes one strided convolution."""
    net = Net(2, 3, 24, 24)
    stem = net.call(nn.BatchNorm2d(8), net.conv(net.x, 3, 8, 7, stride=2, padding=3, bias=False))
    x = net.call(nn.MaxPool2d(3, 2, 1), net.call(nn.ReLU(), stem))
    y = net.call(nn.BatchNorm2d(8), net.conv(x, 8, 8, 3, stride=2, padding=1, bias=False))
    y = net.call(nn.BatchNorm2d(16), net.conv(net.call(nn.ReLU(), y), 8, 16, 3, padding=1))
    shortcut = net.conv(net.call(nn.AvgPool2d(2), x), 8, 16, 1, bias=False)
    shortcut = net.call(nn.BatchNorm2d(16), shortcut)
    graph_module, left = all_passes(net.build(net.call(nn.ReLU(), net.add(y, shortcut))))
    assert left == [
        "Conv2d",
        "ReLU",
        "MaxPool2d",
        "Conv2d",
        "ReLU",
        "Conv2d",
        "Conv2d",
        "add",
        "ReLU",
    ]
    kernels = [conv.kernel_size for conv in modules_of(graph_module, nn.Conv2d)]
    assert kernels == [(7, 7), (3, 3), (3, 3), (2, 2)]


def test_padding_as_tensorflow_does_it() -> None:
    """Explicit asymmetric pads at stride 2 stay in front; what follows merges behind them."""
    net = Net(2, 3, 8, 8)
    y = net.conv(net.pad(net.x, 0, 1, 0, 1), 3, 8, 3, stride=2, bias=False)
    y = net.conv(net.call(nn.BatchNorm2d(8), y), 8, 4, 1)
    graph_module, left = all_passes(net.build(net.call(nn.ReLU6(), y)))
    assert left == ["pad", "Conv2d", "ReLU6"]
    pad = next(n for n in graph_module.graph.nodes if n.op == "call_function")
    assert pad.args[1] == (0, 1, 0, 1)


def test_normalisation_of_the_input_in_front_of_a_padded_convolution() -> None:
    """(x − mean) / std: the padding does not see the mean, so the border has its own constants."""
    net = Net(2, 3, 8, 8)
    mean, std = net.constant(torch.rand(3, 1, 1)), net.constant(torch.rand(3, 1, 1) + 0.5)
    x = net.function(operator.truediv, net.function(operator.sub, net.x, mean), std)
    graph_module = net.build(net.conv(x, 3, 8, 3, padding=1))
    cheap_add = MergeLinear(price=lambda spec: {"sub": 1.0, "div": 1.0}.get(spec.op, 0.1))
    graph_module = run_exact(cheap_add, graph_module).graph_module
    assert operations(graph_module) == ["Conv2d", "add"]
    assert distinct_vectors(border_map(graph_module)) == 9
