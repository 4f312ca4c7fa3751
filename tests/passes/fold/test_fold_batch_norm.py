"""Batch norm folded in front and behind; every refusal with its reason."""

from __future__ import annotations

import pytest
import torch
from hand_built import Net, operations
from pass_checks import run_exact
from torch import fx, nn

from shrinkc.passes.base import PassResult
from shrinkc.passes.fold.fold_batch_norm import FoldBatchNorm


def fold(graph_module: fx.GraphModule) -> tuple[PassResult, list[str]]:
    result = run_exact(FoldBatchNorm(), graph_module)
    return result, operations(result.graph_module)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_convolution_then_batch_norm(
    kind: type[nn.Module], groups: int, bias: bool, affine: bool
) -> None:
    net = Net(2, 4, 6, 6)
    conv = kind(4, 8, 3, stride=2, padding=1, groups=groups, bias=bias)
    norm = net.call(nn.BatchNorm2d(8, affine=affine), net.call(conv, net.x, "conv"), "norm")
    result, left = fold(net.build(net.call(nn.ReLU(), norm)))
    assert left == [kind.__name__, "ReLU"]
    (change,) = result.changes
    assert (change.node, change.replaces) == ("conv", ("conv", "norm"))


@pytest.mark.parametrize("bias", [True, False])
def test_linear_layer_then_batch_norm(bias: bool) -> None:
    net = Net(3, 4)
    y = net.call(nn.BatchNorm1d(8), net.call(nn.Linear(4, 8, bias=bias), net.x))
    assert fold(net.build(y))[1] == ["Linear"]


def test_two_batch_norms_in_a_row() -> None:
    net = Net(2, 4, 6, 6)
    y = net.call(nn.BatchNorm2d(4), net.conv(net.x, 4, 4, 3, name="conv"), "one")
    result, left = fold(net.build(net.call(nn.BatchNorm2d(4), y, "two")))
    assert left == ["Conv2d"]
    assert result.changes[0].replaces == ("conv", "one", "two")


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_before_a_convolution_without_padding(groups: int, bias: bool) -> None:
    net = Net(2, 4, 6, 6)
    y = net.call(nn.BatchNorm2d(4), net.call(nn.ReLU(), net.x), "norm")
    y = net.conv(y, 4, 8, 3, groups=groups, bias=bias, name="conv")
    result, left = fold(net.build(y))
    assert left == ["ReLU", "Conv2d"]
    assert result.changes[0].replaces == ("norm", "conv")


def test_batch_norm_before_a_linear_layer() -> None:
    net = Net(3, 4)
    y = net.call(nn.Linear(4, 8), net.call(nn.BatchNorm1d(4), net.x))
    assert fold(net.build(y))[1] == ["Linear"]


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_zero_padding_that_would_see_the_shift_is_refused(kind: type[nn.Module]) -> None:
    net = Net(2, 4, 6, 6)
    y = net.call(nn.BatchNorm2d(4), net.x, "norm")
    result, left = fold(net.build(net.call(kind(4, 4, 3, padding=1), y, "conv")))
    assert left == ["BatchNorm2d", kind.__name__]
    (skip,) = result.skipped
    assert skip.node == "norm"
    assert skip.reason.endswith("the zero padding of 'conv' would see the shift")


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_padding_sees_no_shift_where_there_is_none(kind: type[nn.Module]) -> None:
    net = Net(2, 4, 6, 6)
    norm = net.call(nn.BatchNorm2d(4), net.x, "norm")
    graph_module = net.build(net.call(kind(4, 4, 3, padding=1), norm))
    with torch.no_grad():
        graph_module.norm.bias.zero_()
        graph_module.norm.running_mean.zero_()
    assert fold(graph_module)[1] == [kind.__name__]


def refusal(graph_module: fx.GraphModule) -> str:
    """The reason of the only batch norm, which must be where it was."""
    result, left = fold(graph_module)
    assert not result.modified
    assert any(name.startswith("BatchNorm") for name in left)
    (skip,) = result.skipped
    return skip.reason


def test_convolution_called_twice() -> None:
    net = Net(2, 4, 6, 6)
    conv = net.conv(net.x, 4, 4, 3, padding=1, name="conv")
    norm = net.call(nn.BatchNorm2d(4), conv, "norm")
    graph_module = net.build(net.again(conv, norm))
    reason = refusal(graph_module)
    assert "'conv' cannot change: the module is called 2 times" in reason
    assert "the zero padding of 'conv_1' would see the shift" in reason


def test_shared_parameter() -> None:
    net = Net(2, 4, 6, 6)
    a = net.conv(net.x, 4, 4, 1, bias=False, name="a")
    b = net.conv(a, 4, 4, 1, bias=False, name="b")
    net.root.b.weight = net.root.a.weight
    norm = net.call(nn.BatchNorm2d(4), b)
    reason = refusal(net.build(net.call(nn.ReLU(), norm)))
    assert "'b' cannot change: its weight is shared: a.weight and b.weight" in reason


def test_convolution_with_two_users() -> None:
    net = Net(2, 4, 6, 6)
    conv = net.conv(net.x, 4, 4, 3, name="conv")
    norm = net.call(nn.BatchNorm2d(4), conv)
    assert "the output of 'conv' has 2 users" in refusal(net.build(net.add(conv, norm)))


def test_batch_norm_with_two_users() -> None:
    net = Net(2, 4, 6, 6)
    norm = net.call(nn.BatchNorm2d(4), net.call(nn.ReLU(), net.x))
    graph_module = net.build(net.conv(norm, 4, 4, 1), norm)
    assert "its own output has 2 users" in refusal(graph_module)


def test_nothing_to_fold_into() -> None:
    net = Net(2, 4, 6, 6)
    norm = net.call(nn.BatchNorm2d(4), net.call(nn.ReLU(), net.x, "before"))
    reason = refusal(net.build(net.call(nn.ReLU(), norm, "after")))
    assert reason == (
        "in front is 'before', no convolution or linear layer; "
        "behind is 'after', no convolution or linear layer"
    )


def test_variance_that_is_not_positive() -> None:
    net = Net(2, 4, 6, 6)
    norm = net.call(nn.BatchNorm2d(4), net.conv(net.x, 4, 4, 1), "norm")
    graph_module = net.build(norm)
    graph_module.norm.running_var[1] = -1.0
    result = FoldBatchNorm()(graph_module)
    assert result.skipped[0].reason == "running variance + eps is not positive in every channel"
    assert operations(result.graph_module) == ["Conv2d", "BatchNorm2d"]


def test_no_running_statistics() -> None:
    net = Net(2, 4, 6, 6)
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    reason = refusal(net.build(net.call(norm, net.conv(net.x, 4, 4, 1))))
    assert reason == "batch norm without running statistics"


def test_batch_norm_on_another_dimension_than_the_features() -> None:
    net = Net(2, 6, 4)
    norm = net.call(nn.BatchNorm1d(6), net.call(nn.Linear(4, 8), net.x, "front"))
    reason = refusal(net.build(net.call(nn.Linear(8, 4), norm)))
    assert "dimension 1 of 'front', not the features" in reason
    assert "the linear layer behind reads the last" in reason


def test_float32_stays_float32() -> None:
    net = Net(2, 4, 6, 6)
    graph_module = net.build(net.call(nn.BatchNorm2d(8), net.conv(net.x, 4, 8, 3))).float()
    new = FoldBatchNorm()(graph_module).graph_module
    assert {t.dtype for t in new.state_dict().values()} == {torch.float32}
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(new(x), graph_module(x), rtol=1e-4, atol=1e-4)
