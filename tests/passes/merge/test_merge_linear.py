"""What merges, what is declined and why, and how the price decides."""

from __future__ import annotations

import operator

import pytest
import torch
from hand_built import Net, modules_of, operations
from pass_checks import run_exact
from torch import fx, nn

from shrinkc.passes.analysis.linear.linear_segments import linear_segments
from shrinkc.passes.analysis.op_spec import OpSpec
from shrinkc.passes.base import PassResult
from shrinkc.passes.merge.merge_linear import MergeLinear


def merge(graph_module: fx.GraphModule, **options) -> tuple[PassResult, list[str]]:
    result = run_exact(MergeLinear(**options), graph_module)
    return result, operations(result.graph_module)


def only_conv(result: PassResult) -> nn.Conv2d:
    (conv,) = modules_of(result.graph_module, nn.Conv2d)
    return conv


def by_macs(spec: OpSpec) -> float:
    """A device on which a multiplication takes a microsecond and everything else nothing."""
    if spec.op not in ("conv2d", "depthwise_conv2d", "linear"):
        return 0.0
    taps = spec.kernel[0] * spec.kernel[1] * spec.in_channels // spec.groups
    return 1e-3 * taps * spec.out_channels * spec.out_size[0] * spec.out_size[1]


def by_count(spec: OpSpec) -> float:
    """A device on which every operator takes a millisecond."""
    return 1.0


# --- what merges ---------------------------------------------------------------------------------


def test_unpadded_three_by_threes_are_one_five_by_five() -> None:
    net = Net(2, 4, 9, 9)
    y = net.conv(net.conv(net.x, 4, 6, 3, name="a"), 6, 8, 3, name="b")
    result, left = merge(net.build(y))
    assert left == ["Conv2d"]
    assert only_conv(result).kernel_size == (5, 5)
    (change,) = result.changes
    assert (change.node, change.replaces) == ("b", ("a", "b"))
    assert change.detail == "2 nodes are one 5×5 convolution, stride 1×1"


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("second", [1, 2, 3])
def test_strides_multiply(first: int, second: int) -> None:
    net = Net(2, 4, 14, 13)
    y = net.conv(net.x, 4, 4, (3, 2), stride=first, padding=(2, 1))
    result, left = merge(net.build(net.conv(y, 4, 4, (2, 3), stride=second)))
    assert left == ["Conv2d"]
    assert only_conv(result).stride == (first * second,) * 2
    assert only_conv(result).kernel_size == (3 + (2 - 1) * first, 2 + (3 - 1) * first)


def test_one_by_one_keeps_the_dilation_of_the_other() -> None:
    net = Net(2, 4, 9, 9)
    y = net.conv(net.conv(net.x, 4, 8, 1), 8, 4, 3, dilation=3)
    result, _ = merge(net.build(y))
    assert (only_conv(result).kernel_size, only_conv(result).dilation) == ((3, 3), (3, 3))


@pytest.mark.parametrize(("inner", "outer", "groups"), [(2, 4, 2), (4, 4, 4), (1, 4, 1), (4, 1, 1)])
def test_groups(inner: int, outer: int, groups: int) -> None:
    net = Net(2, 8, 7, 7)
    y = net.conv(net.conv(net.x, 8, 12, 1, groups=inner), 12, 16, 3, groups=outer)
    assert only_conv(merge(net.build(y))[0]).groups == groups


def test_average_pooling_padding_constants_and_batch_norm_merge_along() -> None:
    net = Net(2, 4, 8, 8)
    y = net.pad(net.conv(net.x, 4, 4, 1, bias=False), 1, 0, 1, 2)
    y = net.function(operator.mul, y, net.constant(torch.rand(4, 1, 1)))
    y = net.function(operator.truediv, net.call(nn.AvgPool2d(3, 2), y), 3.0)
    y = net.function(operator.sub, 1.0, net.call(nn.BatchNorm2d(4), y))
    result, left = merge(net.build(net.call(nn.Dropout(), y)))
    assert left == ["pad", "Conv2d"]
    assert only_conv(result).kernel_size == (3, 3)
    assert result.changes[0].added == ("dropout_9_pad",)


@pytest.mark.parametrize("function", [operator.add, operator.sub])
def test_sums_and_differences_of_branches(function) -> None:
    net = Net(2, 4, 8, 8)
    a = net.conv(net.x, 4, 4, 5, padding=2)
    b = net.conv(net.x, 4, 4, (1, 3), padding=(0, 1), groups=2)
    y = net.function(function, net.function(function, a, b), net.x)
    result, left = merge(net.build(y))
    assert left == ["Conv2d"]
    assert only_conv(result).kernel_size == (5, 5)


def test_a_value_added_to_itself() -> None:
    net = Net(2, 4, 8, 8)
    a = net.conv(net.x, 4, 4, 3)
    assert merge(net.build(net.add(a, a)))[1] == ["Conv2d"]


def test_linear_layers() -> None:
    net = Net(2, 4)
    y = net.call(nn.Linear(32, 3, bias=False), net.call(nn.Linear(4, 32), net.x), "last")
    result, left = merge(net.build(y))
    assert left == ["Linear"]
    assert result.graph_module.last.weight.shape == (3, 4)
    assert result.changes[0].detail == "2 nodes are one linear layer"


def test_linear_layers_of_any_rank_with_residual_and_batch_norm() -> None:
    net = Net(2, 5, 3, 4)
    y = net.call(nn.Linear(8, 4), net.call(nn.Linear(4, 8), net.x))
    assert merge(net.build(net.add(net.x, y)))[1] == ["Linear"]
    net = Net(2, 4)
    y = net.call(nn.Linear(4, 4), net.call(nn.BatchNorm1d(4), net.call(nn.Linear(4, 4), net.x)))
    assert merge(net.build(y))[1] == ["Linear"]


def test_what_was_merged_stays_as_it_is() -> None:
    net = Net(2, 4, 8, 8)
    y = net.conv(net.conv(net.x, 4, 6, 1), 6, 6, 3, padding=1, groups=6)
    y = net.conv(net.pad(net.conv(y, 6, 4, 1), 0, 1, 0, 1), 4, 4, 1)
    result, _ = merge(net.build(y))
    assert result.modified
    again = MergeLinear()(result.graph_module)
    assert not again.modified


def test_a_map_that_was_added_before_merges_again() -> None:
    net = Net(2, 4, 8, 8)
    y = net.add(net.conv(net.x, 4, 4, 1), net.constant(torch.rand(1, 4, 8, 8)))
    result, left = merge(net.build(net.conv(y, 4, 4, 3)))
    assert left == ["Conv2d", "add"]
    assert result.changes[0].added == ("conv2d_4_conv", "conv2d_4_border")


def test_layers_keep_their_place_dtype_and_mode() -> None:
    net = Net(2, 4, 9, 9)
    graph_module = net.build(
        net.conv(net.conv(net.x, 4, 6, 3, name="a"), 6, 8, 3, name="b")
    ).float()
    graph_module.b.requires_grad_(False)
    new = MergeLinear()(graph_module).graph_module
    assert set(new.state_dict()) == {"b.weight", "b.bias"}
    assert new.b.weight.dtype == torch.float32
    assert not new.b.weight.requires_grad
    assert not new.b.training
    x = torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(new(x), graph_module(x), rtol=1e-4, atol=1e-4)


# --- what is declined ----------------------------------------------------------------------------


def refused(graph_module: fx.GraphModule, **options) -> list[str]:
    result, _ = merge(graph_module, **options)
    assert not result.modified
    return [skip.reason for skip in result.skipped]


def test_inner_zero_padding() -> None:
    net = Net(2, 4, 8, 8)
    y = net.conv(net.conv(net.x, 4, 4, 3, padding=1, name="a"), 4, 4, 3, padding=1, name="b")
    assert refused(net.build(y)) == [
        "inner zero padding of 'b' after a 3×3 kernel: "
        "move the padding to the first convolution before fine-tuning"
    ]


def test_padding_moved_to_the_first_convolution() -> None:
    net = Net(2, 4, 8, 8)
    y = net.conv(net.conv(net.x, 4, 4, 3, padding=2, name="a"), 4, 4, 3, name="b")
    result, left = merge(net.build(y))
    assert left == ["Conv2d"]
    assert only_conv(result).padding == (2, 2)


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        (nn.AvgPool2d(3, 1, 1, count_include_pad=False), "does not count its padding"),
        (nn.AvgPool2d(3, 2, ceil_mode=True), "last windows are smaller"),
    ],
)
def test_average_pooling_that_is_no_window_map(pool: nn.AvgPool2d, reason: str) -> None:
    net = Net(2, 4, 8, 8)
    y = net.conv(net.call(pool, net.conv(net.x, 4, 4, 1)), 4, 4, 1)
    graph_module = net.build(y)
    assert merge(graph_module)[1] == ["Conv2d", "AvgPool2d", "Conv2d"]
    blocked = linear_segments(graph_module).blocked
    assert any(reason in b.reason for b in blocked)


def test_average_pooling_options_that_change_nothing() -> None:
    net = Net(2, 4, 9, 9)
    pool = nn.AvgPool2d(3, 2, ceil_mode=True, count_include_pad=False, divisor_override=5)
    assert merge(net.build(net.call(pool, net.conv(net.x, 4, 4, 1))))[1] == ["Conv2d"]


def test_cropping() -> None:
    net = Net(2, 4, 8, 8)
    y = net.pad(net.conv(net.x, 4, 4, 1), -1, -1, -1, -1)
    assert refused(net.build(y)) == ["the merged convolution would have to crop its input"]


def test_padding_with_something_else_than_zeros() -> None:
    net = Net(2, 4, 8, 8)
    y = net.conv(net.pad(net.conv(net.x, 4, 4, 1), 1, 1, 1, 1, value=0.5), 4, 4, 3)
    assert merge(net.build(y))[1] == ["Conv2d", "pad", "Conv2d"]


def test_too_many_weights() -> None:
    net = Net(2, 8, 8, 8)
    y = net.conv(net.conv(net.x, 8, 2, 1), 2, 8, 1)
    (reason,) = refused(net.build(y), max_weight_elements=63)
    assert reason == "the merged layer would have 64 weights, more than 63"


def test_a_kernel_larger_than_its_input() -> None:
    net = Net(2, 4, 4, 4)
    y = net.conv(net.conv(net.x, 4, 4, 3, padding=2), 4, 4, 4)
    (reason,) = refused(net.build(y))
    assert reason == "the merged kernel would span 6 positions of an input of 4×4"


def test_what_blocks_is_said_once() -> None:
    net = Net(2, 4, 6, 6)
    a = net.conv(net.x, 4, 4, 1, name="a")
    y = net.conv(net.again(a, a), 4, 4, 1, name="b")
    reasons = refused(net.build(net.function(operator.mul, net.call(nn.Identity(), y), 2.0), y))
    assert reasons.count("'a_1': the module is called 2 times") == 1


# --- the price decides ---------------------------------------------------------------------------


def bottleneck() -> fx.GraphModule:
    """The end of one MobileNetV2 block and the start of the next: 24 → 4 → 24 channels."""
    net = Net(1, 24, 6, 6)
    project = net.conv(net.call(nn.ReLU6(), net.x), 24, 4, 1, name="project")
    expand = net.conv(project, 4, 24, 1, name="expand")
    return net.build(net.call(nn.ReLU6(), expand))


def test_a_linear_bottleneck_does_not_pay_by_macs() -> None:
    (reason,) = refused(bottleneck(), price=by_macs)
    assert reason == f"does not pay: {1e-3 * 36 * 192:.3g} → {1e-3 * 36 * 576:.3g} ms"


def test_a_linear_bottleneck_pays_by_operators_and_without_a_price() -> None:
    for options in ({"price": by_count}, {}):
        assert merge(bottleneck(), **options)[1] == ["ReLU6", "Conv2d", "ReLU6"]


def test_the_best_choice_is_not_the_greedy_one() -> None:
    """The whole chain saves most of all regions, its two halves together save more."""
    net = Net(1, 4, 6, 6)
    x = net.x
    for i, (inputs, outputs) in enumerate([(4, 8), (8, 1), (1, 8), (8, 4)]):
        x = net.conv(x, inputs, outputs, 1, name=f"c{i}")
    result, _ = merge(net.build(x), price=by_macs)
    # 80 multiplications a position become 16 as a whole, 4 + 4 as halves
    assert [c.replaces for c in result.changes] == [("c0", "c1"), ("c2", "c3")]


def test_a_border_map_is_paid_for() -> None:
    def expanded() -> fx.GraphModule:
        net = Net(1, 4, 6, 6)
        y = net.conv(net.x, 4, 4, 1)
        return net.build(net.conv(y, 4, 4, 3, padding=1))

    assert merge(expanded(), price=by_macs)[1] == ["Conv2d", "add"]
    (reason,) = refused(expanded(), price=by_count)
    assert reason == "does not pay: 2 → 2 ms"


def test_padding_in_front_of_a_convolution_is_no_region() -> None:
    net = Net(1, 4, 8, 8)
    y = net.conv(net.pad(net.x, 0, 1, 0, 1), 4, 4, 3, stride=2)
    assert refused(net.build(y)) == []
