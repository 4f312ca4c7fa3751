"""Per-channel scale and shift, folded into the weights next to them.

All functions take and give float64 tensors. `weight` is (out, in/groups, kh, kw) of a convolution,
(in, out/groups, kh, kw) of a transposed one, (out, in) of a linear layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shrinkc.passes.rewrite import float64


def batch_norm_affine(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """(scale, shift), each (channels,): γ/√(σ² + ε) and β − μ·γ/√(σ² + ε) of the running
    statistics. Raises ValueError when there are none, or σ² + ε is not positive."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("batch norm without running statistics")
    variance = float64(norm.running_var) + norm.eps
    if not bool((variance > 0).all()):
        raise ValueError("running variance + eps is not positive in every channel")
    scale = variance.rsqrt()
    if norm.affine:
        scale = scale * float64(norm.weight)
    shift = -float64(norm.running_mean) * scale
    return scale, shift + float64(norm.bias) if norm.affine else shift


def scale_output(
    weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """scale·(W ⋆ x + b) + shift  =  (scale·W) ⋆ x + (scale·b + shift)"""
    rows = scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return weight * rows, shift if bias is None else bias * scale + shift


def scale_output_transposed(
    weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    """The same for a transposed convolution."""
    inputs, outputs, kh, kw = weight.shape
    grouped = weight.reshape(groups, inputs // groups, outputs, kh, kw)
    scaled = grouped * scale.reshape(groups, 1, outputs, 1, 1)
    return scaled.reshape(weight.shape), shift if bias is None else bias * scale + shift


def scale_input(
    weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    """W ⋆ (scale·x + shift) + b  =  (W·scale) ⋆ x + (b + W·shift)

    Exact where no padding is read, or shift is zero.
    """
    outputs, inputs = weight.shape[:2]
    blocks = weight.reshape(groups, outputs // groups, inputs, -1)
    scaled = (blocks * scale.reshape(groups, 1, inputs, 1)).reshape(weight.shape)
    moved = torch.einsum("goik,gi->go", blocks, shift.reshape(groups, inputs)).reshape(outputs)
    return scaled, moved if bias is None else bias + moved
