"""Which regions are found, what they become and cost, and why there are not more."""

from __future__ import annotations

import operator

import torch
from hand_built import Net
from torch import fx, nn

from shrinkc.passes.analysis.linear.linear_op import ConstantPart
from shrinkc.passes.analysis.linear.linear_segments import LinearRegion, linear_segments
from shrinkc.passes.analysis.op_spec import OpSpec


def regions(
    graph_module: fx.GraphModule, *removable: str, **options: int
) -> dict[str, LinearRegion]:
    """Regions by "source>sink"."""
    found = linear_segments(graph_module, frozenset(removable), **options).regions
    return {f"{r.source}>{r.sink}": r for r in found}


def reasons(graph_module: fx.GraphModule) -> dict[str, str]:
    """Sink → the first reason that concerns something linear."""
    found: dict[str, str] = {}
    for blocked in linear_segments(graph_module).blocked:
        if blocked.linear:
            found.setdefault(blocked.sink, blocked.reason)
    return found


def chain(*kernels: int, padding: bool = False) -> Net:
    net = Net(1, 4, 9, 9)
    x = net.x
    for i, kernel in enumerate(kernels):
        x = net.conv(x, 4, 4, kernel, padding=kernel // 2 if padding else 0, name=f"c{i}")
    net.last = x
    return net


def test_regions_of_a_chain_are_all_its_stretches() -> None:
    net = chain(1, 3, 1)
    found = regions(net.build(net.last))
    assert set(found) == {"x>c1", "c0>c2", "x>c2"}
    assert found["x>c2"].nodes == ("c0", "c1", "c2")
    assert found["x>c2"].window.kernel == (3, 3)
    assert (found["x>c2"].in_size, found["x>c2"].out_size) == ((9, 9), (7, 7))


def test_length_is_limited() -> None:
    net = chain(1, 1, 1, 1, 1)
    found = regions(net.build(net.last), max_nodes=3)
    assert max(len(r.nodes) for r in found.values()) == 3


def block(activation: type[nn.Module] = nn.ReLU6, padding_first: bool = False) -> fx.GraphModule:
    """An inverted residual, 4 → 8 → 8 → 4 channels, and an activation behind it."""
    net = Net(1, 4, 6, 6)
    a = net.conv(net.x, 4, 8, 1, padding=int(padding_first), name="expand")
    a = net.call(activation(), a, "act1")
    b = net.conv(a, 8, 8, 3, padding=int(not padding_first), groups=8, name="depthwise")
    b = net.call(activation(), b, "act2")
    c = net.conv(b, 8, 4, 1, name="project")
    return net.build(net.call(nn.ReLU(), net.add(net.x, c), "after"))


def test_an_activation_ends_a_region() -> None:
    assert regions(block()) == {}


def test_removable_activations_open_the_block() -> None:
    found = regions(block(), "act1", "act2")
    region = found["x>add"]
    assert region.removed == ("act1", "act2")
    assert region.window.kernel == (3, 3)
    assert region.window.pad == (1, 1)
    assert region.window.groups == 1
    assert region.constant == ConstantPart.MAP
    # a region never starts with an activation: removing it would merge nothing
    assert "expand>depthwise" not in found
    assert "x>depthwise" in found


def test_padding_moved_to_the_first_convolution_needs_no_map() -> None:
    region = regions(block(padding_first=True), "act1", "act2")["x>add"]
    assert region.window.pad == (1, 1)
    assert region.constant == ConstantPart.UNIFORM
    assert len(region.after) == 1


def test_costs_before_and_after_speak_of_deployed_operators() -> None:
    region = regions(block(nn.ReLU6), "act1", "act2")["x>add"]
    six = (6, 6)
    assert region.before == (
        OpSpec("conv2d", 4, 8, in_size=six, out_size=six, activation="relu6"),
        OpSpec(
            *("depthwise_conv2d", 8, 8, (3, 3)),
            groups=8,
            in_size=six,
            out_size=six,
            activation="relu6",
        ),
        OpSpec("conv2d", 8, 4, in_size=six, out_size=six),
        OpSpec("add", 4, 4, in_size=six, out_size=six, activation="relu"),
    )
    assert region.after == (
        OpSpec("conv2d", 4, 4, (3, 3), in_size=six, out_size=six),
        OpSpec("add", 4, 4, in_size=six, out_size=six, activation="relu"),
    )


def test_activations_that_do_not_fuse_cost_an_operator() -> None:
    region = regions(block(nn.Hardswish), "act1", "act2")["x>add"]
    assert [spec.op for spec in region.before] == [
        *("conv2d", "hard_swish", "depthwise_conv2d", "hard_swish", "conv2d", "add")
    ]


def test_squeeze_and_excite_blocks_with_a_reason() -> None:
    net = Net(1, 4, 6, 6)
    y = net.conv(net.x, 4, 4, 1, name="a")
    gate = net.call(nn.Sigmoid(), net.call(nn.AdaptiveAvgPool2d(1), y), "gate")
    scaled = net.function(operator.mul, y, gate)
    graph_module = net.build(net.conv(scaled, 4, 4, 1, name="b"))
    assert regions(graph_module) == {}
    ends = {b.sink: b.reason for b in linear_segments(graph_module).blocked}
    assert ends["b"] == "'mul': it is a product of two computed values"


def test_an_output_with_two_users_is_no_inside() -> None:
    net = Net(1, 4, 6, 6)
    a = net.conv(net.x, 4, 4, 1, name="a")
    b = net.conv(a, 4, 4, 1, name="b")
    graph_module = net.build(b, net.call(nn.ReLU(), a))
    assert regions(graph_module) == {}
    assert reasons(graph_module) == {"b": "the output of 'a' has 2 users"}


def test_two_sources() -> None:
    net = Net(1, 4, 6, 6)
    left = net.call(nn.ReLU(), net.x, "left")
    a = net.conv(left, 4, 4, 1, name="a")
    graph_module = net.build(net.add(net.x, net.conv(a, 4, 4, 1, name="b")))
    assert set(regions(graph_module)) == {"left>b"}
    ends = {b.sink: b.reason for b in linear_segments(graph_module).blocked}
    assert ends["add"].startswith("2 sources ('x', 'left')")


def test_a_module_called_twice_and_a_shared_parameter() -> None:
    net = Net(1, 4, 6, 6)
    a = net.conv(net.x, 4, 4, 1, name="a")
    graph_module = net.build(net.conv(net.again(a, a), 4, 4, 1, name="b"))
    assert regions(graph_module) == {}
    assert reasons(graph_module)["b"] == "'a_1': the module is called 2 times"
    net = chain(1, 1)
    net.root.c1.weight = net.root.c0.weight
    graph_module = net.build(net.last)
    assert regions(graph_module) == {}
    assert reasons(graph_module) == {"c1": "'c1': its weight is shared: c0.weight and c1.weight"}


def test_a_transposed_convolution() -> None:
    net = Net(1, 4, 6, 6)
    up = net.call(nn.ConvTranspose2d(4, 4, 2, 2), net.conv(net.x, 4, 4, 1, name="a"), "up")
    graph_module = net.build(net.conv(up, 4, 4, 1, name="b"))
    assert regions(graph_module) == {}
    assert reasons(graph_module)["b"] == "'up': a transposed convolution is not a window map"


def test_branches_of_different_stride() -> None:
    net = Net(1, 4, 6, 1)
    a = net.conv(net.x, 4, 4, (2, 1), stride=(2, 1), name="a")
    b = net.conv(net.x, 4, 4, (4, 1), name="b")
    graph_module = net.build(net.add(a, b))
    assert regions(graph_module) == {}
    assert "strides (2, 1) and (1, 1) differ" in reasons(graph_module)["add"]


def test_layouts_do_not_mix() -> None:
    """A linear layer on the last of four dimensions and a 1×1 convolution on the second."""
    net = Net(1, 4, 6, 4)
    a = net.call(nn.Linear(4, 4), net.x, "a")
    graph_module = net.build(net.add(net.conv(a, 4, 4, 1, name="b"), 1.0))
    assert set(regions(graph_module)) == {"a>add"}
    assert reasons(graph_module)["b"] == "'a': a linear layer between convolutions"


def test_linear_layers_of_any_rank() -> None:
    net = Net(1, 5, 7, 4)
    a = net.call(nn.Linear(4, 8), net.x, "a")
    gain = net.constant(torch.rand(8), "gain")
    b = net.call(nn.Linear(8, 4), net.function(operator.mul, a, gain), "b")
    region = regions(net.build(net.add(net.x, b)))["x>add"]
    assert region.layout == "linear"
    assert region.before[0] == OpSpec("linear", 4, 8, in_size=(35, 1), out_size=(35, 1))
    assert region.after == (OpSpec("linear", 4, 4, in_size=(35, 1), out_size=(35, 1)),)


def test_elementwise_nodes_alone_are_no_region() -> None:
    net = Net(1, 4, 6, 6)
    y = net.call(nn.BatchNorm2d(4), net.call(nn.AvgPool2d(2), net.x))
    assert regions(net.build(net.add(y, 1.0))) == {}
