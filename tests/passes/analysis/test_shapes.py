"""Shapes are those of a real run, and nothing is touched."""

from __future__ import annotations

import operator

import pytest
import torch
from hand_built import Net
from hypothesis import given, settings
from pass_checks import fingerprint, node_values, random_inputs
from random_graphs import conv_graphs
from torch import nn

from shrinkc.passes.analysis.shapes import shapes


@settings(max_examples=40, deadline=None)
@given(conv_graphs())
def test_shapes_are_those_of_a_real_run(graph_module) -> None:
    before = fingerprint(graph_module)
    values = node_values(graph_module, random_inputs(graph_module))
    assert shapes(graph_module) == {name: tuple(v.shape) for name, v in values.items()}
    assert fingerprint(graph_module) == before


def test_batch_factor_multiplies_what_follows_the_batch() -> None:
    net = Net(2, 3, 8, 8)
    y = net.call(nn.BatchNorm2d(4), net.conv(net.x, 3, 4, 3, name="conv"), "norm")
    weight = net.constant(torch.ones(4, 1, 1), "weight")
    flat = net.function(torch.reshape, net.function(operator.mul, y, weight), (-1, 144))
    found = shapes(net.build(flat), batch_factor=3)
    assert found["conv"] == found["norm"] == (6, 4, 6, 6)
    assert found["weight"] == (4, 1, 1)
    assert found["reshape"] == (6, 144)


def test_a_graph_made_for_one_batch_size_says_so() -> None:
    net = Net(2, 3, 8, 8)
    graph_module = net.build(net.function(torch.reshape, net.x, (2, 192)))
    assert shapes(graph_module)["reshape"] == (2, 192)
    with pytest.raises(RuntimeError):
        shapes(graph_module, batch_factor=2)
