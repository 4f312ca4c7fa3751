"""Fold batch norm into the layer in front of it, or behind it.

    BN(W ⋆ x + b)  =  (γ̂·W) ⋆ x + (γ̂·(b − μ) + β),     γ̂ = γ / √(σ² + ε)
    W ⋆ BN(x) + b  =  (W·γ̂) ⋆ x + (b + W·(β − γ̂·μ))     where no padding is read

(Ioffe & Szegedy, 2015, with the running statistics of inference.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, fx, nn

from shrinkc.passes.algebra.channel_affine import batch_norm_affine
from shrinkc.passes.analysis.shapes import Shapes, shapes
from shrinkc.passes.analysis.usage import Usage, usage
from shrinkc.passes.base import PassResult
from shrinkc.passes.fold.fold_affine import (
    fold_into_input,
    fold_into_output,
    has_padding,
    layer_of,
    output_axis,
)
from shrinkc.passes.ir import input_of, module_of
from shrinkc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class FoldBatchNorm:
    """Fold BatchNorm1d and BatchNorm2d into Conv2d, ConvTranspose2d and Linear.

    The layer in front is tried first, then the one behind. The layer keeps its name. Declined with
    a reason: a layer called twice or with shared parameters, an output with two users, no running
    statistics, variance + eps not positive, zero padding that would see the shift, no layer.
    """

    name: ClassVar[str] = "fold-batch-norm"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        copy = rewriter.graph_module
        known = shapes(copy), usage(copy)
        with torch.no_grad():
            for node in rewriter.nodes:
                norm = module_of(copy, node)
                if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                    _fold(rewriter, node, norm, *known)
        return rewriter.finish()


def _fold(
    rewriter: Rewriter,
    node: fx.Node,
    norm: nn.BatchNorm1d | nn.BatchNorm2d,
    known: Shapes,
    uses: Usage,
) -> None:
    try:
        scale, shift = batch_norm_affine(norm)
    except ValueError as error:
        rewriter.skip(node, str(error))
        return
    front = _why_not_front(rewriter, node, known, uses)
    if front is None:
        into = input_of(node)
        fold_into_output(rewriter, into, scale, shift)
        rewriter.absorb_output(into, node, f"batch norm folded into {_kind(rewriter, into)}")
        return
    behind = _why_not_behind(rewriter, node, known, uses, shift)
    if behind is None:
        layer_node = next(iter(node.users))
        fold_into_input(rewriter, layer_node, scale, shift)
        layer_node.args = (input_of(node),)
        detail = f"batch norm in front folded into {_kind(rewriter, layer_node)}"
        rewriter.absorb_input(layer_node, [node], detail)
        return
    rewriter.skip(node, f"{front}; {behind}")


def _why_not_front(rewriter: Rewriter, node: fx.Node, known: Shapes, uses: Usage) -> str | None:
    """Why the layer in front cannot take the batch norm."""
    source = input_of(node)
    layer = layer_of(rewriter, source)
    if layer is None:
        return f"in front is '{source.name}', no convolution or linear layer"
    if len(source.users) > 1:
        return f"the output of '{source.name}' has {len(source.users)} users"
    if output_axis(layer, known[source.name]) != 1:
        return f"batch norm normalises dimension 1 of '{source.name}', not the features"
    shared = uses.why_shared(layer)
    return f"'{source.name}' cannot change: {shared}" if shared else None


def _why_not_behind(
    rewriter: Rewriter, node: fx.Node, known: Shapes, uses: Usage, shift: Tensor
) -> str | None:
    """Why the layer behind cannot take the batch norm."""
    users = list(node.users)
    if len(users) != 1:
        return f"its own output has {len(users)} users"
    layer = layer_of(rewriter, users[0])
    if layer is None:
        return f"behind is '{users[0].name}', no convolution or linear layer"
    if isinstance(layer, nn.Linear) and len(known[node.name]) != 2:
        return "batch norm normalises dimension 1, the linear layer behind reads the last"
    if has_padding(layer) and bool(shift.any()):
        return f"the zero padding of '{users[0].name}' would see the shift"
    shared = uses.why_shared(layer)
    return f"'{users[0].name}' cannot change: {shared}" if shared else None


def _kind(rewriter: Rewriter, node: fx.Node) -> str:
    return type(rewriter.module(node)).__name__
