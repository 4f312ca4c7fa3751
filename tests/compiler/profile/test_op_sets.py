"""Which operators a profile measures."""

import pytest
import torch
from torch import nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.keys import keyed
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.profile.op_files import op_file
from shrinkc.compiler.profile.op_sets import channel_widths, default_keys, network_keys
from shrinkc.latency_tables.key import OpKey


def block(channels: int, hidden: int, stride: int = 1) -> nn.Sequential:
    """MobileNetV2's, without its shortcut."""
    return nn.Sequential(
        *(nn.Conv2d(channels, hidden, 1), nn.ReLU6()),
        *(nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden), nn.ReLU6()),
        nn.Conv2d(hidden, channels, 1),
    )


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def program(*layers: nn.Module) -> ops.Program:
    network = nn.Sequential(*layers).eval()
    return lower(capture(network, (torch.zeros(1, 3, 32, 32),)))


NETWORK = program(
    *(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU6(), Residual(block(16, 96)), block(16, 64, 2)),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
)


@pytest.mark.parametrize(
    ("channels", "count", "expected"),
    [
        (64, 8, [64, 56, 48, 40, 32, 24, 16]),
        (24, 8, [24, 16, 8]),
        (96, 4, [96, 88, 56, 24]),
        (116, 3, [116, 112, 32]),
        (8, 8, [8]),
        (3, 8, [3]),
        (64, 1, [64]),
        (64, 2, [64, 56]),
    ],
)
def test_widths_are_multiples_of_eight_down_to_a_quarter(
    channels: int, count: int, expected: list[int]
) -> None:
    assert channel_widths(channels, count) == expected


def test_every_operator_of_the_network_comes_first() -> None:
    own = list(dict.fromkeys(key for _, key in keyed(NETWORK, "fp32")))
    assert network_keys(NETWORK, "fp32")[: len(own)] == own
    assert {key.precision for key in network_keys(NETWORK, "int8")} == {"int8"}


def test_input_and_output_vary_together_and_apart_but_given_ends_stay() -> None:
    keys = network_keys(NETWORK, "fp32")
    expand = {
        (k.in_channels, k.out_channels)
        for k in keys
        if k.op == "conv2d" and k.kernel == (1, 1) and k.in_size == (16, 16)
    }
    assert {(16, 96), (8, 24), (16, 48), (8, 96)} <= expand
    stems = [k for k in keys if k.in_size == (32, 32)]
    assert {k.in_channels for k in stems} == {3}
    assert {k.out_channels for k in keys if k.op == "linear"} == {10}
    assert {k.in_channels for k in keys if k.op == "linear"} == {16, 8}
    depthwise = {k.in_channels for k in keys if k.op == "depthwise_conv2d" and k.groups == 96}
    assert depthwise == {96}
    assert all(k.groups == k.in_channels for k in keys if k.op == "depthwise_conv2d")


def test_merged_blocks_are_dense_convolutions() -> None:
    keys = set(network_keys(NETWORK, "fp32", widths=1))
    maps = {"in_size": (16, 16), "out_size": (16, 16)}
    assert OpKey("conv2d", 16, 16, (3, 3), **maps) in keys  # the first block
    half = {"in_size": (16, 16), "out_size": (8, 8)}
    assert OpKey("conv2d", 16, 16, (3, 3), (2, 2), **half) in keys  # the second
    assert OpKey("conv2d", 16, 16, (5, 5), (2, 2), **half) in keys  # both, around the shortcut
    assert not [k for k in keys if max(k.kernel) > 7]


def test_one_width_is_the_network_and_its_merges() -> None:
    own = {key for _, key in keyed(NETWORK, "fp32")}
    more = set(network_keys(NETWORK, "fp32", widths=1)) - own
    assert more
    assert all(key.op == "conv2d" and key.groups == 1 for key in more)


def test_the_grid_is_about_700_operators_that_have_files() -> None:
    keys = default_keys("fp32")
    assert 500 <= len(keys) == len(set(keys)) <= 800
    kinds = {key.op for key in keys}
    assert {
        "conv2d",
        "depthwise_conv2d",
        "linear",
        "add",
        "mean",
        "max_pool",
        "hard_swish",
    } <= kinds
    assert {key.kernel for key in keys if key.op == "conv2d"} == {(k, k) for k in (1, 3, 5, 7)}
    smallest = {k.op: k for k in sorted(keys, key=lambda k: -k.macs - k.input_elements)}
    for key in smallest.values():
        assert op_file(key, "tflite").model
