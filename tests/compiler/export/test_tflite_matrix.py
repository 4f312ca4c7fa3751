"""Linear, MatMul, reductions, softmax, layer norm, resizing."""

import numpy as np
import pytest
from tflite_programs import Net, check

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.errors import UnsupportedOperatorError


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 2, 5), (1, 1)])
@pytest.mark.parametrize("features", [1, 4])
def test_linear(shape, features: int) -> None:
    net = Net(shape)
    net.linear(net.x, features, activation="relu")
    moved = {"TRANSPOSE": 2} if len(shape) == 4 and features > 1 else {}
    if len(shape) == 4 and features == 1:
        moved = {"TRANSPOSE": 1, "RESHAPE": 1}
    assert check(net.program()) == {"FULLY_CONNECTED": 1, **moved}


@pytest.mark.parametrize("batch", [1, 2])
def test_flatten_permutes_the_weight_instead_of_the_image(batch: int) -> None:
    net = Net((batch, 3, 4, 5))
    relu = net.unary(net.reshape(net.x, batch, 60), "relu")
    net.linear(relu, 7)
    assert check(net.program()) == {"RELU": 1, "FULLY_CONNECTED": 1}


def test_flatten_of_height_and_width_alone() -> None:
    net = Net((2, 3, 4, 5))
    tokens = net.transpose(net.reshape(net.x, 2, 3, 20), 0, 2, 1)
    net.linear(tokens, 7)
    assert check(net.program()) == {"FULLY_CONNECTED": 1, "RESHAPE": 1}


def test_linear_of_factors_that_lie_apart() -> None:
    net = Net((2, 3, 4, 6))
    heads = net.reshape(net.transpose(net.x, 0, 2, 1, 3), 2, 4, 18)
    net.linear(net.unary(heads, "relu"), 5)
    assert check(net.program())["FULLY_CONNECTED"] == 1


def test_linear_of_windows_and_heads() -> None:
    """All dimensions of the input have factors that lie apart."""
    net = Net((2, 2, 4, 6, 3))
    heads = net.transpose(net.reshape(net.x, 2, 2, 2, 2, 2, 3, 3), 0, 2, 4, 3, 5, 1, 6)
    net.linear(net.reshape(heads, 2, 24, 6), 5)
    assert check(net.program())["FULLY_CONNECTED"] == 1


def test_linear_after_pooling_to_one_pixel() -> None:
    net = Net((2, 6, 4, 5))
    pooled = net.reduce(net.x, "mean", (2, 3))
    net.linear(net.reshape(pooled, 2, 6), 7)
    assert check(net.program()) == {"MEAN": 1, "FULLY_CONNECTED": 1}


MATMULS = [
    ((3, 4), (4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((2, 3, 4), (4, 5)),
    ((3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (5, 4, 6)),
    ((2, 5, 3, 4), (2, 5, 4, 6)),
    ((2, 1, 2, 3, 4), (3, 1, 4, 6)),
]


@pytest.mark.parametrize("shapes", MATMULS, ids=str)
def test_matmul(shapes) -> None:
    first, second = shapes
    net = Net(first, second)
    left, right = net.const(*first), net.const(*second)
    outputs = [
        net.matmul(*net.inputs),
        net.matmul(net.inputs[0], right),
        net.matmul(left, net.inputs[1]),
    ]
    check(net.program(*outputs))


def test_transposed_factors_need_no_operator() -> None:
    net = Net((2, 3, 4), (2, 5, 4), (2, 4, 3))
    a, b, c = net.inputs
    outputs = [net.matmul(a, net.transpose(b, 0, 2, 1)), net.matmul(net.transpose(c, 0, 2, 1), c)]
    assert check(net.program(*outputs)) == {"BATCH_MATMUL": 2}


def test_attention() -> None:
    """Two heads on an image's pixels, as vision transformers write it."""
    net = Net((2, 8, 3, 4))
    tokens = net.transpose(net.reshape(net.x, 2, 8, 12), 0, 2, 1)
    qkv = net.reshape(net.linear(tokens, 24), 2, 12, 3, 2, 4)
    heads = net.transpose(qkv, 2, 0, 3, 1, 4)
    q, k, v = (net.reshape(net.slice(heads, 0, i, i + 1), 2, 2, 12, 4) for i in range(3))
    scores = net.softmax(net.matmul(q, net.transpose(k, 0, 1, 3, 2)), 3)
    mixed = net.transpose(net.matmul(scores, v), 0, 2, 1, 3)
    net.linear(net.reshape(mixed, 2, 12, 8), 8)
    written = check(net.program())
    assert written["TRANSPOSE"] == 4


@pytest.mark.parametrize("kind", ["mean", "sum", "max"])
@pytest.mark.parametrize("keepdims", [True, False])
def test_reduce(kind: str, keepdims: bool) -> None:
    for shape, axes in (
        ((2, 3, 4, 5), (2, 3)),
        ((2, 3, 4, 5), (1,)),
        ((2, 3, 4, 5), (0, 2)),
        ((2, 3, 4, 5), (3, 1)),
        ((2, 3, 4), (1,)),
        ((2, 3, 2, 2, 3), (1, 2, 4)),
        ((7,), (0,)),
    ):
        net = Net(shape)
        net.reduce(net.x, kind, axes, keepdims)
        assert check(net.program())["TRANSPOSE"] <= (not keepdims)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((2, 7), 1), ((2, 7), 0), ((2, 3, 4, 5), 1), ((2, 3, 4, 5), 3), ((2, 3, 2, 2, 4), 2)],
)
def test_softmax(shape, axis: int) -> None:
    net = Net(shape)
    net.softmax(net.x, axis)
    check(net.program(), scale=20.0)


@pytest.mark.parametrize(
    ("shape", "dims"),
    [((3, 8), 1), ((2, 5, 8), 1), ((2, 3, 4, 8), 1), ((2, 3, 4, 8), 3), ((2, 3, 2, 2, 4), 2)],
)
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_layer_norm(shape, dims: int, offset: float) -> None:
    net = Net(shape)
    shifted = net.binary(net.x, ops.Const("offset", np.array(offset, np.float32)))
    net.layer_norm(shifted, dims)
    check(net.program(), tolerance=1e-5 if offset == 0 else 1e-4)


def test_convnext_block_moves_nothing() -> None:
    net = Net((2, 8, 6, 5))
    deep = net.conv(net.x, 8, (7, 7), groups=8, pads=(3, 3, 3, 3))
    rows = net.layer_norm(net.transpose(deep, 0, 2, 3, 1))
    wide = net.unary(net.linear(rows, 16), "gelu")
    narrow = net.binary(net.linear(wide, 8), net.const(8), "mul")
    net.binary(net.transpose(narrow, 0, 3, 1, 2), net.x)
    written = check(net.program())
    assert not written["TRANSPOSE"]
    assert not written["RESHAPE"]
    assert sum(written.values()) == 1 + 9 + 1 + 1 + 1 + 1 + 1


def test_group_norm_moves_nothing() -> None:
    net = Net((2, 8, 6, 5))
    groups = net.reshape(net.x, 2, 2, 4, 6, 5)
    centred = net.binary(groups, net.reduce(groups, "mean", (2, 3, 4)), "sub")
    net.reshape(centred, 2, 8, 6, 5)
    written = check(net.program())
    assert not written["TRANSPOSE"]


@pytest.mark.parametrize("size", [(16, 20), (5, 7), (11, 13), (1, 1)], ids=str)
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "corners"])
def test_resize(size, mode: str) -> None:
    net = Net((2, 3, 8, 10))
    corners = mode == "corners"
    net.add(ops.Resize, (2, 3, *size), net.x, "bilinear" if corners else mode, corners)
    assert sum(check(net.program()).values()) == 1


def test_pixel_shuffle_behind_a_convolution_is_free() -> None:
    net = Net((2, 3, 4, 5))
    deep = net.conv(net.x, 12, pads=(1, 1, 1, 1))
    net.add(ops.DepthToSpace, (2, 3, 8, 10), deep, 2)
    assert check(net.program()) == {"CONV_2D": 1, "DEPTH_TO_SPACE": 1}


def test_pixel_shuffle_of_what_others_read() -> None:
    net = Net((2, 3, 4, 5))
    deep = net.conv(net.x, 18, pads=(1, 1, 1, 1))
    shuffled = net.add(ops.DepthToSpace, (2, 2, 12, 15), deep, 3)
    written = check(net.program(deep, shuffled))
    assert written == {"CONV_2D": 1, "RESHAPE": 2, "TRANSPOSE": 1}


def test_products_of_many_dimensions_are_unsupported() -> None:
    net = Net((2, 2, 2, 2, 3, 4))
    output = net.matmul(net.x, net.const(2, 1, 1, 1, 4, 2))
    with pytest.raises(UnsupportedOperatorError, match=rf"'{output.name}' \(MatMul\)"):
        write_tflite(net.program())


def test_dilated_max_pool_is_made_of_maxima() -> None:
    net = Net((1, 3, 8, 8))
    net.add(ops.MaxPool, (1, 3, 4, 4), net.x, (3, 3), (1, 1), (0, 0, 0, 0), (2, 2))
    counts = check(net.program())
    assert (counts["MAXIMUM"], counts["MAX_POOL_2D"]) == (4, 0)
