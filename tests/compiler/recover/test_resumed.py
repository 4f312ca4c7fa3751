"""Going on from kept values gives what running from the images gives."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.recover.resumed import Resumed
from shrinkc.passes.base import copy_graph

DEPTH = 12


class Deep(nn.Module):
    """A chain with a shortcut over everything but the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.rest = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(DEPTH))

    def forward(self, x: Tensor) -> Tensor:
        x = start = self.first(x)
        for layer in self.rest:
            x = layer(x)
        return x + start


def deep() -> tuple[fx.GraphModule, list[Tensor]]:
    torch.manual_seed(0)
    graph = capture(Deep().eval(), (torch.randn(2, 3, 6, 6),))
    return graph, [torch.randn(2, 3, 6, 6) for _ in range(3)]


def layers(graph: fx.GraphModule) -> list[fx.Node]:
    return [n for n in graph.graph.nodes if n.op == "call_module"]


def change(graph: fx.GraphModule, node: fx.Node) -> None:
    with torch.no_grad():
        graph.get_submodule(str(node.target)).weight.mul_(1.1)  # pyright: ignore


@pytest.mark.parametrize("memory", [0, 2_000, 1 << 20])
def test_equals_running_anew_while_layers_change_in_order(memory: int) -> None:
    graph, batches = deep()
    resumed = Resumed(graph, memory)
    start = layers(graph)[0].name
    for node in layers(graph)[1:]:
        resumed.settle(node.name)
        names = [node.name, node.all_input_nodes[0].name, start]
        for number, x in enumerate(batches):
            anew = Resumed(graph, 0).values(number, (x,), names)
            got = resumed.values(number, (x,), names)
            assert got.keys() == set(names)
            assert all(torch.equal(got[name], anew[name]) for name in names)
        change(graph, node)


def test_a_pass_over_all_layers_costs_a_few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, batches = deep()
    ran: Counter[str] = Counter()
    run_node = fx.Interpreter.run_node

    def counted(self: fx.Interpreter, n: fx.Node) -> Any:
        ran[n.name] += 1
        return run_node(self, n)

    monkeypatch.setattr(fx.Interpreter, "run_node", counted)
    resumed = Resumed(graph)
    for node in layers(graph)[1:]:
        resumed.settle(node.name)
        for number, x in enumerate(batches):
            resumed.values(number, (x,), [node.name])
        change(graph, node)
    assert max(ran.values()) <= 3 * len(batches)


def test_what_lies_before_the_kept_values_is_computed_anew() -> None:
    graph, batches = deep()
    resumed = Resumed(graph)
    nodes = layers(graph)
    for node in (nodes[5], nodes[6]):
        resumed.settle(node.name)
        resumed.values(0, (batches[0],), [node.name])
    got = resumed.values(0, (batches[0],), [nodes[2].name])
    want = Resumed(graph, 0).values(0, (batches[0],), [nodes[2].name])
    assert torch.equal(got[nodes[2].name], want[nodes[2].name])


def settled(graph: fx.GraphModule, batches: list[Tensor]) -> Resumed:
    """It keeps the values of all batches that its fifth layer reads."""
    resumed = Resumed(graph)
    for node in layers(graph)[4:6]:
        resumed.settle(node.name)
        for number, x in enumerate(batches):
            resumed.values(number, (x,), [node.name])
    return resumed


def test_it_moves_to_a_graph_that_differs_behind_what_is_settled() -> None:
    graph, batches = deep()
    nodes, resumed = layers(graph), settled(graph, batches)
    changed = copy_graph(graph)
    change(changed, layers(changed)[8])
    moved = resumed.moved(changed)
    for number, x in enumerate(batches):
        got = moved.values(number, (x,), [nodes[10].name])
        want = Resumed(changed, 0).values(number, (x,), [nodes[10].name])
        assert torch.equal(got[nodes[10].name], want[nodes[10].name])
        assert not torch.equal(
            got[nodes[10].name], resumed.values(number, (x,), [nodes[10].name])[nodes[10].name]
        )


def test_a_graph_that_differs_before_that_starts_anew() -> None:
    graph, batches = deep()
    resumed = settled(graph, batches)
    torch.manual_seed(1)
    other = capture(nn.Sequential(nn.ReLU(), Deep()).eval(), (batches[0],))
    last = layers(other)[-1].name
    got = resumed.moved(other).values(0, (batches[0],), [last])
    assert torch.equal(got[last], Resumed(other, 0).values(0, (batches[0],), [last])[last])


def test_what_is_alive_is_all_that_the_rest_reads() -> None:
    graph, batches = deep()
    nodes = layers(graph)
    resumed = Resumed(graph)
    for node in nodes[3:7]:
        resumed.settle(node.name)
        known = resumed.alive(0, (batches[0],), node.name)
        assert known.keys() == {nodes[0].name, node.name}
        want = Resumed(graph, 0).values(0, (batches[0],), list(known))
        assert all(torch.equal(known[name], want[name]) for name in known)
