"""Remove what computes nothing, fold what is known, absorb what a layer does on the way.

In one walk from the inputs to the outputs:

* Identity, Dropout (as in inference), x + 0, x − 0, x·1, x/1, and reshape, permute, slice, pad and
  cat that change nothing are bypassed;
* ReLU, ReLU6, Hardtanh and clamp whose input is within their limits are bypassed;
* reshape of reshape and permute of permute become one;
* what depends on constants alone becomes a constant;
* zero padding in front of a convolution becomes its own where it is symmetric;
* per-channel factors and shifts behind a layer (layer scale γ) move into its weights.

Dead code and unused modules go at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from shrinkc.passes.analysis.linear.linear_ops import LinearOps
from shrinkc.passes.analysis.ranges import ranges
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.analysis.usage import usage
from shrinkc.passes.base import PassResult
from shrinkc.passes.rewrite import Rewriter
from shrinkc.passes.simplify.absorb import absorb_affine, absorb_padding
from shrinkc.passes.simplify.constant_folding import fold_constant
from shrinkc.passes.simplify.context import SimplifyContext
from shrinkc.passes.simplify.no_ops import (
    bypass_idle_limit,
    bypass_no_op,
    join_permutes,
    join_reshapes,
)

Rule = Callable[[SimplifyContext, fx.Node], None]

RULES: tuple[Rule, ...] = (
    join_reshapes,
    join_permutes,
    bypass_no_op,
    bypass_idle_limit,
    fold_constant,
    absorb_padding,
    absorb_affine,
)


@dataclass(frozen=True)
class Simplify:
    """Apply every rule once to every node, in execution order. For deployment: a network that is
    still to be trained keeps its dropout by not being simplified.

    Declined with a reason: a layer that is called twice, shares a parameter or has two users.
    """

    name: ClassVar[str] = "simplify"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        copy = rewriter.graph_module
        known = shapes(copy)
        context = SimplifyContext(
            *(rewriter, known, _doubled(copy)),
            *(LinearOps(copy, known, usage(copy)), ranges(copy)),
        )
        with torch.no_grad():
            for node in rewriter.nodes:
                for rule in RULES:
                    if rewriter.alive(node):
                        rule(context, node)
        return rewriter.finish()


def _doubled(graph_module: fx.GraphModule) -> dict[str, tuple[int, ...]] | None:
    """The shapes at twice the batch; None where the graph is made for one batch size."""
    try:
        return shapes(graph_module, batch_factor=2)
    except (RuntimeError, ValueError):
        return None
