"""Reshape, transpose, concat, slice, pad: what is moved and what is not."""

from dataclasses import replace

import numpy as np
import pytest
from tflite_programs import Net, check, operand_counts, run_reference, run_tflite

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.errors import UnsupportedOperatorError


def test_channel_shuffle() -> None:
    net = Net((2, 12, 4, 5))
    deep = net.conv(net.x, 12, (1, 1), activation="relu")
    groups = net.transpose(net.reshape(deep, 2, 3, 4, 4, 5), 0, 2, 1, 3, 4)
    net.conv(net.reshape(groups, 2, 12, 4, 5), 12, groups=12)
    expected = {"CONV_2D": 1, "RESHAPE": 2, "TRANSPOSE": 1, "DEPTHWISE_CONV_2D": 1}
    assert check(net.program()) == expected


def test_a_convolution_takes_shuffled_channels_as_they_lie() -> None:
    net = Net((2, 12, 4, 5))
    shuffled = net.transpose(net.reshape(net.x, 2, 3, 4, 4, 5), 0, 2, 1, 3, 4)
    image = net.reshape(shuffled, 2, 12, 4, 5)
    pooled = net.pool(ops.MaxPool, net.affine(image), (2, 2), (2, 2))
    deep = net.conv(pooled, 12, groups=12, pads=(1, 1, 1, 1))
    net.conv(net.add(ops.Resize, (2, 12, 4, 4), deep, "nearest"), 6, (1, 1))
    assert check(net.program()) == {
        "DEPTHWISE_CONV_2D": 2,
        "MAX_POOL_2D": 1,
        "RESIZE_NEAREST_NEIGHBOR": 1,
        "CONV_2D": 1,
    }


def test_shuffled_channels_that_must_be_sorted() -> None:
    net = Net((2, 12, 4, 5))
    shuffled = net.transpose(net.reshape(net.x, 2, 3, 4, 4, 5), 0, 2, 1, 3, 4)
    image = net.reshape(shuffled, 2, 12, 4, 5)
    outputs = net.conv(image, 12, groups=2), net.conv(image, 24, groups=12)
    assert check(net.program(*outputs))["TRANSPOSE"] == 1


def test_shuffle_net_unit() -> None:
    """Of the shuffled channels only the half that is passed on has to be sorted."""
    net = Net((2, 16, 4, 5))
    shuffled = net.transpose(net.reshape(net.x, 2, 2, 8, 4, 5), 0, 2, 1, 3, 4)
    image = net.reshape(shuffled, 2, 16, 4, 5)
    passed, changed = net.slice(image, 1, 0, 8), net.slice(image, 1, 8, 16)
    changed = net.conv(changed, 8, (1, 1), activation="relu")
    net.concat((passed, net.conv(changed, 8, groups=8, pads=(1, 1, 1, 1))), 1)
    written = check(net.program())
    assert written["SLICE"] == 2
    assert written["TRANSPOSE"] == 1


def windows(net: Net, x: ops.Value) -> ops.Value:
    """(2, 6, 8, 8) → 8 windows of 16 tokens of 6 channels."""
    rows = net.transpose(x, 0, 2, 3, 1)
    parts = net.transpose(net.reshape(rows, 2, 2, 4, 2, 4, 6), 0, 1, 3, 2, 4, 5)
    return net.reshape(parts, 8, 16, 6)


def image(net: Net, tokens: ops.Value) -> ops.Value:
    parts = net.transpose(net.reshape(tokens, 2, 2, 2, 4, 4, 6), 0, 1, 3, 2, 4, 5)
    return net.transpose(net.reshape(parts, 2, 8, 8, 6), 0, 3, 1, 2)


def test_window_partition_and_back() -> None:
    net = Net((2, 6, 8, 8))
    tokens = windows(net, net.x)
    mixed = net.matmul(net.matmul(tokens, net.transpose(tokens, 0, 2, 1)), tokens)
    image(net, mixed)
    written = check(net.program())
    assert written == {"TRANSPOSE": 2, "RESHAPE": 4, "BATCH_MATMUL": 2}


def test_windows_of_which_every_token_is_treated_alike_stay_in_place() -> None:
    net = Net((2, 6, 8, 8))
    image(net, net.linear(windows(net, net.x), 6))
    assert check(net.program()) == {"FULLY_CONNECTED": 1}


def test_pixel_unshuffle() -> None:
    net = Net((2, 3, 4, 6))
    blocks = net.transpose(net.reshape(net.x, 2, 3, 2, 2, 3, 2), 0, 1, 3, 5, 2, 4)
    net.reshape(blocks, 2, 12, 2, 3)
    assert check(net.program())["TRANSPOSE"] == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2, 6, 4, 5), (2, 8, 3, 5)),
        ((2, 6, 4, 5), (2, 6, 20)),
        ((2, 6, 4, 5), (2, 24, 5)),
        ((2, 6, 4, 5), (12, 4, 5)),
        ((2, 6, 4, 5), (240,)),
        ((2, 6, 4, 5), (2, 1, 6, 4, 5, 1)),
        ((2, 6, 4, 5), (4, 3, 4, 5)),
        ((6, 4), (8, 3)),
        ((1, 6, 1, 1), (1, 2, 3)),
        ((1,), (1, 1, 1, 1)),
        ((2, 3, 8), (2, 3, 2, 4)),
        ((2, 24), (2, 6, 2, 2)),
        ((5, 7, 3), (7, 15)),
    ],
    ids=str,
)
def test_reshape(before, after) -> None:
    net = Net(before)
    net.reshape(net.x, *after)
    check(net.program())


@pytest.mark.parametrize("perm", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0), (1, 0, 3, 2)])
def test_transpose_as_output(perm) -> None:
    net = Net((2, 3, 4, 5))
    relu = net.unary(net.x, "relu")
    net.transpose(relu, *perm)
    assert sum(check(net.program(relu, net.ops[-1].output)).values()) == 2


def test_a_cancelled_transpose_is_not_written() -> None:
    net = Net((2, 3, 4, 5))
    there = net.transpose(net.x, 0, 2, 3, 1)
    net.transpose(net.unary(there, "relu"), 0, 3, 1, 2)
    assert check(net.program()) == {"RELU": 1}


def test_one_transpose_serves_all_its_readers() -> None:
    net = Net((2, 3, 4, 5))
    a, b = net.linear(net.x, 5), net.linear(net.x, 5)
    net.binary(a, b)
    assert check(net.program())["TRANSPOSE"] == 2


def test_inputs_and_outputs_that_are_the_same_values() -> None:
    net = Net((2, 3, 4, 5))
    relu = net.unary(net.x, "relu")
    same = net.reshape(relu, 2, 3, 4, 5)
    check(net.program(net.x, relu, same))


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_concat(axis: int) -> None:
    net = Net((2, 3, 4, 5), (2, 3, 4, 5))
    net.concat((*net.inputs, net.const(2, 3, 4, 5), net.x), axis)
    assert check(net.program()) == {"CONCATENATION": 1}


def test_concat_of_many_and_of_other_ranks() -> None:
    net = Net((2, 3), (2, 3, 2, 2, 3), (2, 3, 2, 2, 3, 2))
    outputs = [net.concat((x,) * 7, 1) for x in net.inputs]
    assert check(net.program(*outputs)) == {"CONCATENATION": 3}


def test_dense_block_concatenates_what_is_new() -> None:
    net = Net((1, 4, 5, 6))
    features = [net.x]
    for _ in range(4):
        joined = net.concat(features, 1) if len(features) > 1 else net.x
        features.append(net.conv(joined, 3, pads=(1, 1, 1, 1), activation="relu"))
    net.concat(features, 1)
    program = net.program()
    assert check(program) == {"CONV_2D": 4, "CONCATENATION": 4}
    assert operand_counts(write_tflite(program), "CONCATENATION") == [2, 2, 2, 2]


def test_values_of_one_shape_that_lie_differently() -> None:
    net = Net((1, 6, 4, 4))
    net.binary(net.x, net.transpose(net.x, 0, 1, 3, 2), "sub")
    assert check(net.program()) == {"TRANSPOSE": 1, "SUB": 1}


@pytest.mark.parametrize("shape", [(6, 7), (6, 5, 7), (6, 5, 7, 4), (6, 5, 2, 2, 3)])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("cut", [(0, 3, 1), (1, 5, 1), (1, 5, 2), (0, 5, 3)], ids=str)
def test_slice(shape, axis: int, cut) -> None:
    net = Net(shape)
    net.slice(net.x, axis, *cut)
    written = check(net.program())
    assert written["SLICE"] == 1
    assert cut[2] > 1 or sum(written.values()) == 1


def test_space_to_depth_by_slices() -> None:
    """As patch merging and focus layers write it: no slice is written for the first of two."""
    net = Net((2, 3, 6, 8))
    parts = [
        net.slice(net.slice(net.x, 2, row, 6, 2), 3, column, 8, 2)
        for row in (0, 1)
        for column in (0, 1)
    ]
    net.conv(net.concat(parts, 1), 4, (1, 1))
    written = check(net.program())
    assert written["SLICE"] == 4
    assert "STRIDED_SLICE" not in written


def test_a_slice_of_a_slice_is_one() -> None:
    net = Net((2, 8, 6, 5))
    first = net.slice(net.x, 1, 2, 8)
    second = net.slice(net.slice(first, 1, 1, 5), 3, 0, 4)
    net.binary(net.slice(second, 2, 1, 6, 3), net.slice(second, 2, 1, 6, 3))
    assert check(net.program()) == {"SLICE": 1, "RESHAPE": 2, "ADD": 1}
    assert check(net.program(first, second)) == {"SLICE": 2}


def test_steps_of_steps() -> None:
    net = Net((2, 13, 12))
    third = net.slice(net.slice(net.x, 1, 1, 13, 3), 1, 1, 4, 2)
    alone = net.slice(net.slice(net.x, 2, 1, 12, 2), 2, 3, 4)
    assert check(net.program(third, alone))["SLICE"] == 2


def test_a_slice_of_a_reshaped_slice() -> None:
    net = Net((2, 9, 5, 4))
    groups = net.reshape(net.slice(net.x, 1, 1, 7), 2, 2, 3, 5, 4)
    net.slice(net.slice(groups, 2, 1, 3), 1, 1, 2)
    assert check(net.program())["SLICE"] == 2


def test_a_slice_of_everything_is_nothing() -> None:
    net = Net((2, 8, 6, 5))
    everything = net.slice(net.slice(net.x, 1, 0, 8), 0, 0, 2)
    net.unary(net.slice(everything, 2, 0, 6), "relu")
    assert check(net.program()) == {"RELU": 1}


def test_what_no_output_reads_is_not_written() -> None:
    net = Net((2, 8, 6, 5))
    unread = net.conv(net.slice(net.unary(net.x, "tanh"), 1, 0, 3), 4, (1, 1))
    net.unary(net.x, "relu")
    assert check(net.program()) == {"RELU": 1}
    assert unread.name.encode() not in write_tflite(net.program())


def test_slice_and_pad_of_six_dimensions() -> None:
    net = Net((2, 3, 2, 4, 3, 2))
    cut = net.slice(net.x, 3, 1, 4, 2)
    cut = net.slice(cut, 4, 0, 2)
    net.pad(cut, (0, 1, 0, 0, 2, 0), (0, 0, 0, 0, 1, 0), value=1.5)
    check(net.program())


def test_pad_of_many_separate_dimensions_is_unsupported() -> None:
    net = Net((2, 3, 2, 4, 3, 2))
    output = net.pad(net.x, (1,) * 6, (0,) * 6)
    with pytest.raises(UnsupportedOperatorError, match=rf"'{output.name}' \(Pad\)"):
        write_tflite(net.program())


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
@pytest.mark.parametrize("value", [0.0, -2.5])
def test_pad(mode: str, value: float) -> None:
    for shape, before, after in (
        ((2, 3, 4, 5), (0, 0, 1, 3), (0, 0, 2, 0)),
        ((2, 3, 4, 5), (0, 2, 0, 0), (1, 0, 0, 0)),
        ((2, 3, 4), (0, 0, 2), (0, 0, 3)),
        ((4, 3), (3, 0), (0, 2)),
    ):
        net = Net(shape)
        net.pad(net.x, before, after, mode, value if mode == "constant" else 0.0)
        check(net.program())


def test_batch_expand() -> None:
    net = Net((3, 4, 8))
    token = net.const(1, 1, 8)
    expanded = net.add(ops.BatchExpand, (3, 1, 8), token, net.x)
    joined = net.concat((expanded, net.x), 1)
    alone = net.binary(expanded, net.x, "mul")
    assert check(net.program(joined, alone)) == {"CONCATENATION": 1, "MUL": 1}


def test_an_expanded_constant_as_output() -> None:
    net = Net((3, 4, 8))
    expanded = net.add(ops.BatchExpand, (3, 1, 8), net.const(1, 1, 8), net.x)
    check(net.program(expanded, net.unary(expanded, "relu")))


def test_seven_dimensions_are_unsupported() -> None:
    net = Net((2, 3, 2, 3, 2, 3, 2))
    output = net.add(ops.CumSum, net.x.shape, net.x, 6)
    with pytest.raises(UnsupportedOperatorError, match=rf"'{output.name}' \(CumSum\)"):
        write_tflite(net.program())


def test_a_softmax_of_seven_dimensions_is_one_of_three() -> None:
    net = Net((2, 3, 2, 3, 2, 3, 2))
    net.softmax(net.x, 4)
    assert check(net.program())["SOFTMAX"] == 1


def test_many_dimensions_that_move_together_are_few() -> None:
    net = Net((2, 3, 2, 3, 2, 3, 2))
    net.transpose(net.unary(net.x, "relu"), 4, 5, 6, 0, 1, 2, 3)
    assert check(net.program()) == {"RELU": 1, "RESHAPE": 2, "TRANSPOSE": 1}


def test_linear_of_many_dimensions() -> None:
    net = Net((2, 3, 2, 3, 2, 3, 2))
    net.reshape(net.linear(net.x, 4), 36, 24)
    assert check(net.program())["FULLY_CONNECTED"] == 1


def test_constants_are_permuted_when_written() -> None:
    net = Net((2, 3, 4, 5))
    net.binary(net.x, ops.Const("map", net.array(3, 4, 5)))
    net.concat((net.ops[-1].output, ops.Const("more", np.ones((2, 1, 4, 5), np.float32))), 1)
    assert check(net.program()) == {"ADD": 1, "CONCATENATION": 1}


LAYOUTS = ["as it comes", "behind a convolution", "transposed", "split"]


def laid(net: Net, layout: str) -> ops.Value:
    """Of shape (2, 6, 4, 5), in a file tensor that lies otherwise."""
    match layout:
        case "behind a convolution":
            return net.conv(net.x, 6, (1, 1))
        case "transposed":
            return net.transpose(net.reshape(net.x, 2, 4, 5, 6), 0, 3, 1, 2)
        case "split":
            return net.reshape(
                net.transpose(net.reshape(net.x, 2, 3, 2, 4, 5), 0, 2, 1, 3, 4), 2, 6, 4, 5
            )
        case _:
            return net.x


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_order_and_picking_along_any_axis(layout: str, axis: int) -> None:
    net = Net((2, 6, 4, 5))
    x = laid(net, layout)
    size = x.shape[axis]
    kept, gone = ((*x.shape[:axis], *middle, *x.shape[axis + 1 :]) for middle in ((1,), ()))
    both = (*x.shape[:axis], 2, *x.shape[axis + 1 :])
    picked = (*range(size)[::-1], 0)
    outputs = [
        net.add(ops.ArgMax, kept, x, axis, True),
        net.add(ops.ArgMax, gone, x, axis, False),
        net.add(ops.TopK, both, x, 2, axis, "values"),
        net.add(ops.TopK, both, x, 2, axis, "indices"),
        net.add(ops.Gather, (*x.shape[:axis], size + 1, *x.shape[axis + 1 :]), x, axis, picked),
        net.reduce(x, "min", (axis,)),
        net.reduce(x, "prod", (axis,), False),
        net.add(ops.Softmax, x.shape, x, axis, True),
    ]
    check(net.program(*outputs))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["int64", "int32", "bool"])
def test_integers_and_constants_leave_in_the_boundary_order(layout: str, dtype: str) -> None:
    net = Net((2, 6, 4, 5))
    whole = net.unary(laid(net, layout), "round")
    net.add(ops.Integers, whole.shape, whole)
    net.add(ops.Constant, (2, 3, 4, 5), np.round(net.array(2, 3, 4, 5)))
    made = [replace(op, output=replace(op.output, dtype=dtype)) for op in net.ops[-2:]]
    program = ops.Program(net.inputs, (*net.ops[:-2], *made), tuple(op.output for op in made))
    x = net.array(2, 6, 4, 5) * 3
    want = run_reference(program, [x])
    for plain in (False, True):
        for a, b in zip(run_tflite(program, write_tflite(program), [x], plain), want, strict=True):
            assert a.dtype == b.dtype == dtype
            assert (a == b).mean() > 0.98  # where float32 rounds to another integer
