"""Fold the normalisation of an image into the convolutions that read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shrinkc.passes.base import PassResult
from shrinkc.passes.ir import module_of
from shrinkc.passes.rewrite import Rewriter, float64, set_parameters

CLOSE = 1e-9  # of pad values that count as one


@dataclass(frozen=True)
class FoldNormalisation:
    """The 1×1 convolution `layer`, A·x + t at every pixel, into all convolutions that read it:

        W ⋆ (A·x + t) + b  =  (W·A) ⋆ x + (b + Σ W·t)

    W (out, C, kh, kw), A (C, C), t (C,). Where a convolution pads with zeros, the raw image is
    padded with p instead, A·p + t = 0, by a layer of its own unless p is 0. That layer has one
    number for all channels.

    pads  such a layer may be added, or be given another number

    Declined with a reason: a reader that is no convolution, or one in groups, or one whose weights
    others use; padding whose numbers differ from channel to channel, or that is not to be added.
    """

    layer: str
    pads: bool = True
    name: ClassVar[str] = "fold-normalisation"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        for node in rewriter.find((self.layer,)):
            module = cast(nn.Conv2d, rewriter.module(node))
            affine = _Affine.of(module)
            reason = next(
                filter(None, (self._obstacle(rewriter, u, affine) for u in node.users)), ""
            )
            if reason:
                rewriter.skip(node, reason)
                continue
            source = cast(fx.Node, node.args[0])
            for user in list(node.users):
                user.replace_input_with(node, source)
                if user.target is F.pad:
                    value = affine.pad
                    user.args = (*user.args[:3], value)
                    for reader in user.users:
                        _fold(rewriter, reader, affine)
                        rewriter.absorb_input(reader, [node], _said(value))
                    rewriter.rescaled(next(iter(user.users)), [user])
                else:
                    _pad(rewriter, user, affine.pad)
                    _fold(rewriter, user, affine)
                    rewriter.absorb_input(user, [node], _said(affine.pad))
        return rewriter.finish()

    def _obstacle(self, rewriter: Rewriter, user: fx.Node, affine: _Affine) -> str:
        """Why it cannot be folded into a reader; empty where it can."""
        if user.target is F.pad:
            _, _, mode, value = user.args
            if mode != "constant" or value not in (None, 0, 0.0):
                return f"'{user.name}' pads with something else than zeros"
            found = (self._of_convolution(rewriter, reader, affine, 0) for reader in user.users)
            return next(filter(None, found), "") or self._of_padding(user, affine)
        return self._of_convolution(rewriter, user, affine, 1)

    def _of_convolution(
        self, rewriter: Rewriter, user: fx.Node, affine: _Affine, padding: int
    ) -> str:
        """`padding`: 0 where it may have none of its own, behind another."""
        module = module_of(rewriter.graph_module, user)
        if not isinstance(module, nn.Conv2d):
            return f"'{user.name}' reads it, which is no convolution"
        if module.groups != 1:
            return f"'{user.name}' is a convolution in groups"
        shared = [n for n in rewriter.nodes if module_of(rewriter.graph_module, n) is module]
        if len(shared) > 1:
            return f"the weights of '{user.name}' are used again"
        if not any(cast("tuple[int, int]", module.padding)):
            return ""
        return self._of_padding(user, affine) if padding else f"'{user.name}' pads once more"

    def _of_padding(self, user: fx.Node, affine: _Affine) -> str:
        if affine.pad is None:
            numbers = ", ".join(f"{float(p):.4g}" for p in affine.pads)
            return f"'{user.name}' pads, and zeros are {numbers} in the channels of the raw image"
        if affine.pad and not self.pads:
            return f"'{user.name}' pads, and int8 may not hold {affine.pad:.4g} exactly"
        return ""


@dataclass(frozen=True, eq=False)
class _Affine:
    matrix: Tensor  # (C, C)
    shift: Tensor  # (C,)
    pads: Tensor  # (C,), what becomes zero

    @classmethod
    def of(cls, module: nn.Conv2d) -> _Affine:
        weight, bias = float64(module.weight)[:, :, 0, 0], module.bias
        matrix = torch.diag(weight[:, 0]) if module.groups > 1 else weight
        shift = float64(cast(Tensor, bias))
        linalg: Any = torch.linalg  # untyped
        return cls(matrix, shift, linalg.solve(matrix, -shift))

    @property
    def pad(self) -> float | None:
        """Of all channels; None where they differ."""
        first = self.pads[0]
        if not torch.allclose(self.pads, first, rtol=CLOSE, atol=CLOSE):
            return None
        return 0.0 if abs(float(first)) < CLOSE else float(first)


def _said(value: float | None) -> str:
    padded = f", which is padded with {value:.6g}" if value else ""
    return f"reads the raw image{padded}"


def _fold(rewriter: Rewriter, node: fx.Node, affine: _Affine) -> None:
    layer = cast(nn.Conv2d, rewriter.module(node))
    weight, own = float64(layer.weight), layer.bias
    bias = torch.einsum("ocij,c->o", weight, affine.shift)
    if own is not None:  # pyright: ignore[reportUnnecessaryComparison]
        bias = bias + float64(own)
    set_parameters(layer, torch.einsum("ocij,cd->odij", weight, affine.matrix), bias)


def _pad(rewriter: Rewriter, node: fx.Node, value: float | None) -> None:
    """The raw image, padded in front of the convolution where it pads."""
    layer = cast(nn.Conv2d, rewriter.module(node))
    rows, columns = cast("tuple[int, int]", layer.padding)
    if not value or not (rows or columns):
        return
    layer.padding = (0, 0)
    amounts = (columns, columns, rows, rows)
    with node.graph.inserting_before(node):
        padded = node.graph.call_function(F.pad, (node.args[0], amounts, "constant", value))
    node.args = (padded,)
    rewriter.helper(node, padded)
