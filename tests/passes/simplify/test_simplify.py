"""Every rule of simplify: what is left, that it computes the same, and what is declined."""

from __future__ import annotations

import operator

import pytest
import torch
from hand_built import Net, modules_of, operations
from pass_checks import run_exact
from torch import nn

from shrinkc.passes.ir import batch_expand, slice_dim
from shrinkc.passes.simplify.simplify import Simplify


def simplified(net: Net, *outputs):
    result = run_exact(Simplify(), net.build(*outputs))
    return result, operations(result.graph_module)


def test_what_does_nothing_goes() -> None:
    net = Net(2, 4, 6, 6)
    x = net.call(nn.Identity(), net.x)
    x = net.call(nn.Dropout(0.5), x)
    x = net.function(operator.add, x, 0)
    x = net.function(operator.add, 0.0, x)
    x = net.function(operator.sub, x, 0)
    x = net.function(operator.mul, 1, x)
    x = net.function(operator.truediv, x, 1.0)
    x = net.function(operator.pow, x, 1)
    x = net.function(torch.reshape, x, (-1, 4, 6, 6))
    x = net.function(torch.permute, x, (0, 1, 2, 3))
    x = net.function(slice_dim, x, 1, 0, 4, 1)
    x = net.function(torch.cat, (x,), 1)
    x = net.pad(x, 0, 0, 0, 0)
    result, left = simplified(net, net.call(nn.ReLU(), x))
    assert left == ["ReLU"]
    assert len(result.changes) == 13
    assert all(change.node == "x" for change in result.changes)


def test_what_looks_alike_and_does_something_stays() -> None:
    net = Net(2, 4, 6, 6)
    x = net.function(operator.sub, 0, net.x)
    x = net.function(operator.truediv, 1, net.function(operator.add, x, 9.0))
    x = net.function(torch.permute, x, (0, 1, 3, 2))
    x = net.function(slice_dim, x, 2, 0, 6, 2)
    result, left = simplified(net, x)
    assert not result.modified
    assert left == ["sub", "add", "truediv", "permute", "slice_dim"]


def test_a_reshape_that_is_the_same_at_one_batch_size_only_stays() -> None:
    """(1, 1, 4) → (1, −1, 4): at batch 2 it moves the batch to the second dimension."""
    net = Net(1, 1, 4)
    result, left = simplified(net, net.function(torch.reshape, net.x, (1, -1, 4)))
    assert left == ["reshape"]
    assert not result.modified


def test_reshape_of_reshape_and_permute_of_permute() -> None:
    net = Net(2, 4, 6, 6)
    x = net.function(torch.reshape, net.x, (-1, 2, 2, 36))
    x = net.function(torch.reshape, x, (-1, 12, 12))
    x = net.function(torch.permute, x, (0, 2, 1))
    x = net.function(torch.permute, x, (1, 0, 2))
    result, left = simplified(net, x)
    assert left == ["reshape", "permute"]
    assert {c.replaces for c in result.changes} == {
        ("reshape", "reshape_1"),
        ("permute", "permute_1"),
    }


def test_there_and_back_is_nothing() -> None:
    net = Net(2, 4, 6, 6)
    x = net.function(torch.permute, net.x, (0, 2, 3, 1))
    x = net.function(torch.permute, x, (0, 3, 1, 2))
    x = net.function(torch.reshape, x, (-1, 144))
    x = net.function(torch.reshape, x, (-1, 4, 6, 6))
    _, left = simplified(net, net.call(nn.ReLU(), x))
    assert left == ["ReLU"]


def test_a_reshape_that_others_read_stays() -> None:
    net = Net(2, 4, 6, 6)
    flat = net.function(torch.reshape, net.x, (-1, 144))
    result, left = simplified(net, net.function(torch.reshape, flat, (-1, 2, 72)), flat)
    assert left == ["reshape", "reshape"]
    assert result.changes[0].replaces == ("reshape_1",)


def test_an_identity_that_branches_read() -> None:
    net = Net(2, 4, 6, 6)
    same = net.call(nn.Identity(), net.x)
    again = net.call(nn.Identity(), same)
    _, left = simplified(net, net.add(net.call(nn.ReLU(), same), again), again)
    assert left == ["ReLU", "add"]


def test_constants_are_folded_and_plain_parameters_stay() -> None:
    net = Net(2, 4, 6, 6)
    position = net.constant(torch.rand(1, 6, 6, 4), "position")
    moved = net.function(torch.permute, position, (0, 3, 1, 2))
    doubled = net.function(operator.mul, moved, 2.0)
    bias = net.constant(torch.rand(4, 1, 1), "bias")
    x = net.add(net.add(net.x, doubled), bias)
    result, left = simplified(net, x)
    assert left == ["add", "add"]
    parameters = dict(result.graph_module.named_parameters())
    assert set(parameters) == {"bias"}
    assert [name for name, _ in result.graph_module.named_buffers()] == ["mul"]
    (change,) = result.changes
    assert change.node == "mul"
    assert change.replaces == ("position", "permute", "mul")


def test_a_module_on_a_constant_is_folded() -> None:
    net = Net(2, 4, 6, 6)
    token = net.call(nn.LayerNorm(6), net.constant(torch.rand(1, 1, 6, 6)))
    x = net.function(torch.cat, (net.x, net.function(batch_expand, token, net.x)), 1)
    result, left = simplified(net, x)
    assert left == ["batch_expand", "cat"]
    assert not modules_of(result.graph_module, nn.LayerNorm)


def test_dead_code_and_what_only_it_used() -> None:
    net = Net(2, 4, 6, 6)
    dead = net.add(net.conv(net.x, 4, 4, 1, name="dead"), net.constant(torch.ones(1), "unread"))
    net.call(nn.ReLU(), dead)
    result, left = simplified(net, net.conv(net.x, 4, 4, 3, name="conv"))
    assert left == ["Conv2d"]
    assert set(result.graph_module.state_dict()) == {"conv.weight", "conv.bias"}


@pytest.mark.parametrize("own", [0, 1, 2])
def test_symmetric_padding_moves_into_the_convolution(own: int) -> None:
    net = Net(2, 4, 6, 6)
    padded = net.pad(net.x, 1, 1, 2, 2)
    result, left = simplified(net, net.conv(padded, 4, 4, 3, padding=own, stride=2))
    assert left == ["Conv2d"]
    (conv,) = modules_of(result.graph_module, nn.Conv2d)
    assert conv.padding == (2 + own, 1 + own)


def test_other_padding_stays() -> None:
    def left(*amounts: int, value: float = 0.0, users: int = 1) -> list[str]:
        net = Net(2, 4, 6, 6)
        padded = net.pad(net.x, *amounts, value=value)
        extra = [padded] if users > 1 else []
        return simplified(
            net, net.conv(padded, amounts[-1] if len(amounts) == 6 else 4, 4, 3), *extra
        )[1]

    assert left(0, 1, 0, 1) == ["pad", "Conv2d"]
    assert left(1, 1, 1, 1, value=0.5) == ["pad", "Conv2d"]
    assert left(-1, -1, 1, 1) == ["pad", "Conv2d"]
    assert left(1, 1, 1, 1, users=2) == ["pad", "Conv2d"]


def test_padding_of_a_convolution_called_twice_is_declined() -> None:
    net = Net(2, 4, 6, 6)
    first = net.conv(net.pad(net.x, 1, 1, 1, 1), 4, 4, 3, name="conv")
    result, left = simplified(net, net.again(first, first))
    assert left == ["pad", "Conv2d", "Conv2d"]
    assert result.skipped[0].node == "conv"
    assert "called 2 times" in result.skipped[0].reason


GAINS = {
    "three dimensions": (operator.mul, (6, 1, 1)),
    "four dimensions": (operator.mul, (1, 6, 1, 1)),
    "one number": (operator.mul, (1,)),
    "divided": (operator.truediv, (6, 1, 1)),
    "added": (operator.add, (6, 1, 1)),
    "subtracted": (operator.sub, (1, 6, 1, 1)),
}


@pytest.mark.parametrize("case", GAINS)
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_constants_behind_a_convolution_move_into_it(case: str, kind: type[nn.Module]) -> None:
    function, shape = GAINS[case]
    net = Net(2, 4, 6, 6)
    gain = net.constant(torch.rand(shape) + 0.5)
    y = net.function(function, net.call(kind(4, 6, 3, padding=1, groups=2), net.x, "layer"), gain)
    result, left = simplified(net, net.call(nn.ReLU(), y))
    assert left == [kind.__name__, "ReLU"]
    assert result.changes[0].node == "layer"
    assert result.changes[0].replaces[-1] == y.name


def test_numbers_and_reversed_operands_move_too() -> None:
    net = Net(2, 4, 6, 6)
    y = net.conv(net.x, 4, 6, 3, bias=False)
    y = net.function(operator.sub, 3.0, net.function(operator.mul, 2, y))
    y = net.function(operator.neg, y)
    _, left = simplified(net, y)
    assert left == ["Conv2d"]


def test_layer_scale_behind_a_linear_layer() -> None:
    net = Net(2, 5, 5, 4)
    y = net.function(operator.mul, net.call(nn.Linear(4, 6), net.x), net.constant(torch.rand(6)))
    _, left = simplified(net, y)
    assert left == ["Linear"]


def test_constants_that_are_not_per_channel_stay() -> None:
    net = Net(2, 4, 6, 6)
    y = net.conv(net.x, 4, 6, 1)
    y = net.function(operator.mul, y, net.constant(torch.rand(1, 6, 6, 6)))
    z = net.conv(net.x, 4, 6, 1)
    z = net.add(z, net.constant(torch.rand(6, 6)))
    result, left = simplified(net, y, z)
    assert left == ["Conv2d", "mul", "Conv2d", "add"]
    assert not result.modified


def test_constants_behind_a_layer_that_others_need_are_declined() -> None:
    net = Net(2, 4, 6, 6)
    two_users = net.conv(net.x, 4, 6, 1, name="two_users")
    twice = net.conv(net.x, 4, 4, 1, name="twice")
    a = net.function(operator.mul, two_users, 2.0)
    b = net.function(operator.mul, net.again(twice, twice), 2.0)
    result, _ = simplified(net, a, two_users, b)
    assert [(s.node, s.reason) for s in result.skipped] == [
        ("mul", "the constant cannot move into 'two_users': its output has 2 users"),
        ("mul_1", "the constant cannot move into 'twice_1': the module is called 2 times"),
    ]


def test_one_node_that_does_the_work_of_several_is_one_change() -> None:
    net = Net(2, 4, 6, 6)
    y = net.call(nn.Identity(), net.conv(net.pad(net.x, 1, 1, 1, 1), 4, 4, 3, name="conv"), "same")
    y = net.function(operator.mul, y, net.constant(torch.rand(4, 1, 1), "gain"))
    result, _ = simplified(net, y)
    (change,) = result.changes
    assert change.node == "conv"
    assert sorted(change.replaces) == ["conv", "gain", "mul", "pad", "same"]
    assert change.replaces[-1] == "mul"


def test_float32_stays_float32() -> None:
    net = Net(2, 4, 6, 6)
    y = net.function(operator.mul, net.conv(net.x, 4, 4, 3), net.constant(torch.rand(4, 1, 1)))
    graph_module = net.build(y).float()
    new = Simplify()(graph_module).graph_module
    assert {t.dtype for t in new.state_dict().values()} == {torch.float32}
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(new(x), graph_module(x), rtol=1e-5, atol=1e-5)
