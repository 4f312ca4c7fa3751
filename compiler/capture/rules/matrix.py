"""Matrix products and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from shrinkc.compiler.capture.builder import Constant
from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.rules.arithmetic import scaled
from shrinkc.passes import ir


def matmul(c: Context, a: Any, b: Any) -> fx.Node:
    """A vector is a row in front of a matrix, a column behind one."""
    a, b = _raised(c, a, 0), _raised(c, b, 1)
    return c.reshape_out(c.b.call(torch.matmul, a, b))


def _raised(c: Context, x: Any, dim: int) -> fx.Node:
    """A vector with a dimension of 1 more."""
    if isinstance(x, Constant) and x.tensor.ndim == 1 and not isinstance(x.tensor, nn.Parameter):
        return c.tensor(Constant(x.tensor.unsqueeze(dim)))
    x = c.tensor(x)
    if c.b.rank(x) > 1:
        return x
    return c.b.reshape(x, [(1, *s) if dim == 0 else (*s, 1) for s in c.b.shapes(x)])


def add_product(c: Context, x: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> fx.Node:
    """β x + α a b"""
    product = scaled(c, matmul(c, a, b), alpha)
    return product if beta == 0 else c.b.call(ir.add, product, scaled(c, x, beta))


def attention(
    c: Context,
    q: Any,
    k: Any,
    v: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> fx.Node:
    """softmax(q kᵀ · scale + mask) v"""
    q, k, v = (c.tensor(x) for x in (q, k, v))
    if enable_gqa:
        k, v = (_repeated_heads(c, x, c.b.shape(q)[-3]) for x in (k, v))
    rank = c.b.rank(k)
    k_t = c.b.permute(k, (*range(rank - 2), rank - 1, rank - 2))
    factor = 1 / math.sqrt(c.b.shape(q)[-1]) if scale is None else scale
    scores = c.b.call(torch.matmul, c.b.call(ir.mul, q, factor), k_t)
    mask = attn_mask
    if is_causal:
        mask = Constant(torch.ones(c.b.shape(scores)[-2:], dtype=torch.bool).tril())
    if mask is not None:
        if isinstance(mask, Constant) and mask.tensor.dtype == torch.bool:
            mask = Constant(torch.zeros(mask.tensor.shape).masked_fill(~mask.tensor, -1e30))
        scores = c.b.call(ir.add, scores, c.operand(mask))
    weights = c.b.new_module(f"{c.hint}_softmax", nn.Softmax(rank - 1), scores)
    return c.b.call(torch.matmul, weights, v)


def _repeated_heads(c: Context, x: fx.Node, heads: int) -> fx.Node:
    """(…, fewer heads, positions, features): each as often as it takes, in a row"""
    at = c.b.rank(x) - 3
    count = heads // c.b.shape(x)[at]
    return c.b.call(ir.take, x, at, tuple(i // count for i in range(heads)))


RULES: dict[str, Callable[..., Any]] = {
    "matmul": matmul,
    "bmm": matmul,
    "mm": matmul,
    "mv": matmul,
    "dot": matmul,
    **dict.fromkeys(("addmm", "addmv", "baddbmm"), add_product),
    "scaled_dot_product_attention": attention,
}
