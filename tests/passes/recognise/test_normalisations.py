"""Softmax and layer norm written out, over every dimension; what is none stays."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
from hand_built import Net, modules_of, operations
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_checks import run_exact
from torch import fx, nn

from shrinkc.errors import VerificationError
from shrinkc.passes.ir import add, amax, div, mean, mul, pow_, sub, sum_
from shrinkc.passes.recognise import norm_affine
from shrinkc.passes.recognise.recognise import Recognise

SHAPE = (2, 4, 5, 6)


def kept(
    net: Net, function: Callable[..., object], x: fx.Node, dim: int, by_reshape: bool
) -> fx.Node:
    """A reduction that keeps its dimension, or drops it and has it put back."""
    if not by_reshape:
        return net.function(function, x, (dim,), True)
    shape = (-1, *(1 if i == dim else n for i, n in enumerate(SHAPE) if i))
    return net.function(torch.reshape, net.function(function, x, (dim,), False), shape)


def softmax(net: Net, x: fx.Node, dim: int, shifted: bool, by_reshape: bool = False) -> fx.Node:
    if shifted:
        x = net.function(sub, x, kept(net, amax, x, dim, by_reshape))
    power = net.function(torch.exp, x)
    return net.function(div, power, kept(net, sum_, power, dim, by_reshape))


def standardised(
    net: Net, x: fx.Node, dims: tuple[int, ...], eps: float, form: str = "sqrt"
) -> fx.Node:
    centre = net.function(mean, x, dims, True)
    centred = net.function(sub, x, centre)
    if form == "of squares":
        squares = net.function(mean, net.function(mul, x, x), dims, True)
        variance = net.function(sub, squares, net.function(pow_, centre, 2))
    else:
        again = net.function(sub, x, net.function(mean, x, dims, True))
        variance = net.function(mean, net.function(pow_, again, 2), dims, True)
    safe = net.function(add, eps, variance)
    if form == "rsqrt":
        return net.function(mul, net.function(torch.rsqrt, safe), centred)
    if form == "power":
        return net.function(div, centred, net.function(pow_, safe, 0.5))
    return net.function(div, centred, net.function(torch.sqrt, safe))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.booleans(), st.booleans())
def test_softmax(dim: int, shifted: bool, by_reshape: bool) -> None:
    net = Net(*SHAPE)
    y = softmax(net, net.conv(net.x, 4, 4, 1), dim, shifted, by_reshape)
    new = run_exact(Recognise(), net.build(net.conv(y, 4, 4, 1))).graph_module
    assert operations(new) == ["Conv2d", "Softmax", "Conv2d"]
    assert modules_of(new, nn.Softmax)[0].dim == dim


FORMS = st.sampled_from(("sqrt", "rsqrt", "power", "of squares"))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(((3,), (2, 3), (1, 2, 3))),
    st.sampled_from((1e-3, 1e-5, 1e-6, 1e-13, 1e-20)),
    FORMS,
)
def test_layer_norm_over_the_last_dimensions(dims: tuple[int, ...], eps: float, form: str) -> None:
    net = Net(*SHAPE)
    y = standardised(net, net.conv(net.x, 4, 4, 1), dims, eps, form)
    new = run_exact(Recognise(), net.build(net.conv(y, 4, 4, 1))).graph_module
    assert operations(new) == ["Conv2d", "LayerNorm", "Conv2d"]
    (norm,) = modules_of(new, nn.LayerNorm)
    assert norm.eps == eps
    assert norm.normalized_shape == tuple(SHAPE[d] for d in dims)


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1)])
@pytest.mark.parametrize("with_shift", [True, False])
def test_layer_norm_over_channels(shape: tuple[int, ...], with_shift: bool) -> None:
    net = Net(*SHAPE)
    y = standardised(net, net.x, (1,), 1e-6)
    y = net.function(mul, net.constant(torch.randn(shape), "gamma"), y)
    y = net.add(y, net.constant(torch.randn(shape), "beta")) if with_shift else y
    new = run_exact(Recognise(), net.build(net.conv(y, 4, 4, 1))).graph_module
    assert operations(new) == ["permute", "LayerNorm", "permute", "Conv2d"]
    (norm,) = modules_of(new, nn.LayerNorm)
    assert norm.weight.requires_grad
    assert (norm.bias is not None) == with_shift


@pytest.mark.parametrize("parts", ["factor", "shift", "both"])
def test_factor_and_shift(parts: str) -> None:
    net = Net(*SHAPE)
    y = standardised(net, net.x, (3,), 1e-5)
    if parts != "shift":
        y = net.function(mul, y, net.constant(torch.randn(6)))
    if parts != "factor":
        y = net.function(add, net.constant(torch.randn(1, 1, 6)), y)
    new = run_exact(Recognise(), net.build(y)).graph_module
    assert operations(new) == ["LayerNorm"]


@pytest.mark.parametrize("kind", ["elsewhere", "shared", "second factor", "number", "two readers"])
def test_a_factor_that_is_not_the_norms(kind: str) -> None:
    net = Net(*SHAPE)
    y = net.call(nn.LayerNorm(6, elementwise_affine=kind == "second factor"), net.x)
    gamma = net.constant(torch.randn(5, 1) if kind == "elsewhere" else torch.randn(6))
    scaled = net.function(mul, y, 2.0 if kind == "number" else gamma)
    outputs = [scaled]
    if kind == "shared":
        outputs.append(net.function(mul, net.x, gamma))
    if kind == "two readers":
        outputs.append(y)
    assert not run_exact(Recognise(), net.build(*outputs)).modified


def by_deviation(net: Net) -> fx.Node:
    """(x − μ) / (σ + ε)"""
    centred = net.function(sub, net.x, net.function(mean, net.x, (3,), True))
    variance = net.function(mean, net.function(pow_, centred, 2), (3,), True)
    return net.function(div, centred, net.function(add, net.function(torch.sqrt, variance), 1e-5))


def other_dimension(net: Net) -> fx.Node:
    """What the sum runs over was shifted by the maximum over another dimension."""
    shifted = net.function(sub, net.x, kept(net, amax, net.x, 1, False))
    total = kept(net, sum_, net.function(torch.exp, shifted), 2, False)
    return net.function(div, net.function(torch.exp, net.x), total)


def over_the_batch(net: Net) -> fx.Node:
    return softmax(net, net.x, 0, True)


def unbiased(net: Net) -> fx.Node:
    centred = net.function(sub, net.x, net.function(mean, net.x, (3,), True))
    squares = net.function(sum_, net.function(pow_, centred, 2), (3,), True)
    variance = net.function(add, net.function(div, squares, 5.0), 1e-5)
    return net.function(mul, centred, net.function(torch.rsqrt, variance))


def middle_dimensions(net: Net) -> fx.Node:
    return standardised(net, net.x, (1, 2), 1e-5)


NONE = (by_deviation, other_dimension, over_the_batch, unbiased, middle_dimensions)


@pytest.mark.parametrize("make", NONE, ids=lambda make: make.__name__)
@pytest.mark.parametrize("batch", [1, 2])
def test_what_is_almost_a_norm_stays(make: Callable[[Net], fx.Node], batch: int) -> None:
    net = Net(batch, *SHAPE[1:])
    assert not run_exact(Recognise(), net.build(make(net))).modified


def test_what_is_limited_stays() -> None:
    net = Net(*SHAPE)
    power = net.function(torch.exp, net.call(nn.Hardtanh(-50.0, 50.0), net.x))
    y = net.function(div, power, kept(net, sum_, power, 1, False))
    new = run_exact(Recognise(), net.build(y)).graph_module
    assert operations(new) == ["Hardtanh", "Softmax"]


def test_an_inner_value_that_is_needed_elsewhere() -> None:
    net = Net(*SHAPE)
    power = net.function(torch.exp, net.x)
    y = net.function(operator.truediv, power, kept(net, sum_, power, 1, False))
    result = run_exact(Recognise(), net.build(y, power))
    assert not result.modified
    assert "it is Softmax written out" in result.skipped[0].reason


def test_a_factor_along_the_wrong_dimension_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(2, 6, 6, 6)
    y = net.call(nn.LayerNorm(6, elementwise_affine=False), net.x)
    graph_module = net.build(net.function(mul, y, net.constant(torch.randn(6, 1))))
    assert not run_exact(Recognise(), graph_module).modified
    careless = lambda constant, norm, order: constant.reshape(tuple(norm.normalized_shape))  # noqa: E731
    monkeypatch.setattr(norm_affine, "_along_features", careless)
    with pytest.raises(VerificationError):
        run_exact(Recognise(), graph_module)
