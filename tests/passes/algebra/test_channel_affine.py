"""Scale and shift folded into weights compute what they computed beside them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hand_built import randomise
from torch import Tensor, nn

from shrinkc.passes.algebra.channel_affine import (
    batch_norm_affine,
    scale_input,
    scale_output,
    scale_output_transposed,
)


def random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_batch_norm_is_a_scale_and_a_shift(affine: bool, eps: float) -> None:
    norm = nn.BatchNorm2d(5, eps=eps, affine=affine).double().eval()
    randomise(norm, torch.Generator().manual_seed(3))
    scale, shift = batch_norm_affine(norm)
    x = random(2, 5, 4, 4)
    close(x * scale[:, None, None] + shift[:, None, None], norm(x))


def test_batch_norm_without_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="without running statistics"):
        batch_norm_affine(nn.BatchNorm2d(5, track_running_stats=False))


@pytest.mark.parametrize("variance", [-1.0, float("nan")])
def test_variance_that_has_no_root_is_refused(variance: float) -> None:
    norm = nn.BatchNorm2d(5)
    norm.running_var[2] = variance
    with pytest.raises(ValueError, match="not positive"):
        batch_norm_affine(norm)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_output_of_a_convolution(bias: bool, groups: int) -> None:
    x, weight = random(1, 4, 5, 5), random(8, 4 // groups, 3, 3)
    scale, shift, b = random(8), random(8) + 1, random(8) - 1 if bias else None
    want = F.conv2d(x, weight, b, groups=groups) * scale[:, None, None] + shift[:, None, None]
    close(F.conv2d(x, *scale_output(weight, b, scale, shift), groups=groups), want)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_output_of_a_transposed_convolution(bias: bool, groups: int) -> None:
    x, weight = random(1, 4, 5, 5), random(4, 8 // groups, 3, 3)
    scale, shift, b = random(8), random(8) + 1, random(8) - 1 if bias else None
    y = F.conv_transpose2d(x, weight, b, stride=2, groups=groups)
    folded = scale_output_transposed(weight, b, scale, shift, groups)
    want = y * scale[:, None, None] + shift[:, None, None]
    close(F.conv_transpose2d(x, *folded, stride=2, groups=groups), want)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_input_of_a_convolution(bias: bool, groups: int) -> None:
    x, weight = random(1, 4, 5, 5), random(8, 4 // groups, 3, 3)
    scale, shift, b = random(4), random(4) + 1, random(8) if bias else None
    scaled = x * scale[:, None, None] + shift[:, None, None]
    want = F.conv2d(scaled, weight, b, groups=groups)
    close(F.conv2d(x, *scale_input(weight, b, scale, shift, groups), groups=groups), want)


def test_both_sides_of_a_linear_layer() -> None:
    x, weight, bias = random(3, 4), random(8, 4), random(8)
    scale, shift = random(8), random(8) + 1
    close(
        F.linear(x, *scale_output(weight, bias, scale, shift)),
        F.linear(x, weight, bias) * scale + shift,
    )
    scale, shift = random(4), random(4) + 1
    close(
        F.linear(x, *scale_input(weight, bias, scale, shift, 1)),
        F.linear(x * scale + shift, weight, bias),
    )
