"""Arithmetic, reductions and matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import fx, nn

from shrinkc.compiler.capture.builder import Constant, Expanded
from shrinkc.compiler.capture.context import Context
from shrinkc.passes import ir


def _binary(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(c: Context, a: Any, b: Any) -> Any:
        return c.b.call(function, c.operand(a), c.operand(b))

    return rule


def _unary(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(c: Context, x: Any) -> Any:
        return c.b.call(function, c.tensor(x))

    return rule


def add(c: Context, a: Any, b: Any, alpha: float = 1) -> fx.Node:
    return c.b.call(ir.add, c.operand(a), _scaled(c, b, alpha))


def sub(c: Context, a: Any, b: Any, alpha: float = 1) -> fx.Node:
    return c.b.call(ir.sub, c.operand(a), _scaled(c, b, alpha))


def rsub(c: Context, a: Any, b: Any, alpha: float = 1) -> fx.Node:
    return c.b.call(ir.sub, c.operand(b), _scaled(c, a, alpha))


def _scaled(c: Context, value: Any, alpha: float) -> Any:
    operand = c.operand(value)
    return operand if alpha == 1 else c.b.call(ir.mul, operand, alpha)


def div(c: Context, a: Any, b: Any, rounding_mode: str | None = None) -> fx.Node:
    if rounding_mode is not None:
        raise c.unsupported(f"rounding_mode={rounding_mode}")
    return c.b.call(ir.div, c.operand(a), c.operand(b))


def pow_(c: Context, x: Any, exponent: Any) -> fx.Node:
    return c.b.call(ir.pow_, c.operand(x), c.operand(exponent))


def square(c: Context, x: Any) -> fx.Node:
    return c.b.call(ir.pow_, c.tensor(x), 2)


def reciprocal(c: Context, x: Any) -> fx.Node:
    return c.b.call(ir.div, 1.0, c.tensor(x))


def clamp(c: Context, x: Any, min: float | None = None, max: float | None = None) -> fx.Node:
    low, high = (_number(c, limit) for limit in (min, max))
    return c.b.call(ir.clamp, c.tensor(x), low, high)


def clamp_max(c: Context, x: Any, max: float) -> fx.Node:
    return clamp(c, x, None, max)


def _number(c: Context, value: Any) -> float | None:
    if isinstance(value, Constant) and value.tensor.numel() == 1:
        return float(value.tensor)
    if value is None or isinstance(value, (int, float)):
        return value
    raise c.unsupported("a limit that is not a number")


def dims_of(c: Context, dim: Any, rank: int) -> tuple[int, ...]:
    """All dimensions for None or (), counted from 0 and sorted."""
    if dim is None or dim == () or dim == []:
        return tuple(range(rank))
    dims = (dim,) if isinstance(dim, int) else tuple(cast("tuple[int, ...]", dim))
    return tuple(sorted(d % rank for d in dims))


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(
        c: Context, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None
    ) -> fx.Node:
        x = c.tensor(x)
        return c.b.call(function, x, dims_of(c, dim, c.b.rank(x)), keepdim)

    return rule


def max_(c: Context, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """`torch.max`: of everything, of two tensors, or (values, indices) along a dimension."""
    if isinstance(dim, (fx.Node, Constant, Expanded)):
        return c.b.call(torch.maximum, c.tensor(x), c.tensor(dim))
    x = c.tensor(x)
    values = c.b.call(ir.amax, x, dims_of(c, dim, c.b.rank(x)), keepdim)
    return values if dim is None else [values, None]


def min_(c: Context, x: Any, other: Any) -> Any:
    return c.b.call(torch.minimum, c.tensor(x), c.tensor(other))


def _variance(c: Context, x: fx.Node, dims: tuple[int, ...], ddof: float, keepdim: bool) -> Any:
    count = math.prod(c.b.shape(x)[d] for d in dims)
    centred = c.b.call(ir.sub, x, c.b.call(ir.mean, x, dims, True))
    squares = c.b.call(ir.pow_, centred, 2)
    result = c.b.call(ir.mean, squares, dims, keepdim)
    return result if ddof == 0 else c.b.call(ir.mul, result, count / (count - ddof))


def var(
    c: Context,
    x: Any,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    correction: float | None = None,
) -> fx.Node:
    x = c.tensor(x)
    ddof = float(unbiased) if correction is None else correction
    return _variance(c, x, dims_of(c, dim, c.b.rank(x)), ddof, keepdim)


def std(
    c: Context,
    x: Any,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    correction: float | None = None,
) -> fx.Node:
    return c.b.call(torch.sqrt, var(c, x, dim, unbiased, keepdim, correction))


def var_mean(
    c: Context,
    x: Any,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    correction: float | None = None,
) -> list[fx.Node]:
    x = c.tensor(x)
    mean = c.b.call(ir.mean, x, dims_of(c, dim, c.b.rank(x)), keepdim)
    return [var(c, x, dim, unbiased, keepdim, correction), mean]


def norm(
    c: Context, x: Any, p: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> fx.Node:
    """Euclidean norms only."""
    if p not in (2, 2.0, "fro"):
        raise c.unsupported(f"norm of order {p}")
    x = c.tensor(x)
    squares = c.b.call(ir.pow_, x, 2)
    summed = c.b.call(ir.sum_, squares, dims_of(c, dim, c.b.rank(x)), keepdim)
    return c.b.call(torch.sqrt, summed)


def normalize(
    c: Context, x: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None
) -> fx.Node:
    length = c.b.call(ir.clamp, norm(c, x, p, dim, True), eps, None)
    return c.b.call(ir.div, c.tensor(x), length)


def matmul(c: Context, a: Any, b: Any) -> fx.Node:
    a, b = c.tensor(a), c.tensor(b)
    if c.b.rank(a) < 2 or c.b.rank(b) < 2:
        raise c.unsupported("a matrix product with a vector")
    return c.b.call(torch.matmul, a, b)


def addmm(c: Context, bias: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> fx.Node:
    product = _scaled(c, matmul(c, a, b), alpha)
    return c.b.call(ir.add, product, _scaled(c, bias, beta))


def addcmul(c: Context, x: Any, a: Any, b: Any, value: float = 1) -> fx.Node:
    product = c.b.call(ir.mul, c.operand(a), c.operand(b))
    return c.b.call(ir.add, c.operand(x), _scaled(c, product, value))


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


def where(c: Context, condition: Any, a: Any, b: Any) -> fx.Node:
    """With a known condition: cond · a + (1 − cond) · b."""
    mask = c.parameter(condition, "condition")
    if mask is None:
        raise c.unsupported("a condition is needed")
    keep = c.tensor(Constant(mask.tensor.float()))
    drop = c.tensor(Constant(1.0 - mask.tensor.float()))
    kept = c.b.call(ir.mul, keep, c.operand(_finite(a)))
    dropped = c.b.call(ir.mul, drop, c.operand(_finite(b)))
    return c.b.call(ir.add, kept, dropped)


def masked_fill(c: Context, x: Any, mask: Any, value: Any) -> fx.Node:
    return where(c, mask, value, x)


def _finite(value: Any) -> Any:
    """0 · ∞ is not a number, so masks use a large one."""
    if isinstance(value, Constant) and value.tensor.ndim == 0:
        value = float(value.tensor)
    if isinstance(value, (int, float)):
        return min(max(float(value), -1e30), 1e30)
    return value


RULES: dict[str, Callable[..., Any]] = {
    "add": add,
    "sub": sub,
    "subtract": sub,
    "rsub": rsub,
    "mul": _binary(ir.mul),
    "multiply": _binary(ir.mul),
    "div": div,
    "divide": div,
    "true_divide": div,
    "truediv": div,
    "pow": pow_,
    "square": square,
    "reciprocal": reciprocal,
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "max": max_,
    "min": min_,
    "clamp": clamp,
    "clip": clamp,
    "clamp_min": clamp,
    "clamp_max": clamp_max,
    "sqrt": _unary(torch.sqrt),
    "rsqrt": _unary(torch.rsqrt),
    "exp": _unary(torch.exp),
    "log": _unary(torch.log),
    "abs": _unary(torch.abs),
    "neg": _unary(ir.neg),
    "erf": _unary(torch.erf),
    "mean": _reduction(ir.mean),
    "sum": _reduction(ir.sum_),
    "amax": _reduction(ir.amax),
    "var": var,
    "std": std,
    "var_mean": var_mean,
    "norm": norm,
    "linalg_vector_norm": norm,
    "vector_norm": norm,
    "normalize": normalize,
    "matmul": matmul,
    "bmm": matmul,
    "mm": matmul,
    "addmm": addmm,
    "addcmul": addcmul,
    "scaled_dot_product_attention": attention,
    "einsum": einsum,
    "where": where,
    "masked_fill": masked_fill,
}
