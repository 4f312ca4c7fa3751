"""No value leaves its range, and limits within which everything is already are found."""

from __future__ import annotations

import operator
from math import inf

import pytest
import torch
import torch.nn.functional as F
from hand_built import Net, operations
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_checks import node_values, run_exact
from torch import fx, nn

from shrinkc.errors import VerificationError
from shrinkc.passes.analysis.ranges import ranges
from shrinkc.passes.ir import amax, clamp, mean, slice_dim
from shrinkc.passes.simplify import no_ops
from shrinkc.passes.simplify.simplify import Simplify

MODULES = (
    *(nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 2.0), nn.LeakyReLU(0.2), nn.LeakyReLU(-1.5)),
    *(nn.ELU(), nn.ELU(-2.0), nn.Sigmoid(), nn.Tanh(), nn.Hardsigmoid(), nn.Hardswish()),
    *(nn.SiLU(), nn.Mish(), nn.GELU(), nn.GELU("tanh"), nn.Softplus(), nn.Softmax(1)),
    *(nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1), nn.Identity(), nn.PReLU(4)),
    *(nn.Upsample((5, 7), mode="bilinear", align_corners=False), nn.Conv2d(4, 4, 1)),
)
FUNCTIONS = (torch.exp, torch.abs, torch.neg, torch.erf)
PAIRS = (operator.add, operator.sub, operator.mul, torch.maximum, torch.minimum)


@st.composite
def graphs(draw: st.DrawFn) -> fx.GraphModule:
    net = Net(2, 4, 5, 7, seed=draw(st.integers(0, 99)))
    values = [net.x]
    for _ in range(draw(st.integers(1, 10))):
        x, other = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        number = draw(st.sampled_from((-2.0, -0.5, 0.0, 0.7, 3.0)))
        kind = draw(st.integers(0, 6))
        if kind <= 1:
            y = net.call(draw(st.sampled_from(MODULES)), x)
        elif kind == 2:
            function = draw(st.sampled_from(FUNCTIONS))
            y = net.function(operator.neg if function is torch.neg else function, x)
        elif kind == 3:
            y = net.function(draw(st.sampled_from(PAIRS)), x, other)
        elif kind == 4:
            pair = (x, number) if draw(st.booleans()) else (number, x)
            y = net.function(draw(st.sampled_from(PAIRS[:3])), *pair)
        elif kind == 5:
            limit = (number, None) if draw(st.booleans()) else (None, number)
            y = net.function(clamp, x, *limit)
        else:
            joined = net.function(torch.cat, (x, other), 1)
            y = net.function(slice_dim, net.pad(joined, 1, -1, value=number), 1, 2, 6, 1)
        values.append(y)
    reduced = [net.function(f, values[-1], (1,), True) for f in (mean, amax)]
    return net.build(values[-1], *reduced)


@settings(max_examples=200, deadline=None)
@given(graphs())
def test_no_value_leaves_its_range(graph_module: fx.GraphModule) -> None:
    found = ranges(graph_module)
    for scale in (1.0, 30.0):
        x = torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(0)).double() * scale
        for name, value in node_values(graph_module, (x,)).items():
            low, high = found[name]
            slack = 1e-12 * float(value.abs().max())
            assert low <= high
            finite = value[value.isfinite()]
            assert bool((finite >= low - slack).all() & (finite <= high + slack).all()), name


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_simplifying_them_changes_nothing(graph_module: fx.GraphModule) -> None:
    x = torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(1)).double()
    values = node_values(graph_module, (x,)).values()
    if all(bool(value.isfinite().all()) for value in values):
        run_exact(Simplify(), graph_module)


def chain(*modules: nn.Module) -> list[str]:
    net = Net(2, 4, 6, 6)
    y = net.x
    for module in modules:
        y = net.call(module, y)
    return operations(run_exact(Simplify(), net.build(y)).graph_module)


def test_limits_that_limit_nothing_go() -> None:
    assert chain(nn.Sigmoid(), nn.ReLU()) == ["Sigmoid"]
    assert chain(nn.Softmax(1), nn.ReLU6()) == ["Softmax"]
    assert chain(nn.ReLU6(), nn.MaxPool2d(2), nn.ReLU()) == ["ReLU6", "MaxPool2d"]
    assert chain(nn.ReLU6(), nn.Hardtanh(-1, 7)) == ["ReLU6"]
    assert chain(nn.ReLU6(), nn.Hardtanh(0, 5)) == ["ReLU6", "Hardtanh"]
    assert chain(nn.ReLU(), nn.ReLU6()) == ["ReLU", "ReLU6"]
    assert chain(nn.Tanh(), nn.ReLU()) == ["Tanh", "ReLU"]
    assert chain(nn.SiLU(), nn.ReLU()) == ["SiLU", "ReLU"]


def test_through_concatenations_and_sums() -> None:
    net = Net(2, 4, 6, 6)
    a = net.call(nn.ReLU(), net.conv(net.x, 4, 4, 1))
    b = net.call(nn.ReLU6(), net.conv(net.x, 4, 4, 1))
    joined = net.call(nn.ReLU(), net.function(torch.cat, (a, net.add(a, b)), 1))
    left = operations(run_exact(Simplify(), net.build(joined, a)).graph_module)
    assert left.count("ReLU") == 1


def test_zero_padding_and_trained_numbers_count() -> None:
    net = Net(2, 4, 6, 6)
    positive = net.function(clamp, net.x, 1.0, None)
    padded = net.function(F.pad, positive, (1, 1), "constant", 0.0)
    trained = net.add(positive, net.constant(torch.ones(4, 1, 1)))
    found = ranges(net.build(padded, trained))
    assert found["clamp"] == (1.0, inf)
    assert found["pad"] == (0.0, inf)
    assert found["add"] == (-inf, inf)


def test_a_wrong_range_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(2, 4, 6, 6)
    graph_module = net.build(net.call(nn.ReLU(), net.call(nn.Tanh(), net.x)))
    exact = no_ops.limits

    def without_the_lower(owner: fx.GraphModule, node: fx.Node) -> tuple[float, float] | None:
        return exact(owner, node) and (-inf, inf)

    monkeypatch.setattr(no_ops, "limits", without_the_lower)
    with pytest.raises(VerificationError):
        run_exact(Simplify(), graph_module)
