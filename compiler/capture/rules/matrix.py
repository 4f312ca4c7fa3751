"""Matrix products and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

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


def addmm(c: Context, bias: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> fx.Node:
    product = scaled(c, matmul(c, a, b), alpha)
    return c.b.call(ir.add, product, scaled(c, bias, beta))


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
    if is_causal or enable_gqa:
        raise c.unsupported("causal or grouped-query attention")
    q, k = c.tensor(q), c.tensor(k)
    rank = c.b.rank(k)
    k_t = c.b.permute(k, (*range(rank - 2), rank - 1, rank - 2))
    factor = 1 / math.sqrt(c.b.shape(q)[-1]) if scale is None else scale
    scores = c.b.call(torch.matmul, c.b.call(ir.mul, q, factor), k_t)
    if attn_mask is not None:
        mask = attn_mask
        if isinstance(mask, Constant) and mask.tensor.dtype == torch.bool:
            mask = Constant(torch.zeros(mask.tensor.shape).masked_fill(~mask.tensor, -1e30))
        scores = c.b.call(ir.add, scores, c.operand(mask))
    weights = c.b.new_module(f"{c.hint}_softmax", nn.Softmax(rank - 1), scores)
    return c.b.call(torch.matmul, weights, c.tensor(v))


def einsum(c: Context, equation: Any, *operands: Any) -> fx.Node:
    """Two operands; every index is a batch, a row, a column or the contracted one."""
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = tuple(cast("tuple[Any, ...]", operands[0]))
    if isinstance(equation, fx.Node) or len(operands) != 2 or "." in equation:
        raise c.unsupported("einsum of this form")
    left, right = equation.replace(" ", "").split("->")[0].split(",")
    out = equation.replace(" ", "").split("->")[1]
    a, b = c.tensor(operands[0]), c.tensor(operands[1])
    batch = [i for i in out if i in left and i in right]
    rows = [i for i in out if i in left and i not in right]
    columns = [i for i in out if i in right and i not in left]
    summed = [i for i in left if i in right and i not in out]
    if len(set(left)) < len(left) or len(set(right)) < len(right):
        raise c.unsupported("einsum with a repeated index")
    if set(left) | set(right) != {*batch, *rows, *columns, *summed}:
        raise c.unsupported("einsum that sums over one operand")

    def matrices(x: fx.Node, indices: str, groups: tuple[list[str], ...]) -> fx.Node:
        moved = c.b.permute(x, [indices.index(i) for g in groups for i in g])
        size = [dict(zip(indices, s, strict=True)) for s in c.b.shapes(x)]
        lead = groups[0]
        shapes = [
            (*(s[i] for i in lead), *(math.prod(s[i] for i in g) for g in groups[1:])) for s in size
        ]
        return c.b.reshape(moved, shapes)

    product = c.b.call(
        torch.matmul,
        matrices(a, left, (batch, rows, summed)),
        matrices(b, right, (batch, summed, columns)),
    )
    order = [*batch, *rows, *columns]
    sizes = [
        {**dict(zip(left, s, strict=True)), **dict(zip(right, t, strict=True))}
        for s, t in zip(c.b.shapes(a), c.b.shapes(b), strict=True)
    ]
    split = c.b.reshape(product, [tuple(s[i] for i in order) for s in sizes])
    return c.b.permute(split, [order.index(i) for i in out])


RULES: dict[str, Callable[..., Any]] = {
    "matmul": matmul,
    "bmm": matmul,
    "mm": matmul,
    "mv": matmul,
    "dot": matmul,
    "addmm": addmm,
    "scaled_dot_product_attention": attention,
    "einsum": einsum,
}
