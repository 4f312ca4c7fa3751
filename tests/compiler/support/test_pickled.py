"""Graphs that were sent to another process are the same ones."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from channel_networks import NETWORKS, graph_of
from torch import fx, nn

from shrinkc.compiler.support.apart.pickled import pickled


def nodes(graph: fx.GraphModule) -> list[tuple[Any, ...]]:
    return [(n.op, n.name, n.target, str(n.args), str(n.kwargs)) for n in graph.graph.nodes]


@pytest.mark.parametrize("name", NETWORKS)
def test_nodes_arrive_as_they_were_sent(name: str) -> None:
    graph = graph_of(name).train()
    sent = pickle.loads(pickled({"graph": graph}))["graph"]
    assert nodes(sent) == nodes(graph)
    assert sent.meta == graph.meta
    assert sent.training
    inputs = [torch.randn(shape).double() for shape in graph.meta["input_shapes"].values()]
    wanted, found = (g.eval()(*inputs) for g in (graph, sent))
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert sent.state_dict().keys() == graph.state_dict().keys()


def test_what_is_shared_stays_shared() -> None:
    graph = graph_of("shared_weight")
    one, again = pickle.loads(pickled((graph, graph)))
    assert one is again
    assert len([*one.parameters()]) == len([*graph.parameters()])


def test_other_things_are_sent_as_ever() -> None:
    module = nn.Linear(3, 2)
    sent, text = pickle.loads(pickled((module, "text")))
    assert torch.equal(sent.weight, module.weight)
    assert text == "text"
