"""Convolutions and pooling: every way of padding, with XNNPACK and without."""

import numpy as np
import pytest
from tflite_programs import Net, check

from shrinkc.compiler.export import ops

CONVS = [
    # in channels, size, out channels, kernel, options, operators
    (4, (9, 7), 6, (1, 1), {}, {"CONV_2D": 1}),
    (4, (9, 7), 6, (3, 3), {"pads": (1, 1, 1, 1)}, {"CONV_2D": 1}),
    (4, (9, 7), 6, (3, 3), {"stride": (2, 2), "pads": (1, 1, 1, 1)}, {"CONV_2D": 1}),
    (4, (8, 10), 6, (3, 3), {"stride": (2, 2), "pads": (1, 1, 1, 1)}, {"CONV_2D": 1, "PAD": 1}),
    (4, (8, 10), 6, (3, 3), {"stride": (2, 2), "pads": (0, 0, 1, 1)}, {"CONV_2D": 1}),
    (4, (8, 9), 6, (2, 3), {"stride": (2, 1), "pads": (0, 1, 0, 1)}, {"CONV_2D": 1}),
    (4, (8, 9), 6, (3, 3), {"pads": (2, 0, 0, 1)}, {"CONV_2D": 1, "PAD": 1}),
    (4, (8, 9), 6, (1, 1), {"stride": (2, 2)}, {"CONV_2D": 1}),
    (4, (8, 9), 6, (1, 5), {"pads": (0, 2, 0, 2)}, {"CONV_2D": 1}),
    (4, (11, 9), 6, (3, 3), {"dilation": (2, 3), "pads": (2, 3, 2, 3)}, {"CONV_2D": 1}),
    (4, (11, 9), 6, (3, 3), {"dilation": (2, 1), "pads": (1, 1, 2, 0)}, {"CONV_2D": 1, "PAD": 1}),
    (6, (8, 9), 9, (3, 3), {"groups": 3, "pads": (1, 1, 1, 1)}, {"CONV_2D": 1}),
    (6, (8, 9), 4, (3, 3), {"groups": 2, "stride": (2, 2)}, {"CONV_2D": 1}),
    (6, (8, 9), 6, (3, 3), {"groups": 6, "pads": (1, 1, 1, 1)}, {"DEPTHWISE_CONV_2D": 1}),
    (6, (8, 9), 18, (3, 3), {"groups": 6, "stride": (2, 2)}, {"DEPTHWISE_CONV_2D": 1}),
    (6, (8, 9), 6, (3, 3), {"groups": 6, "stride": (2, 1)}, {"DEPTHWISE_CONV_2D": 1}),
    (6, (9, 9), 12, (3, 3), {"groups": 6, "dilation": (2, 3)}, {"DEPTHWISE_CONV_2D": 1}),
    (1, (9, 9), 5, (3, 3), {"pads": (1, 1, 1, 1)}, {"CONV_2D": 1}),
]


@pytest.mark.parametrize("case", CONVS, ids=str)
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
def test_conv(case, activation: str) -> None:
    channels, size, outputs, kernel, options, operators = case
    net = Net((2, channels, *size))
    net.conv(net.x, outputs, kernel, activation=activation, **options)
    assert check(net.program()) == operators


TRANSPOSED = [
    (4, (5, 6), 3, (2, 2), {"stride": (2, 2)}, {"TRANSPOSE_CONV": 1}),
    (4, (5, 6), 3, (4, 4), {"stride": (2, 2), "pads": (1, 1, 1, 1)}, {"TRANSPOSE_CONV": 1}),
    (4, (5, 6), 3, (3, 3), {"stride": (2, 2)}, {"TRANSPOSE_CONV": 1}),
    (
        *(4, (5, 6), 3, (3, 3)),
        {"stride": (2, 2), "pads": (1, 1, 1, 1), "output_padding": (1, 1)},
        {"TRANSPOSE_CONV": 1, "SLICE": 1},
    ),
    (4, (5, 6), 3, (3, 3), {"stride": (2, 2), "output_padding": (1, 0)}, {"TRANSPOSE_CONV": 1}),
    (4, (5, 6), 3, (3, 2), {"stride": (3, 1), "pads": (0, 1, 1, 0)}, None),
    (4, (5, 6), 3, (3, 3), {"dilation": (2, 1), "pads": (1, 1, 1, 1)}, None),
    (4, (5, 6), 3, (1, 1), {"stride": (2, 2), "output_padding": (1, 1)}, {"TRANSPOSE_CONV": 1}),
    (4, (5, 6), 6, (3, 3), {"groups": 2, "stride": (2, 2), "pads": (1, 1, 1, 1)}, None),
    (4, (5, 6), 4, (4, 4), {"groups": 4, "stride": (2, 2), "pads": (1, 1, 1, 1)}, None),
    (4, (5, 6), 8, (2, 2), {"groups": 4, "stride": (2, 2), "pads": (1, 1, 0, 0)}, None),
    (4, (5, 6), 8, (3, 2), {"groups": 2, "stride": (1, 3), "output_padding": (0, 2)}, None),
    (4, (5, 6), 4, (1, 1), {"groups": 4, "stride": (2, 2), "pads": (2, 1, 2, 1)}, None),
    (4, (5, 6), 4, (3, 3), {"groups": 2, "dilation": (2, 2), "pads": (1, 1, 1, 1)}, None),
]


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
@pytest.mark.parametrize("activation", ["none", "relu6"])
def test_conv_transpose(case, activation: str) -> None:
    channels, size, outputs, kernel, options, operators = case
    net = Net((2, channels, *size))
    net.conv_transpose(net.x, outputs, kernel, activation=activation, **options)
    written = check(net.program())
    assert operators is None or written == operators


POOLS = [
    ((2, 2), (2, 2), (0, 0, 0, 0)),
    ((3, 3), (2, 2), (1, 1, 1, 1)),
    ((3, 2), (2, 1), (0, 0, 1, 0)),
    ((3, 3), (1, 1), (1, 1, 1, 1)),
    ((3, 3), (2, 2), (0, 0, 1, 1)),
    ((5, 4), (3, 2), (2, 1, 2, 2)),
    ((20, 3), (20, 1), (3, 1, 9, 1)),
    ((50, 60), (50, 60), (0, 0, 42, 53)),
    ((6, 5), (9, 9), (1, 0, 0, 0)),
]


@pytest.mark.parametrize("size", [(8, 10), (9, 7)], ids=str)
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_pools(size, pool) -> None:
    for kind, more in (
        (ops.MaxPool, {}),
        (ops.AvgPool, {"count_padding": True}),
        (ops.AvgPool, {"count_padding": False}),
    ):
        net = Net((2, 5, *size))
        net.pool(kind, net.x, *pool, **more)
        check(net.program())


def test_max_pool_behind_a_relu_pads_with_zeros() -> None:
    net = Net((1, 5, 8, 8))
    relu = net.conv(net.x, 4, pads=(1, 1, 1, 1), activation="relu")
    net.pool(ops.MaxPool, relu, (3, 3), (2, 2), (1, 1, 1, 1))
    assert check(net.program()) == {"CONV_2D": 1, "PAD": 1, "MAX_POOL_2D": 1}


def test_max_pool_of_negative_values_pads_below_them() -> None:
    net = Net((1, 5, 8, 8))
    shifted = net.binary(net.x, ops.Const("shift", np.array(-100, np.float32)))
    net.pool(ops.MaxPool, shifted, (3, 3), (2, 2), (1, 1, 1, 1))
    assert check(net.program()) == {"ADD": 1, "PADV2": 1, "MAX_POOL_2D": 1}


def test_a_difference_of_relus_may_be_negative() -> None:
    net = Net((1, 3, 8, 8))
    relu = net.unary(net.x, "relu")
    low = net.binary(relu, net.binary(relu, ops.Const("one", np.ones(1, np.float32))), "sub")
    net.pool(ops.MaxPool, low, (3, 3), (2, 2), (1, 1, 1, 1))
    assert check(net.program())["PADV2"] == 1


def test_average_that_does_not_count_padding_uses_same() -> None:
    net = Net((1, 5, 8, 8))
    net.pool(ops.AvgPool, net.x, (3, 3), (1, 1), (1, 1, 1, 1), count_padding=False)
    assert check(net.program()) == {"AVERAGE_POOL_2D": 1}


def test_channel_affine_is_one_operator_on_images() -> None:
    net = Net((2, 5, 4, 6))
    net.affine(net.x, activation="relu6")
    assert check(net.program()) == {"DEPTHWISE_CONV_2D": 1}


@pytest.mark.parametrize("shape", [(3, 5), (2, 5, 7), (2, 5, 2, 3, 4)])
def test_channel_affine_of_other_ranks(shape) -> None:
    net = Net(shape)
    net.affine(net.x, activation="relu")
    assert check(net.program()) == {"MUL": 1, "ADD": 1}
