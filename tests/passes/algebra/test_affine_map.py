"""Kernels compose and add as the convolutions do, for every pairing of groups."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from shrinkc.passes.algebra.affine_map import (
    AffineMap,
    apply,
    collapse,
    compose_weights,
    identity,
    regroup,
    sum_maps,
)
from shrinkc.passes.algebra.window import Axis, Pair, Window, compose


def random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def convolve(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    return F.conv2d(x, weight, None, window.stride, window.pad, window.dilation, window.groups)


def window(inputs: int, outputs: int, groups: int, kernel: Pair, stride: int = 1) -> Window:
    return Window(inputs, outputs, groups, (Axis(kernel[0], stride), Axis(kernel[1], 1, stride)))


@pytest.mark.parametrize("first_groups", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("second_groups", [1, 2, 3, 4, 6, 12])
def test_composed_kernel_computes_the_composition(first_groups: int, second_groups: int) -> None:
    first = window(24, 12, first_groups, (3, 2), stride=2)
    second = window(12, 36, second_groups, (2, 3))
    inner, outer = random(*first.weight_shape), random(*second.weight_shape)
    x = random(2, 24, 13, 13)
    kernel = compose_weights(first, inner, second, outer)
    both = compose(first, second)
    assert tuple(kernel.shape) == both.weight_shape
    want = convolve(convolve(x, inner, first), outer, second)
    torch.testing.assert_close(convolve(x, kernel, both), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("groups", "fewer"), [(6, 6), (6, 3), (6, 2), (6, 1), (4, 2)])
def test_regrouping_changes_no_result(groups: int, fewer: int) -> None:
    weight, x = random(12, 24 // groups, 2, 2), random(1, 24, 5, 5)
    dense = regroup(weight, groups, fewer)
    assert dense.shape == (12, 24 // fewer, 2, 2)
    want = F.conv2d(x, weight, groups=groups)
    torch.testing.assert_close(F.conv2d(x, dense, groups=fewer), want, rtol=1e-12, atol=1e-12)


def layer(inputs: int, outputs: int, kernel: int, pad: int = 0, groups: int = 1) -> AffineMap:
    """A random convolution with bias on a 7×7 map."""
    axis = Axis(kernel, pad=pad)
    where = Window(inputs, outputs, groups, (axis, axis))
    size = 7 + 2 * pad - kernel + 1
    weight, shift = random(*where.weight_shape), random(outputs, 1, 1)
    return apply(where, weight, shift, (size, size), identity(inputs, (7, 7)))


def evaluate(m: AffineMap, x: Tensor) -> Tensor:
    return convolve(x, m.weight, m.window) + m.constant


def test_sum_aligns_kernels_by_the_positions_they_read() -> None:
    wide, narrow = layer(4, 4, 5, pad=2), layer(4, 4, 1, groups=2)
    x = random(1, 4, 7, 7)
    total = sum_maps(sum_maps(wide, narrow), identity(4, (7, 7)))
    assert total.window.kernel == (5, 5)
    want = evaluate(wide, x) + evaluate(narrow, x) + x
    torch.testing.assert_close(evaluate(total, x), want, rtol=1e-12, atol=1e-12)


def test_residual_of_a_depthwise_stays_depthwise() -> None:
    total = sum_maps(layer(4, 4, 3, pad=1, groups=4), identity(4, (7, 7)))
    assert total.window.groups == 4


def test_sum_of_different_strides_is_refused() -> None:
    strided = AffineMap(
        Window(4, 4, 4, (Axis(stride=2), Axis())),
        *(torch.ones(4, 1, 1, 1), torch.zeros(4, 1, 1), (7, 7), (4, 7)),
    )
    with pytest.raises(ValueError, match="strides"):
        sum_maps(strided, identity(4, (7, 7)))


def test_constant_stays_a_vector_until_padding_cuts_into_it() -> None:
    first = layer(4, 6, 1)
    unpadded = Window(6, 2, axes=(Axis(3), Axis(3)))
    padded = Window(6, 2, axes=(Axis(3, pad=1), Axis(3, pad=1)))
    weight, shift = random(2, 6, 3, 3), random(2, 1, 1)
    assert apply(unpadded, weight, shift, (5, 5), first).uniform
    bordered = apply(padded, weight, shift, (7, 7), first)
    assert not bordered.uniform
    want = F.conv2d(first.constant.expand(-1, 7, 7)[None], weight, padding=1)[0] + shift
    torch.testing.assert_close(bordered.constant, want, rtol=1e-12, atol=1e-12)


def test_a_map_that_is_the_same_everywhere_up_to_rounding_is_a_vector() -> None:
    flat = random(3, 1, 1).expand(3, 4, 4)
    assert collapse(flat + 1e-16).shape == (3, 1, 1)
    assert collapse(flat + torch.eye(4) * 1e-6).shape == (3, 4, 4)
