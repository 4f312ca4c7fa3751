"""Rules of `simplify` for nodes that move or change nothing, or do so twice."""

from __future__ import annotations

import operator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import fx, nn

from shrinkc.passes.analysis.ranges import limits
from shrinkc.passes.ir import module_of, slice_dim
from shrinkc.passes.simplify.context import SimplifyContext

_op: Any = operator
_NEUTRAL: dict[Any, tuple[float, bool]] = {  # the neutral number, and whether sides may swap
    _op.add: (0, True),
    _op.sub: (0, False),
    _op.mul: (1, True),
    _op.truediv: (1, False),
    _op.pow: (1, False),
}


def bypass_no_op(c: SimplifyContext, node: fx.Node) -> None:
    """f(x) = x: whoever reads f(x) reads x."""
    x = _unchanged(c, node)
    if x is not None and c.same_shape(x, node):
        c.rewriter.bypass(node, x, f"{_title(c, node)} does nothing")


def bypass_idle_limit(c: SimplifyContext, node: fx.Node) -> None:
    """limit(x) = x where x cannot be beyond: ReLU behind ReLU or sigmoid, a wide clamp behind a
    narrow one."""
    limited = limits(c.rewriter.graph_module, node)
    if limited is None:
        return
    low, high = c.ranges[node.all_input_nodes[0].name]
    if limited[0] <= low and high <= limited[1]:
        c.rewriter.bypass(node, node.all_input_nodes[0], f"{_title(c, node)} limits nothing")


def join_reshapes(c: SimplifyContext, node: fx.Node) -> None:
    """reshape(reshape(x, a), b) = reshape(x, b)"""
    x = _first(node)
    if node.target is torch.reshape and x is not None and x.target is torch.reshape:
        node.args = (x.args[0], *node.args[1:])
        c.rewriter.absorb_input(node, [x], "two reshapes are one")


def join_permutes(c: SimplifyContext, node: fx.Node) -> None:
    """permute(permute(x, a), b) = permute(x, a[b])"""
    x = _first(node)
    if node.target is torch.permute and x is not None and x.target is torch.permute:
        inner, outer = (cast("tuple[int, ...]", n.args[1]) for n in (x, node))
        node.args = (x.args[0], tuple(inner[i] for i in outer))
        c.rewriter.absorb_input(node, [x], "two permutes are one")


def _unchanged(c: SimplifyContext, node: fx.Node) -> fx.Node | None:
    """The input that the node returns as it is, if the shape is the same too."""
    x = _first(node)
    if node.op == "call_module":
        module = module_of(c.rewriter.graph_module, node)
        return x if isinstance(module, nn.Identity | nn.Dropout) else None
    if node.op != "call_function":
        return None
    if node.target in _NEUTRAL:
        return _beside_neutral(node)
    if node.target is torch.cat:
        parts = cast("tuple[fx.Node, ...]", node.args[0])
        return parts[0] if len(parts) == 1 else None
    if node.target is torch.permute:
        dims = cast("tuple[int, ...]", node.args[1])
        return x if dims == tuple(range(len(dims))) else None
    if node.target is slice_dim:
        return x if node.args[4] == 1 else None
    if node.target is F.pad:
        return x if not any(cast("tuple[int, ...]", node.args[1])) else None
    return x if node.target is torch.reshape else None


def _beside_neutral(node: fx.Node) -> fx.Node | None:
    neutral, swaps = _NEUTRAL[node.target]
    a, b = node.args
    if isinstance(a, fx.Node) and not isinstance(b, fx.Node) and b == neutral:
        return a
    if swaps and isinstance(b, fx.Node) and not isinstance(a, fx.Node) and a == neutral:
        return b
    return None


def _first(node: fx.Node) -> fx.Node | None:
    return node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None


def _title(c: SimplifyContext, node: fx.Node) -> str:
    module = module_of(c.rewriter.graph_module, node)
    return type(module).__name__ if module else getattr(node.target, "__name__", "it")
