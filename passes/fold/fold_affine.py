"""Layers that can take over a per-channel scale and shift of their output."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, fx, nn

from shrinkc.passes.algebra.channel_affine import scale_input, scale_output, scale_output_transposed
from shrinkc.passes.ir import module_of
from shrinkc.passes.rewrite import Rewriter, float64, set_parameters

Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


def layer_of(rewriter: Rewriter, node: fx.Node) -> Layer | None:
    """The convolution or linear layer that a node calls."""
    module = module_of(rewriter.graph_module, node)
    return module if isinstance(module, Layer) else None


def output_axis(layer: Layer, shape: tuple[int, ...]) -> int:
    """The dimension of the result that the layer's outputs are on."""
    return len(shape) - 1 if isinstance(layer, nn.Linear) else len(shape) - 3


def has_padding(layer: Layer) -> bool:
    """Some output reads fewer inputs than others: zeros stand for the rest.

    A transposed convolution always counts: each output reads only what reaches it.
    """
    if isinstance(layer, nn.Linear):
        return False
    return isinstance(layer, nn.ConvTranspose2d) or any(cast("tuple[int, int]", layer.padding))


def fold_into_output(rewriter: Rewriter, node: fx.Node, scale: Tensor, shift: Tensor) -> None:
    """Change the layer of `node` so that it computes scale·y + shift. Both are (channels,)."""
    layer = cast(Layer, rewriter.module(node))
    own = cast(Any, layer.bias)
    weight, bias = float64(layer.weight), None if own is None else float64(own)
    if isinstance(layer, nn.ConvTranspose2d):
        new = scale_output_transposed(weight, bias, scale, shift, layer.groups)
    else:
        new = scale_output(weight, bias, scale, shift)
    set_parameters(layer, *new)


def fold_into_input(rewriter: Rewriter, node: fx.Node, scale: Tensor, shift: Tensor) -> None:
    """Change the layer of `node` so that it computes what it did, of scale·x + shift. Both are
    (channels,). A transposed convolution takes no shift: its padding would see it."""
    layer = cast(Layer, rewriter.module(node))
    own = cast(Any, layer.bias)
    weight, bias = float64(layer.weight), None if own is None else float64(own)
    if isinstance(layer, nn.ConvTranspose2d):
        set_parameters(layer, weight * scale[:, None, None, None], bias)
        return
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    set_parameters(layer, *scale_input(weight, bias, scale, shift, groups))
