"""The numbers that int8 can hold, as TFLite lays them out.

Activations, one grid a tensor:      x ≈ scale · (q − zero),   q in −128 … 127
Weights, one grid an output channel: w ≈ scale[o] · q,          q in −127 … 127 (−levels … levels)
Biases:                              b ≈ scale_x · scale[o] · q, q in 32 bits

(Jacob et al., 2018, and the TFLite 8-bit quantization specification.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

LEVELS, LEVELS_OF_7_BITS = 127, 64  # of a weight, on each side of zero
SMALLEST = 1e-9  # of a range, so that no scale is zero
Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


@dataclass(frozen=True)
class Grid:
    """The grid of one tensor."""

    scale: float
    zero: int


UNIT = Grid(1 / 256, -128)  # of sigmoid and softmax, fixed by the runtime's kernels
SYMMETRIC_UNIT = Grid(1 / 128, 0)  # of tanh


def grid_of(low: float, high: float) -> Grid:
    """The 256 levels of a range; zero is always one of them."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, SMALLEST) / 255
    return Grid(scale, round(-128 - low / scale))


class Rounding(nn.Module):
    """Every element to the nearest level of a grid, and into its range."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.grid.scale, self.grid.zero, -128, 127)


def weight_scales(layer: Layer, levels: int = LEVELS) -> Tensor:
    """(out,): what one level of each output channel's weights is worth."""
    weight = layer.weight.detach()
    if isinstance(layer, nn.ConvTranspose2d):
        groups = layer.groups
        blocks = weight.reshape(groups, -1, *weight.shape[1:])
        most = blocks.abs().amax((1, 3, 4)).flatten()
    else:
        most = weight.flatten(1).abs().amax(1)
    return most.clamp(min=SMALLEST) / levels


def rounded_weight(layer: Layer, levels: int = LEVELS) -> Tensor:
    """The weight as int8 holds it, in the layer's own shape."""
    scales, weight = weight_scales(layer, levels), layer.weight.detach()
    if isinstance(layer, nn.ConvTranspose2d):
        split = weight.reshape(layer.groups, -1, *weight.shape[1:])
        by_row = scales.reshape(layer.groups, 1, -1, 1, 1)
        return _to_levels(split, by_row, levels).reshape(weight.shape)
    return _to_levels(weight, scales.reshape(-1, *(1,) * (weight.ndim - 1)), levels)


def round_layer(layer: Layer, source: Grid | None, levels: int = LEVELS) -> None:
    """Give the layer the weight, and behind an input on a known grid the bias, that int8 holds."""
    scales = weight_scales(layer, levels)
    layer.weight = nn.Parameter(rounded_weight(layer, levels), requires_grad=False)
    bias = cast("Tensor | None", cast(Any, layer).bias)
    if bias is not None and source is not None:
        steps = scales * source.scale
        layer.bias = nn.Parameter((bias.detach() / steps).round() * steps, requires_grad=False)


def _to_levels(weight: Tensor, scales: Tensor, levels: int) -> Tensor:
    return (weight / scales).round().clamp(-levels, levels) * scales
