"""1-D networks on maps of height 1: what is left of them, in inference and in training."""

from __future__ import annotations

import operator

import pytest
import torch
from hand_built import Net, operations
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_checks import run_exact
from torch import fx, nn

from shrinkc.errors import VerificationError
from shrinkc.passes.base import PassResult
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm
from shrinkc.passes.ir import amax, mean, slice_dim
from shrinkc.passes.simplify import lift_rows
from shrinkc.passes.simplify.lift_rows import LiftRows
from shrinkc.passes.simplify.simplify import Simplify


class Rows(Net):
    """Convolutions over (N, C, L), as they are captured."""

    def row(self, x: fx.Node, channels: int, length: int) -> fx.Node:
        return self.function(torch.reshape, x, (-1, channels, length))

    def map(self, x: fx.Node, channels: int, length: int) -> fx.Node:
        return self.function(torch.reshape, x, (-1, channels, 1, length))

    def conv1d(self, x: fx.Node, inputs: int, outputs: int, length: int) -> fx.Node:
        y = self.conv(self.map(x, inputs, length), inputs, outputs, (1, 3), padding=(0, 1))
        return self.row(y, outputs, length)


def lifted(graph_module: fx.GraphModule) -> tuple[PassResult, list[str]]:
    result = run_exact(LiftRows(), graph_module)
    rest = result.graph_module
    for exact_pass in (Simplify(), FoldBatchNorm()):
        rest = run_exact(exact_pass, rest).graph_module
    return result, operations(rest)


def test_between_two_convolutions_nothing_but_the_activation_is_left() -> None:
    net = Rows(2, 4, 9)
    y = net.call(nn.BatchNorm1d(6), net.conv1d(net.x, 4, 6, 9), "norm")
    y = net.call(nn.Dropout(0.3), net.call(nn.ReLU(), y, "relu"))
    y = net.conv1d(y, 6, 4, 9)
    result, left = lifted(net.build(y))
    assert left == ["reshape", "Conv2d", "ReLU", "Conv2d", "reshape"]
    assert "BatchNorm2d" in operations(result.graph_module)
    assert "BatchNorm1d" not in operations(result.graph_module)


def test_arithmetic_cuts_padding_reductions_and_concatenations() -> None:
    net = Rows(2, 4, 9)
    a, b = (net.conv1d(net.x, 4, 6, 9) for _ in range(2))
    y = net.function(torch.maximum, net.add(a, b), net.function(operator.mul, 0.5, b))
    y = net.function(slice_dim, y, 2, 1, 8, 1)
    y = net.function(slice_dim, y, 1, 0, 5, 2)
    y = net.pad(y, 2, 0)
    y = net.pad(y, 0, 0, 1, 0)
    y = net.function(torch.cat, (y, y), 2)
    y = net.function(torch.cat, (y, y), 1)
    y = net.function(operator.sub, y, net.function(mean, y, (2,), True))
    y = net.function(operator.sub, y, net.function(amax, y, (1, 2), True))
    y = net.conv1d(net.call(nn.PReLU(8), y), 8, 4, 18)
    _, left = lifted(net.build(y))
    assert left.count("reshape") == 3
    assert left[0] == left[2] == left[-1] == "reshape"  # of the input, twice, and of the output


@pytest.mark.parametrize("kind", ["flat", "turned", "softmax", "constant"])
def test_what_needs_the_row_stays_behind_it(kind: str) -> None:
    net = Rows(2, 4, 9)
    y = net.conv1d(net.x, 4, 6, 9)
    if kind == "flat":
        y = net.function(torch.reshape, y, (-1, 54))
    elif kind == "turned":
        y = net.function(torch.permute, y, (0, 2, 1))
    elif kind == "softmax":
        y = net.call(nn.Softmax(2), y)
    else:
        y = net.add(y, net.constant(torch.rand(6, 9)))
    assert not run_exact(LiftRows(), net.build(y)).modified


@pytest.mark.parametrize("dims", [(2,), (1,), (1, 2)])
def test_what_is_reduced_for_good_needs_no_row(dims: tuple[int, ...]) -> None:
    net = Rows(2, 4, 9)
    y = net.function(mean, net.conv1d(net.x, 4, 6, 9), dims, False)
    _, left = lifted(net.build(y))
    assert left == ["reshape", "Conv2d", "mean"]


def test_other_reshapes_are_no_rows() -> None:
    """To (N, C, L) from a map of height 2, with channels and positions exchanged, or with the
    batch in another place."""
    for shape, target in (
        ((1, 4, 2, 3), (-1, 4, 6)),
        ((1, 4, 1, 6), (-1, 6, 4)),
        ((1, 4, 1, 4), (1, -1, 4)),
    ):
        net = Net(*shape)
        y = net.call(nn.ReLU(), net.function(torch.reshape, net.x, target))
        assert not run_exact(LiftRows(), net.build(y)).modified


def test_a_row_that_others_read_stays_for_them() -> None:
    net = Rows(2, 4, 9)
    row = net.conv1d(net.x, 4, 6, 9)
    graph_module = net.build(net.call(nn.ReLU(), row, "relu"), row)
    result = run_exact(LiftRows(), graph_module)
    assert result.changes[0].replaces == ("relu",)


def test_a_batch_norm_called_twice_stays() -> None:
    net = Rows(2, 4, 9)
    norm = net.call(nn.BatchNorm1d(4), net.conv1d(net.x, 4, 4, 9), "norm")
    result = run_exact(LiftRows(), net.build(net.again(norm, net.conv1d(norm, 4, 4, 9))))
    assert [skip.reason for skip in result.skipped] == [
        "it stays 1-D: the module is called 2 times"
    ] * 2
    assert not result.modified


def test_it_trains_as_before() -> None:
    net = Rows(4, 4, 9)
    y = net.call(nn.BatchNorm1d(6), net.conv1d(net.x, 4, 6, 9), "norm")
    before = net.build(net.conv1d(net.call(nn.ReLU(), y), 6, 4, 9)).train()
    after = LiftRows()(before).graph_module
    assert before.state_dict().keys() == after.state_dict().keys()
    x = torch.randn(4, 4, 9, dtype=torch.float64)
    for graph_module in (before, after):
        graph_module(x)[0].square().sum().backward()
    for (name, a), b in zip(before.named_parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    for name, buffer in before.named_buffers():
        torch.testing.assert_close(buffer, after.get_buffer(name))


@st.composite
def one_dimensional(draw: st.DrawFn) -> fx.GraphModule:
    length, values = 9, []
    net = Rows(draw(st.integers(1, 2)), 4, length, seed=draw(st.integers(0, 99)))
    values = [net.conv1d(net.x, 4, 4, length)]
    for _ in range(draw(st.integers(1, 8))):
        x, other = values[-1], draw(st.sampled_from(values))
        step = draw(st.sampled_from(("conv", "norm", "relu", "add", "cut", "number", "cat")))
        if step == "conv":
            y = net.conv1d(x, 4, 4, length)
        elif step == "norm":
            y = net.call(nn.BatchNorm1d(4), x)
        elif step == "relu":
            y = net.call(nn.ReLU(), x)
        elif step == "add":
            y = net.add(x, other)
        elif step == "cut":
            y = net.pad(net.function(slice_dim, x, 2, 0, length - 2, 1), 2, 0)
        elif step == "number":
            y = net.function(operator.truediv, 1.0, net.add(net.function(torch.exp, x), 2.0))
        else:
            y = net.function(slice_dim, net.function(torch.cat, (x, other), 1), 1, 1, 5, 1)
        values.append(y)
    outputs = [values[-1], *([draw(st.sampled_from(values))] if draw(st.booleans()) else [])]
    return net.build(*outputs)


@settings(max_examples=80, deadline=None)
@given(one_dimensional())
def test_random_networks_compute_the_same(graph_module: fx.GraphModule) -> None:
    lifted(graph_module)


def test_a_dimension_counted_on_the_row_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Rows(2, 4, 9)
    row = net.conv1d(net.x, 4, 6, 9)
    y = net.function(operator.sub, row, net.function(mean, row, (2,), True))
    graph_module = net.build(y)
    monkeypatch.setattr(lift_rows, "_dim", lambda dim: dim)
    with pytest.raises(VerificationError):
        run_exact(LiftRows(), graph_module)
