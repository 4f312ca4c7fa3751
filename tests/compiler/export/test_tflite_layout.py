"""The layout algebra against NumPy, and whole random programs against the reference."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_programs import Net, check

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.layout import (
    MAX_RANK,
    NHWC,
    Layout,
    common_groups,
    last,
    logical,
    moves,
    natural_order,
    permuted,
    reshaped,
    stored,
    without,
)

SIZES = st.sampled_from([1, 2, 3, 4, 6])
SHAPES = st.lists(SIZES, min_size=1, max_size=5).map(tuple)


def read(memory: np.ndarray, layout: Layout) -> np.ndarray:
    """The logical array that lies in `memory` as `layout` says."""
    flat = [f for dim in layout.dims for f in dim]
    return memory.reshape(layout.factors).transpose(flat).reshape(layout.shape)


@st.composite
def stored_arrays(draw) -> tuple[np.ndarray, np.ndarray, Layout]:
    """A logical array, its memory (as a file tensor) and the layout between them."""
    shape = draw(SHAPES)
    order = tuple(draw(st.permutations(range(len(shape)))))
    array = np.arange(prod(shape)).reshape(shape)
    return array, array.transpose(order).copy(), stored(shape, order)


@st.composite
def regrouped(draw, elements: int) -> tuple[int, ...]:
    """A shape with this many elements."""
    shape: list[int] = []
    while elements > 1 and len(shape) < 5:
        size = draw(st.sampled_from([n for n in range(1, elements + 1) if elements % n == 0]))
        shape.append(size)
        elements //= size
    return (*shape, elements)


@given(stored_arrays(), st.data())
def test_permute_and_reshape_are_numpys(arrays, data) -> None:
    array, memory, layout = arrays
    perm = tuple(data.draw(st.permutations(range(array.ndim))))
    array, layout = array.transpose(perm), permuted(layout, perm)
    np.testing.assert_array_equal(read(memory, layout), array)
    shape = data.draw(regrouped(array.size))
    again = reshaped(layout, shape)
    if again is not None:
        np.testing.assert_array_equal(read(memory, again), array.reshape(shape))
    groups = common_groups(array.shape, shape)
    grouped = reshaped(layout, groups)
    assert grouped is not None
    np.testing.assert_array_equal(read(memory, grouped), array.reshape(groups))
    assert reshaped(stored(groups, logical(len(groups))), shape) is not None


@given(stored_arrays(), st.data())
def test_moves_are_reshapes_and_transposes(arrays, data) -> None:
    array, memory, layout = arrays
    perm = tuple(data.draw(st.permutations(range(array.ndim))))
    array, layout = array.transpose(perm), permuted(layout, perm)
    shape = data.draw(regrouped(array.size))
    again = reshaped(layout, shape)
    if again is not None:
        array, layout = array.reshape(shape), again
    order = tuple(data.draw(st.permutations(range(array.ndim))))
    want = array.transpose(order)
    steps = moves(layout, memory.shape, order)
    assert bool(steps) != layout.is_stored_in(order)
    for step in steps:
        assert len(step.perm) <= MAX_RANK
        memory = memory.reshape(step.before).transpose(step.perm)
    np.testing.assert_array_equal(memory.reshape(want.shape), want)


@given(st.permutations(range(12)))
def test_moves_of_many_dimensions(order) -> None:
    shape = (2, 1, 2, 3, 1, 2, 2, 1, 2, 3, 2, 2)
    array = np.arange(prod(shape)).reshape(shape)
    got = array
    for step in moves(stored(shape, logical(12)), shape, tuple(order)):
        assert len(step.perm) <= MAX_RANK
        got = got.reshape(step.before).transpose(step.perm)
    want = array.transpose(order)
    np.testing.assert_array_equal(got.reshape(want.shape), want)


@given(stored_arrays())
def test_natural_order_is_where_the_tensor_is(arrays) -> None:
    _, memory, layout = arrays
    order = natural_order(layout, memory.shape)
    assert layout.is_stored_in(order)
    assert tuple(layout.shape[d] for d in order) == memory.shape


def test_orders() -> None:
    assert logical(3) == (0, 1, 2)
    assert last(NHWC, (2,)) == (0, 3, 1, 2)
    assert without(NHWC, (2, 3)) == (0, 1)
    assert without((0, 2, 3, 1), (1,)) == (0, 1, 2)
    assert natural_order(stored((2, 8, 1, 1), NHWC), (2, 8)) == NHWC


@pytest.mark.parametrize(
    ("before", "after", "groups"),
    [
        ((2, 6, 4, 5), (2, 8, 3, 5), (2, 24, 5)),
        ((6, 4), (24,), (24,)),
        ((1, 6), (6, 1), (6, 1)),
        ((2, 1, 3), (2, 3), (2, 3)),
        ((1, 1), (), (1, 1)),
    ],
)
def test_common_groups(before, after, groups) -> None:
    assert common_groups(before, after) == groups


def test_a_factor_is_not_cut_where_it_does_not_divide() -> None:
    assert reshaped(stored((6, 4), (0, 1)), (8, 3)) is None
    assert reshaped(stored((6, 4), (0, 1)), (2, 12)) is not None


class RandomNet(Net):
    """Grows by operators that look at, combine or move values of any layout."""

    def grow(self, draw, values: list) -> None:
        x = draw(st.sampled_from(values))
        rank = len(x.shape)
        kinds = ["unary", *["permute", "reshape"] * 3, "binary", "constant", "number"]
        kinds += ["concat", "slice", "strided", "reduce", "softmax", "pad"] if rank else []
        kinds += ["conv", "depthwise", "affine", "pool"] if rank == 4 else []
        kinds += ["linear"] * 3 if rank > 1 else []
        values.append(self._grown(draw, draw(st.sampled_from(kinds)), x, values))

    def _grown(self, draw, kind: str, x, values: list):
        rank = len(x.shape)
        axis = draw(st.integers(0, rank - 1)) if rank else 0
        match kind:
            case "unary":
                return self.unary(x, draw(st.sampled_from(["relu", "tanh", "abs"])))
            case "permute":
                return self.transpose(x, *draw(st.permutations(range(rank))))
            case "reshape":
                return self.reshape(x, *draw(regrouped(prod(x.shape))))
            case "binary":
                fits = [v for v in values if _broadcast(x.shape, v.shape)]
                return self.binary(x, draw(st.sampled_from(fits)), "sub")
            case "constant":
                shape = [draw(st.sampled_from([1, n])) for n in x.shape]
                return self.binary(self.const(*shape[axis:]), x, "sub")
            case "number":
                return self.binary(x, self.const(), "add")
            case "concat":
                same = [v for v in values if v.shape == x.shape]
                return self.concat((x, draw(st.sampled_from(same))), axis)
            case "slice":
                start, stop = sorted(draw(st.tuples(*[st.integers(0, x.shape[axis])] * 2)))
                return self.slice(x, axis, *((start, stop) if start < stop else (0, 1)))
            case "strided":
                return self.slice(x, axis, 0, x.shape[axis], 2)
            case "reduce":
                return self.reduce(x, "mean", (axis,), draw(st.booleans()))
            case "softmax":
                return self.softmax(x, axis)
            case "pad":
                before = [int(d == axis) for d in range(rank)]
                return self.pad(x, before, [0] * rank)
            case "conv":
                return self.conv(x, 4, (1, 1), activation="relu6")
            case "depthwise":
                return self.conv(x, x.shape[1], (1, 1), groups=x.shape[1])
            case "pool":
                return self.pool(ops.MaxPool, x, (1, 1), (2, 2))
            case "affine":
                return self.affine(x)
            case _:
                return self.linear(x, 3)


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    try:
        return prod(np.broadcast_shapes(a, b)) <= 4 * max(prod(a), prod(b))
    except ValueError:
        return False


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_random_programs(data) -> None:
    shape = data.draw(st.sampled_from([(2, 4, 3, 6), (1, 6, 4, 4), (2, 6, 4), (12,), (4, 1, 6, 1)]))
    net = RandomNet(shape, shape, seed=data.draw(st.integers(0, 100)))
    values = list(net.inputs)
    for _ in range(data.draw(st.integers(1, 10))):
        net.grow(data.draw, values)
    outputs = data.draw(st.lists(st.sampled_from(values[2:]), min_size=1, max_size=3, unique=True))
    check(net.program(*outputs), tolerance=2e-5)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_chains_of_slices_of_views(data) -> None:
    """Slices, with steps, of what has been permuted, reshaped and sliced before."""
    net = Net(data.draw(st.sampled_from([(2, 8, 6, 4), (1, 12, 8), (24, 8)])))
    values = [net.x]
    for _ in range(data.draw(st.integers(2, 6))):
        x = data.draw(st.sampled_from(values[-3:]))
        kind = data.draw(st.sampled_from(["slice", "slice", "permute", "reshape"]))
        if kind == "permute":
            values.append(net.transpose(x, *data.draw(st.permutations(range(len(x.shape))))))
        elif kind == "reshape":
            values.append(net.reshape(x, *data.draw(regrouped(prod(x.shape)))))
        else:
            axis = data.draw(st.integers(0, len(x.shape) - 1))
            size, step = x.shape[axis], data.draw(st.sampled_from([1, 1, 2, 3]))
            unit = data.draw(st.sampled_from([n for n in (1, 2, 4) if size % n == 0]))
            start = unit * data.draw(st.integers(0, size // unit - 1))
            stop = start + unit * data.draw(st.integers(1, (size - start) // unit))
            values.append(net.slice(x, axis, start, stop, step))
    outputs = data.draw(st.lists(st.sampled_from(values[1:]), min_size=1, max_size=2, unique=True))
    check(net.program(*outputs))
