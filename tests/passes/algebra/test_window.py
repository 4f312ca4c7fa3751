"""The geometry of composed windows, against brute force over input positions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrinkc.passes.algebra.window import (
    Axis,
    Padding,
    Window,
    add_axes,
    compose,
    compose_axes,
    padding_of,
    reads_beyond_padding,
    reads_padding,
    taps,
)

axes = st.builds(Axis, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(-1, 3))


def read_by(axis: Axis, output: int) -> set[int]:
    """The input positions that one output reads."""
    return {output * axis.stride + u * axis.dilation - axis.pad for u in range(axis.kernel)}


@given(axes, axes)
def test_composition_reads_what_the_two_read(first: Axis, second: Axis) -> None:
    both = compose_axes(first, second)
    for output in (0, 1, 5):
        wanted = {x for middle in read_by(second, output) for x in read_by(first, middle)}
        covered = read_by(both, output)
        assert wanted <= covered
        assert (min(wanted), max(wanted)) == (min(covered), max(covered))


def test_kernel_stride_and_padding_follow_the_formulas() -> None:
    first, second = Axis(3, stride=2, pad=1), Axis(5, stride=2, pad=2)
    both = compose_axes(first, second)
    assert (both.kernel, both.stride, both.pad) == (3 + (5 - 1) * 2, 4, 1 + 2 * 2)


def test_a_one_by_one_keeps_the_other_kernel_and_its_dilation_times_the_stride() -> None:
    assert compose_axes(Axis(stride=2), Axis(3)) == Axis(3, stride=2, dilation=2)
    assert compose_axes(Axis(3, dilation=4), Axis()) == Axis(3, dilation=4)
    assert compose_axes(Axis(3, dilation=2), Axis(3, dilation=4)).dilation == 2


@given(axes, axes, axes)
def test_composition_is_associative(a: Axis, b: Axis, c: Axis) -> None:
    left, right = compose_axes(compose_axes(a, b), c), compose_axes(a, compose_axes(b, c))
    assert read_by(left, 2) == read_by(right, 2)
    assert left.stride == right.stride


@given(axes, axes)
def test_addition_reads_what_either_reads(a: Axis, b: Axis) -> None:
    b = Axis(b.kernel, a.stride, b.dilation, b.pad)
    both = add_axes(a, b)
    assert read_by(a, 3) | read_by(b, 3) <= read_by(both, 3)
    for part in (a, b):
        positions = [u * both.dilation - both.pad for u in range(both.kernel)][taps(part, both)]
        assert positions == [u * part.dilation - part.pad for u in range(part.kernel)]


@given(axes, axes, st.integers(1, 9), st.integers(0, 2), st.integers(0, 2))
def test_reading_beyond_the_padding_against_brute_force(
    first: Axis, second: Axis, size: int, after: int, after_second: int
) -> None:
    middle = first.out_size(size, after)
    out = second.out_size(middle, after_second) if middle > 0 else 0
    if middle < 1 or out < 1:
        return
    virtual = {m for o in range(out) for m in read_by(second, o)} - set(range(middle))
    wrong = any(0 <= x < size for m in virtual for x in read_by(first, m))
    windows = (Window(1, 1, axes=(axis, Axis())) for axis in (first, second))
    one, two = windows
    assert reads_beyond_padding(one, (size, 1), (middle, 1), two, (out, 1)) == wrong
    assert reads_padding(two, (middle, 1), (out, 1)) == bool(virtual)


def square(kernel: int, stride: int = 1, pad: int = 0) -> Window:
    return Window(4, 4, axes=(Axis(kernel, stride, 1, pad),) * 2)


def test_zeros_around_a_three_by_three_cut_into_what_it_computes() -> None:
    eight = (8, 8)
    assert reads_beyond_padding(square(3, pad=1), eight, eight, square(3, pad=1), eight)
    assert not reads_beyond_padding(square(1), eight, eight, square(3, pad=1), eight)


@pytest.mark.parametrize(
    ("outer", "inner", "groups"), [(4, 6, 2), (1, 12, 1), (12, 12, 12), (6, 3, 3)]
)
def test_groups_compose_by_their_greatest_common_divisor(
    outer: int, inner: int, groups: int
) -> None:
    assert compose(Window(12, 12, inner), Window(12, 12, outer)).groups == groups


def test_padding_is_the_convolutions_own_where_symmetric_padding_gives_the_same_outputs() -> None:
    assert padding_of(square(3, pad=1), (8, 8), (8, 8)) == Padding((1, 1))
    # stride 2 on an even map: the padding behind is there and never read
    assert padding_of(square(3, 2, 1), (8, 8), (4, 4)) == Padding((1, 1))


def test_padding_is_explicit_where_the_sides_differ() -> None:
    same = Window(4, 4, axes=(Axis(3, 2, 1, 0),) * 2)
    assert padding_of(same, (8, 8), (4, 4)) == Padding((0, 0), (0, 1, 0, 1))


def test_what_crops_is_no_convolution() -> None:
    with pytest.raises(ValueError, match="crop its input"):
        padding_of(square(1, pad=-1), (8, 8), (6, 6))
    with pytest.raises(ValueError, match="crop its result"):
        padding_of(square(1), (8, 8), (6, 6))
