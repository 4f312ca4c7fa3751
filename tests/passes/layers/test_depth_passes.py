"""Passes around a training: layers that become the identity, activations inserted, convolutions
blown up."""

from __future__ import annotations

import pytest
import torch
from pass_checks import fingerprint, node_values, random_inputs, run_exact
from small_networks import InvertedResidual, conv, folded
from torch import fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.pipeline.contract import check_reported
from shrinkc.passes.analysis.linear.spans import activations
from shrinkc.passes.base import Pass, PassResult
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.ir import check_legal, module_of
from shrinkc.passes.layers.expand_convs import ExpandConvs
from shrinkc.passes.layers.insert_activations import InsertActivations
from shrinkc.passes.layers.insert_batch_norms import InsertBatchNorms
from shrinkc.passes.layers.remove_activations import RemoveActivations
from shrinkc.passes.layers.remove_layers import RemoveLayers
from shrinkc.passes.merge.merge_spans import MergeSpans
from shrinkc.passes.merge.move_padding import MovePadding


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    layers = (conv(3, 4, 3, 2), nn.ReLU6(), InvertedResidual(4, 4), InvertedResidual(4, 6, 3, 2))
    return folded(nn.Sequential(*layers, conv(6, 6, 3)))


def run(lossy: Pass, graph: fx.GraphModule) -> PassResult:
    before = fingerprint(graph)
    result = lossy(graph)
    assert fingerprint(graph) == before
    check_legal(result.graph_module)
    check_reported(lossy.name, graph, result.graph_module, result.changes)
    return result


def convs(graph: fx.GraphModule) -> dict[str, nn.Conv2d]:
    found = {n.name: module_of(graph, n) for n in graph.graph.nodes}
    return {name: m for name, m in found.items() if isinstance(m, nn.Conv2d)}


def test_a_layer_that_is_the_identity(graph: fx.GraphModule) -> None:
    name = next(n for n, c in convs(graph).items() if c.groups > 1 and c.stride == (1, 1))
    node = next(n for n in graph.graph.nodes if n.name == name)
    result = run(RemoveLayers((name,)), graph)
    inputs = random_inputs(graph)
    before, after = node_values(graph, inputs), node_values(result.graph_module, inputs)
    assert name not in after
    reader = next(iter(node.users)).name
    activation = module_of(graph, next(iter(node.users)))
    assert activation is not None
    assert torch.equal(after[reader], activation(before[node.all_input_nodes[0].name]))


def test_only_layers_that_keep_the_shape_can_be_the_identity(graph: fx.GraphModule) -> None:
    name = next(n for n, c in convs(graph).items() if c.stride == (2, 2))
    result = run(RemoveLayers((name, "nothing", next(iter(activations(graph))))), graph)
    assert not result.modified
    assert [s.reason for s in result.skipped] == [
        "its output has another shape than its input",
        "there is no such node",
        "it is no convolution",
    ]


def test_an_activation_behind_a_value_with_several_readers(graph: fx.GraphModule) -> None:
    add = next(n for n in graph.graph.nodes if n.name.startswith("add"))
    source = add.all_input_nodes[0]
    assert len(source.users) == 2
    result = run(InsertActivations((source.name,), nn.ReLU6()), graph)
    inputs = random_inputs(graph)
    before, after = node_values(graph, inputs), node_values(result.graph_module, inputs)
    assert torch.equal(after[source.name], before[source.name])
    made = after.keys() - before.keys()
    assert len(made) == 1
    assert torch.equal(after[made.pop()], before[source.name].clamp(0, 6))
    new = next(n for n in result.graph_module.graph.nodes if n.name == source.name)
    assert len(new.users) == 1


def test_no_second_activation(graph: fx.GraphModule) -> None:
    first = next(iter(convs(graph)))
    output = next(n for n in graph.graph.nodes if n.op == "output").all_input_nodes[0].name
    result = run(InsertActivations((first, output, "nothing"), nn.ReLU6()), graph)
    assert not result.modified
    assert {s.reason for s in result.skipped} == {
        "an activation reads it already",
        "it is an output of the network",
        "there is no such node",
    }


def test_batch_norms_come_back_and_change_nothing(graph: fx.GraphModule) -> None:
    folded = run_exact(FoldBatchNorm(), graph).graph_module
    generator = torch.Generator().manual_seed(0)
    draws = {
        name: torch.rand(2, conv.out_channels, generator=generator, dtype=torch.float64)
        for name, conv in convs(folded).items()
    }
    statistics = {name: (mean - 0.5, variance) for name, (mean, variance) in draws.items()}
    unknown = {"nothing": next(iter(statistics.values()))}
    result = run_exact(InsertBatchNorms(statistics | unknown), folded)
    norms = [m for m in result.graph_module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == len(statistics) - 1
    reasons = {s.reason for s in result.skipped}
    assert reasons == {"there is no such node", "it is an output of the network"}
    again = run_exact(FoldBatchNorm(), result.graph_module)
    assert len(again.graph_module.graph.nodes) == len(folded.graph.nodes)


def test_expansion_changes_nothing_until_it_is_trained(graph: fx.GraphModule) -> None:
    names = tuple(n for n, c in convs(graph).items() if c.groups == 1)
    result = run_exact(ExpandConvs(names, 2.0, nn.ReLU6()), graph)
    assert not result.skipped
    assert len(convs(result.graph_module)) > 2 * len(names)
    grouped = next(n for n, c in convs(graph).items() if c.groups > 1)
    refused = ExpandConvs((grouped, "nothing"), 2.0, nn.ReLU6())(graph)
    assert [s.reason for s in refused.skipped] == [
        "a convolution with groups",
        "there is no such node",
    ]


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_what_was_expanded_and_trained_merges_back(kernel: int, stride: int) -> None:
    layers = (conv(3, 4, 3), nn.ReLU(), conv(4, 6, kernel, stride), nn.ReLU(), conv(6, 6, 3))
    graph = folded(nn.Sequential(*layers))
    name = list(convs(graph))[1]
    wide = ExpandConvs((name,), 3.0, nn.ReLU())(graph).graph_module
    for module in wide.modules():  # as if trained
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
    inside = tuple(n for n in activations(wide) if n.startswith(f"{name}_"))
    linear = RemoveActivations(inside)(wide).graph_module
    kept = next(n for n in wide.graph.nodes if n.name == f"{name}_conv")
    pair = (kept.all_input_nodes[0].name, name)
    moved = MovePadding((pair,))(linear).graph_module
    without = run_exact(FoldBatchNorm(), moved).graph_module
    merged = run_exact(MergeSpans((pair,)), without).graph_module
    left = convs(merged)
    assert len(left) == len(convs(graph))
    new = left[pair[1]]
    assert (new.kernel_size, new.stride) == ((kernel, kernel), (stride, stride))


def test_it_is_the_batch_norm_that_makes_expansion_exact() -> None:
    """A planted bug: γ = 1 instead of 0 is seen."""
    graph = capture(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).eval(), (torch.randn(1, 3, 8, 8),))
    name = next(iter(convs(graph)))
    wide = ExpandConvs((name,), 2.0, nn.ReLU())(graph).graph_module
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(wide(x)[0], graph(x)[0])
        for module in wide.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(1)
        assert not torch.allclose(wide(x)[0], graph(x)[0], atol=1e-3)
