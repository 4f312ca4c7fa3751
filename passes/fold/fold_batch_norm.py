"""Fold batch norm into the layer in front of it, or behind it.

    BN(W ⋆ x + b)  =  (γ̂·W) ⋆ x + (γ̂·(b − μ) + β),     γ̂ = γ / √(σ² + ε)
    W ⋆ BN(x) + b  =  (W·γ̂) ⋆ x + (b + W·(β − γ̂·μ))     where no padding is read

(Ioffe & Szegedy, 2015, with the running statistics of inference.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx, nn

from shrinkc.passes.algebra.channel_affine import batch_norm_affine
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.analysis.usage import usage
from shrinkc.passes.base import PassResult
from shrinkc.passes.fold.affine_parts import AffineParts
from shrinkc.passes.fold.fold_affine import fold_into_input, fold_into_output, layer_of
from shrinkc.passes.ir import input_of, module_of
from shrinkc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class FoldBatchNorm:
    """Fold BatchNorm1d and BatchNorm2d into Conv2d, ConvTranspose2d and Linear.

    What is in front is tried first, then what is behind; in front of a concatenation several layers
    may share the work, and a layer whose channels are cut apart takes over what concerns it
    (`affine_parts`). The layers keep their names. Declined with a reason: a layer called twice or
    with shared parameters, values that others read too, no running statistics, variance + eps not
    positive, zero padding that would see the shift, no layer.
    """

    name: ClassVar[str] = "fold-batch-norm"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        copy = rewriter.graph_module
        parts = AffineParts(rewriter, shapes(copy), usage(copy))
        with torch.no_grad():
            for node in rewriter.nodes:
                norm = module_of(copy, node)
                if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                    _fold(rewriter, node, norm, parts)
        return rewriter.finish()


def _fold(
    rewriter: Rewriter, node: fx.Node, norm: nn.BatchNorm1d | nn.BatchNorm2d, parts: AffineParts
) -> None:
    try:
        affine = batch_norm_affine(norm)
    except ValueError as error:
        rewriter.skip(node, str(error))
        return
    source = input_of(node)
    front = parts.in_front(source, 1, *affine)
    if not isinstance(front, str):
        layers = [part for part in front if layer_of(rewriter, part.node)]
        for part in layers:
            fold_into_output(rewriter, part.node, part.scale, part.shift)
        kinds = " and ".join(dict.fromkeys(_kind(rewriter, part.node) for part in layers))
        rewriter.absorb_output(source, node, f"batch norm folded into {kinds}")
        rewriter.rescaled(source, [part.node for part in front if part.node is not source])
        return
    behind = parts.behind(node, 1, *affine)
    if isinstance(behind, str):
        rewriter.skip(node, f"{front}; {behind}")
        return
    layer, *way = behind
    fold_into_input(rewriter, layer.node, layer.scale, layer.shift)
    node.replace_all_uses_with(source)
    detail = f"batch norm in front folded into {_kind(rewriter, layer.node)}"
    rewriter.absorb_input(layer.node, [node], detail)
    rewriter.rescaled(layer.node, [part.node for part in way])


def _kind(rewriter: Rewriter, node: fx.Node) -> str:
    return type(rewriter.module(node)).__name__
