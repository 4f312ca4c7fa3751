"""1×1 adaptors: the identity at first, and merged exactly into their convolutions."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from hand_built import randomise
from pass_checks import run_exact
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.passes.ir import module_of
from shrinkc.passes.layers.insert_adaptors import InsertAdaptors
from shrinkc.passes.merge.merge_spans import MergeSpans
from shrinkc.passes.simplify.simplify import Simplify


def captured(*layers: nn.Module) -> fx.GraphModule:
    model = nn.Sequential(*layers)
    for layer in model:
        randomise(layer, torch.Generator().manual_seed(0))
    graph = capture(model.eval(), (torch.randn(2, 3, 6, 6),)).double()
    return Simplify()(graph).graph_module


def convs(graph: fx.GraphModule) -> list[str]:
    nodes = graph.graph.nodes
    return [n.name for n in nodes if isinstance(module_of(graph, n), nn.Conv2d)]


def layer(graph: fx.GraphModule, name: str) -> nn.Conv2d:
    node = next(n for n in graph.graph.nodes if n.name == name)
    return cast(nn.Conv2d, module_of(graph, node))


def test_the_merged_convolution_by_hand() -> None:
    """K' = A₂·K·A₁, b' = A₂·b, also where zeros are padded."""
    graph = captured(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU())
    (name,) = convs(graph)
    own = layer(graph, name)
    adapted = run_exact(InsertAdaptors((name,), (name,)), graph).graph_module
    front, behind = torch.randn(3, 3).double(), torch.randn(2, 2).double()
    with torch.no_grad():
        layer(adapted, f"{name}_front").weight.copy_(front[:, :, None, None])
        layer(adapted, name).weight.copy_(behind[:, :, None, None])
    source = next(n.name for n in adapted.graph.nodes if n.op == "placeholder")
    result = run_exact(MergeSpans(((source, name),)), adapted)
    assert not result.skipped
    merged = layer(result.graph_module, name)
    wanted = torch.einsum("po,oiyx,ic->pcyx", behind, own.weight, front)
    assert torch.allclose(merged.weight, wanted)
    assert torch.allclose(cast(Tensor, merged.bias), behind @ cast(Tensor, own.bias))
    before, after = (
        [(n.name, n.target) for n in g.graph.nodes] for g in (graph, result.graph_module)
    )
    assert before == after


@pytest.mark.parametrize(("front", "behind"), [(True, False), (False, True), (True, True)])
def test_on_either_side_nothing_changes_at_first(front: bool, behind: bool) -> None:
    graph = captured(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    names = tuple(convs(graph))
    given = InsertAdaptors(names if front else (), names if behind else ())
    adapted = run_exact(given, graph).graph_module
    assert len(convs(adapted)) == len(names) * (1 + front + behind)


def test_what_cannot_take_one_says_why() -> None:
    shared = nn.Conv2d(4, 4, 1)
    graph = captured(nn.Conv2d(3, 4, 1), shared, nn.ReLU(), shared, nn.Conv2d(4, 4, 3, groups=2))
    _, first, second, grouped = convs(graph)
    relu = next(n.name for n in graph.graph.nodes if isinstance(module_of(graph, n), nn.ReLU))
    result = InsertAdaptors((first, grouped, "nothing"), (second, relu))(graph)
    assert not result.changes
    assert {(s.node, s.reason) for s in result.skipped} == {
        (first, "the module is called 2 times"),
        (second, "the module is called 2 times"),
        (grouped, "a convolution with groups"),
        (relu, "it is no convolution"),
        ("nothing", "there is no such node"),
    }
