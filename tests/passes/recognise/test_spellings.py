"""Activations in every spelling are recognised; what looks like one and is none stays."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hand_built import Net, operations
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_checks import run_exact
from torch import fx, nn

from shrinkc.passes.ir import add, clamp, div, mul, neg, pow_, sub
from shrinkc.passes.recognise.recognise import Recognise

Operand = Any  # a node or a number
ROOT = math.sqrt(2 / math.pi)


class Speller:
    """Writes formulas in a form that is drawn: order, grouping, factors or divisors."""

    def __init__(self, draw: st.DrawFn, net: Net) -> None:
        self.draw, self.net = draw, net

    def maybe(self) -> bool:
        return self.draw(st.booleans())

    def call(self, function: Callable[..., Any], *args: Operand) -> Operand:
        if not any(isinstance(x, fx.Node) for x in args):
            return function(*args)
        return self.net.function(function, *args)

    def _pairwise(self, function: Callable[..., Any], operands: list[Operand]) -> Operand:
        operands = self.draw(st.permutations(operands))
        while len(operands) > 1:
            at = self.draw(st.integers(0, len(operands) - 2))
            pair = self.call(function, operands[at], operands[at + 1])
            operands = [*operands[:at], pair, *operands[at + 2 :]]
        return operands[0]

    def product(self, *factors: Operand) -> Operand:
        """Numbers now and then as divisors of the whole."""
        divisors = [x for x in factors if isinstance(x, float) and self.maybe()]
        nodes = [x for x in factors if not (isinstance(x, float) and x in divisors)]
        result = self._pairwise(mul, nodes)
        for number in divisors:
            result = self.call(div, result, 1 / number)
        return result

    def sum(self, *terms: Operand) -> Operand:
        return self._pairwise(add, list(terms))

    def minus(self, a: Operand, b: Operand) -> Operand:
        return self.call(sub, a, b) if self.maybe() else self.sum(a, self.call(neg, b))

    def module(self, module: nn.Module, x: Operand) -> Operand:
        return self.net.call(module, x)

    def limited(self, x: Operand, low: float, high: float) -> Operand:
        kind = self.draw(st.integers(0, 3))
        if kind == 0:
            return self.call(clamp, x, low, high)
        if kind == 1:
            same = (low, high) == (0.0, 6.0) and self.maybe()
            return self.module(nn.ReLU6() if same else nn.Hardtanh(low, high), x)
        if kind == 2:
            return self.call(clamp, self.call(clamp, x, low, None), None, high)
        lower = self._pairwise(torch.maximum, [x, self.number(low)])
        return self._pairwise(torch.minimum, [lower, self.number(high)])

    def number(self, value: float) -> fx.Node:
        """As a constant tensor: `torch.zeros_like(x)`."""
        path = f"number_{len(self.net.graph.nodes)}"
        self.net.root.register_buffer(path, torch.full((1, 1, 1), value).double())
        return self.net.graph.create_node("get_attr", path)

    def power(self, x: Operand, exponent: int) -> Operand:
        kind = self.draw(st.integers(0, 2))
        if kind == 0:
            return self.call(pow_, x, exponent)
        return self.product(*[x] * exponent)

    def exp(self, x: Operand) -> Operand:
        return self.call(torch.exp, x)

    def relu(self, x: Operand) -> Operand:
        return self.module(nn.ReLU(), x) if self.maybe() else self.call(clamp, x, 0.0, None)


def hard_sigmoid(s: Speller, x: Operand) -> Operand:
    if s.maybe():
        return s.limited(s.sum(s.product(x, 1 / 6), 0.5), 0.0, 1.0)
    return s.product(s.limited(s.sum(x, 3.0), 0.0, 6.0), 1 / 6)


def hard_swish(s: Speller, x: Operand) -> Operand:
    if s.maybe():
        return s.product(x, hard_sigmoid(s, x))
    return s.product(x, s.limited(s.sum(x, 3.0), 0.0, 6.0), 1 / 6)


def sigmoid(s: Speller, x: Operand) -> Operand:
    if s.maybe():
        return s.call(div, 1.0, s.sum(s.exp(s.call(neg, x)), 1.0))
    return s.product(s.sum(s.module(nn.Tanh(), s.product(x, 0.5)), 1.0), 0.5)


def silu(s: Speller, x: Operand) -> Operand:
    if s.maybe():
        return s.call(div, x, s.sum(1.0, s.exp(s.product(x, -1.0))))
    return s.product(x, s.module(nn.Sigmoid(), x))


def gelu_tanh(s: Speller, x: Operand) -> Operand:
    if s.maybe():
        inner = s.product(ROOT, s.sum(x, s.product(s.power(x, 3), 0.044715)))
    else:
        inner = s.product(ROOT, x, s.sum(1.0, s.product(0.044715, s.power(x, 2))))
    if s.maybe():
        return s.product(x, s.module(nn.Sigmoid(), s.product(inner, 2.0)))
    return s.product(0.5, x, s.sum(s.module(nn.Tanh(), inner), 1.0))


def gelu(s: Speller, x: Operand) -> Operand:
    error = s.call(torch.erf, s.product(x, 1 / math.sqrt(2)))
    return s.product(0.5, x, s.sum(error, 1.0))


def mish(s: Speller, x: Operand) -> Operand:
    soft = s.call(torch.log, s.sum(s.exp(x), 1.0)) if s.maybe() else s.module(nn.Softplus(), x)
    return s.product(x, s.module(nn.Tanh(), soft))


def leaky(s: Speller, x: Operand) -> Operand:
    kind = s.draw(st.integers(0, 2))
    if kind == 0:
        return s._pairwise(torch.maximum, [x, s.product(x, 0.2)])
    if kind == 1:
        return s.minus(s.relu(x), s.product(s.relu(s.call(neg, x)), 0.2))
    return s.sum(s.product(x, 0.6), s.product(s.call(torch.abs, x), 0.4))


def elu(s: Speller, x: Operand) -> Operand:
    if s.maybe():
        below = s.call(clamp, s.minus(s.exp(x), 1.0), None, 0.0)
        return s.sum(s.relu(x), s.product(below, 0.7))
    return s.minus(s.relu(x), s.product(s.relu(s.minus(1.0, s.exp(x))), 0.7))


def tanh(s: Speller, x: Operand) -> Operand:
    if s.maybe():
        return s.minus(s.product(s.module(nn.Sigmoid(), s.product(x, 2.0)), 2.0), 1.0)
    plus, minus = s.exp(x), s.exp(s.call(neg, x))
    return s.call(div, s.minus(plus, minus), s.sum(plus, minus))


def relu(s: Speller, x: Operand) -> Operand:
    kind = s.draw(st.integers(0, 2))
    if kind == 0:
        return s.product(s.sum(x, s.call(torch.abs, x)), 0.5)
    return s.relu(s.relu(x)) if kind == 1 else s._pairwise(torch.maximum, [s.number(0.0), x])


def relu6(s: Speller, x: Operand) -> Operand:
    kind = s.draw(st.integers(0, 2))
    if kind == 0:
        return s.minus(s.relu(x), s.relu(s.sum(x, -6.0)))
    return s.call(clamp, s.relu(x), None, 6.0) if kind == 1 else s.limited(x, 0.0, 6.0)


FORMULAS: dict[Callable[[Speller, Operand], Operand], nn.Module] = {
    hard_sigmoid: nn.Hardsigmoid(),
    hard_swish: nn.Hardswish(),
    sigmoid: nn.Sigmoid(),
    silu: nn.SiLU(),
    gelu_tanh: nn.GELU("tanh"),
    gelu: nn.GELU(),
    mish: nn.Mish(),
    leaky: nn.LeakyReLU(0.2),
    elu: nn.ELU(0.7),
    tanh: nn.Tanh(),
    relu: nn.ReLU(),
    relu6: nn.ReLU6(),
}


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda formula: formula.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_spelling(
    formula: Callable[[Speller, Operand], Operand], data: st.DataObject
) -> None:
    net = Net(2, 3, 4, 5, seed=1)
    x = net.conv(net.x, 3, 3, 1)
    if data.draw(st.booleans()):  # what the activation reads may be arithmetic, too
        x = net.add(x, net.conv(net.x, 3, 3, 1))
    y = formula(Speller(data.draw, net), x)
    result = run_exact(Recognise(), net.build(net.conv(y, 3, 3, 1)))
    new = result.graph_module
    want = FORMULAS[formula]
    assert operations(new)[-2:] == [type(want).__name__, "Conv2d"]
    assert operations(new)[:-2] in (["Conv2d"], ["Conv2d", "Conv2d", "add"])
    (found,) = (m for m in new.modules() if type(m) is type(want))
    assert found.extra_repr() == want.extra_repr()


ALMOST: dict[str, Callable[[Net, fx.Node], fx.Node]] = {
    "a sixth": lambda n, x: n.function(mul, n.function(mul, x, _gate(n, x, 3.0)), 0.1667),
    "three": lambda n, x: n.function(div, n.function(mul, x, _gate(n, x, 2.999999)), 6.0),
    "two values": lambda n, x: n.function(mul, n.function(neg, x), n.call(nn.Sigmoid(), x)),
    "half a tanh": lambda n, x: n.function(mul, n.call(nn.Tanh(), x), 0.5),
    "GELU by sigmoid": lambda n, x: n.function(
        mul, x, n.call(nn.Sigmoid(), n.function(mul, x, 1.702))
    ),
    "a higher limit": lambda n, x: n.function(clamp, x, 0.0, 6.00001),
    # what keeps the next operator from a logarithm of 0 or dividing by it
    "a guard": lambda n, x: n.function(clamp, x, 1e-12, None),
    "a guard that is added": lambda n, x: n.function(add, n.call(nn.Sigmoid(), x), 1e-12),
    "a guarded gate": lambda n, x: n.function(clamp, n.call(nn.Sigmoid(), x), 1e-15, 1.0),
    "abs": lambda n, x: n.function(torch.maximum, x, n.function(neg, x)),
    "affine": lambda n, x: n.function(div, n.function(add, n.function(mul, x, 3.0), 1.0), 2.0),
    "singular": lambda n, x: n.function(torch.sqrt, n.function(pow_, x, 2)),
    "a spike": lambda n, x: n.function(add, n.call(nn.ReLU(), x), _spike(n, x)),
}


def _gate(net: Net, x: fx.Node, shift: float) -> fx.Node:
    return net.call(nn.ReLU6(), net.function(add, x, shift))


def _spike(net: Net, x: fx.Node) -> fx.Node:
    """0 but for a thousandth on both sides of 700."""
    far = net.function(torch.abs, net.function(sub, x, 700.0))
    return net.function(mul, net.call(nn.ReLU(), net.function(sub, 0.001, far)), 1000.0)


@pytest.mark.parametrize("kind", ALMOST)
def test_what_is_almost_an_activation_stays(kind: str) -> None:
    net = Net(2, 3, 4, 5)
    y = ALMOST[kind](net, net.conv(net.x, 3, 3, 1))
    assert not run_exact(Recognise(), net.build(net.conv(y, 3, 3, 1))).modified


def test_limits_far_away_are_found() -> None:
    """min(x, 1e6) + max(−x, 0) is x between 0 and 1e6."""
    net = Net(2, 3, 4, 5)
    negative = net.call(nn.ReLU(), net.function(neg, net.x))
    y = net.function(add, net.function(clamp, net.x, None, 1e6), negative)
    (found,) = run_exact(Recognise(), net.build(y)).graph_module.children()
    assert (found.min_val, found.max_val) == (0.0, 1e6)


@pytest.mark.parametrize("reader", ["another layer", "an output"])
def test_an_inner_value_that_is_needed_elsewhere(reader: str) -> None:
    net = Net(2, 3, 4, 5)
    x = net.conv(net.x, 3, 3, 1)
    gate = net.call(nn.Sigmoid(), x, "gate")
    y = net.function(operator.mul, x, gate)
    other = net.conv(gate, 3, 3, 1, name="other") if reader == "another layer" else gate
    result = run_exact(Recognise(), net.build(y, other))
    assert not result.modified
    (skip,) = result.skipped
    read = "other" if reader == "another layer" else "output"
    assert skip.reason == (
        f"it is SiLU written out, but '{read}' reads 'gate', which is inside of it"
    )


def test_a_constant_that_is_trained_is_no_number() -> None:
    net = Net(2, 3, 4, 5)
    slope = net.constant(torch.tensor([0.2]))
    y = net.function(torch.maximum, net.x, net.function(operator.mul, net.x, slope))
    assert not run_exact(Recognise(), net.build(y)).modified


def test_two_different_inputs() -> None:
    net = Net(2, 3, 4, 5)
    a, b = (net.conv(net.x, 3, 3, 1) for _ in range(2))
    y = net.function(operator.mul, a, net.call(nn.Sigmoid(), b))
    assert not run_exact(Recognise(), net.build(y)).modified


def test_one_operator_alone_is_left_as_it_is() -> None:
    net = Net(2, 3, 4, 5)
    y = net.x
    modules = (nn.ReLU(), nn.Hardswish(), nn.LeakyReLU(0.1), nn.ELU(), nn.Hardtanh(-1, 2))
    for module in modules:
        y = net.conv(net.call(module, y), 3, 3, 1)
    y = net.function(clamp, y, -1.0, 2.0)
    assert not run_exact(Recognise(), net.build(y)).modified


def test_limits_that_runtimes_fuse_are_modules() -> None:
    net = Net(2, 3, 4, 5)
    y = net.conv(net.function(clamp, net.x, 0.0, None), 3, 3, 1)
    y = net.conv(net.call(nn.Hardtanh(0.0, 6.0), y), 3, 3, 1)
    left = operations(run_exact(Recognise(), net.build(y)).graph_module)
    assert left == ["ReLU", "Conv2d", "ReLU6", "Conv2d"]


@pytest.mark.parametrize(
    ("first", "second"),
    [(nn.ReLU, nn.ReLU), (nn.ReLU6, nn.ReLU), (nn.ReLU6, nn.ReLU6)],
)
def test_of_a_limit_behind_one_as_narrow_the_first_stays(
    first: type[nn.Module], second: type[nn.Module]
) -> None:
    """By its name, by which ranges of int8 are stored."""
    net = Net(2, 3, 4, 5)
    limited = net.call(first(), net.conv(net.x, 3, 3, 1))
    left = run_exact(Recognise(), net.build(net.call(second(), limited))).graph_module
    assert operations(left) == ["Conv2d", first.__name__]
    assert limited.name in {node.name for node in left.graph.nodes}


def test_a_narrower_limit_behind_a_wide_one_is_the_narrower() -> None:
    net = Net(2, 3, 4, 5)
    y = net.call(nn.ReLU6(), net.call(nn.ReLU(), net.conv(net.x, 3, 3, 1)))
    left = operations(run_exact(Recognise(), net.build(y)).graph_module)
    assert left == ["Conv2d", "ReLU6"]


# --- slopes --------------------------------------------------------------------------------------


def prelu(net: Net, x: fx.Node, slope: fx.Node) -> fx.Node:
    negative = net.call(nn.ReLU(), net.function(operator.neg, x))
    down = net.function(operator.mul, slope, negative)
    return net.function(operator.sub, net.call(nn.ReLU(), x), down)


@pytest.mark.parametrize("shape", [(1,), (3, 1, 1), (1, 3, 1, 1)])
def test_prelu(shape: tuple[int, ...]) -> None:
    net = Net(2, 3, 4, 5)
    slope = net.constant(torch.randn(shape), "slope")
    graph_module = run_exact(Recognise(), net.build(prelu(net, net.x, slope))).graph_module
    assert operations(graph_module) == ["PReLU"]
    (weight,) = graph_module.parameters()
    assert weight.requires_grad


def test_slopes_along_positions_and_shared_ones() -> None:
    net = Net(2, 3, 4, 5)
    y = prelu(net, net.x, net.constant(torch.randn(5)))
    shared = net.constant(torch.randn(3, 1, 1))
    y = prelu(net, prelu(net, y, shared), shared)
    assert not run_exact(Recognise(), net.build(y)).modified
