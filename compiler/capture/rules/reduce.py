"""Reductions: sums, means, extremes, variances and norms over some dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import fx

from shrinkc.compiler.capture.context import Context
from shrinkc.passes import ir


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


def std(c: Context, x: Any, *how: Any, **named: Any) -> fx.Node:
    return c.b.call(torch.sqrt, var(c, x, *how, **named))


def _beside_mean(function: Callable[..., fx.Node]) -> Callable[..., Any]:
    """var_mean, std_mean"""

    def rule(
        c: Context,
        x: Any,
        dim: Any = None,
        unbiased: bool = True,
        keepdim: bool = False,
        correction: float | None = None,
    ) -> list[fx.Node]:
        x = c.tensor(x)
        mean = c.b.call(ir.mean, x, dims_of(c, dim, c.b.rank(x)), keepdim)
        return [function(c, x, dim, unbiased, keepdim, correction), mean]

    return rule


def norm(
    c: Context, x: Any, p: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> fx.Node:
    """Of vectors: (Σ |x|ᵖ)^(1/p)"""
    x = c.tensor(x)
    dims = dims_of(c, dim, c.b.rank(x))
    if p == 1:
        return c.b.call(ir.sum_, c.b.call(torch.abs, x), dims, keepdim)
    if p == math.inf:
        return c.b.call(ir.amax, c.b.call(torch.abs, x), dims, keepdim)
    if p == -math.inf:
        return c.b.call(ir.amin, c.b.call(torch.abs, x), dims, keepdim)
    if p in (2, "fro", None):
        summed = c.b.call(ir.sum_, c.b.call(ir.pow_, x, 2), dims, keepdim)
        return c.b.call(torch.sqrt, summed)
    if not isinstance(p, (int, float)) or p == 0:
        raise c.unsupported(f"norm of order {p}")
    powers = c.b.call(ir.pow_, c.b.call(torch.abs, x), p)
    return c.b.call(ir.pow_, c.b.call(ir.sum_, powers, dims, keepdim), 1 / p)


def linalg_norm(
    c: Context, x: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> fx.Node:
    """Of a vector, or Frobenius' of a matrix."""
    x = c.tensor(x)
    dims = dims_of(c, dim, c.b.rank(x))
    if ord not in (None, "fro") and len(dims) > 1:
        raise c.unsupported(f"a matrix norm of order {ord}; only Frobenius' is known")
    return norm(c, x, 2 if ord is None else ord, dims, keepdim)


def normalize(
    c: Context, x: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None
) -> fx.Node:
    length = c.b.call(ir.clamp, norm(c, x, p, dim, True), eps, None)
    return c.b.call(ir.div, c.tensor(x), length)


def logsumexp(c: Context, x: Any, dim: Any, keepdim: bool = False) -> fx.Node:
    """max + ln Σ exp(x − max): nothing overflows."""
    x = c.tensor(x)
    dims = dims_of(c, dim, c.b.rank(x))
    most = c.b.call(ir.amax, x, dims, True)
    powers = c.b.call(torch.exp, c.b.call(ir.sub, x, most))
    rest = c.b.call(torch.log, c.b.call(ir.sum_, powers, dims, True))
    return c.reshape_out(c.b.call(ir.add, rest, most))


def cosine_similarity(c: Context, a: Any, b: Any, dim: int = 1, eps: float = 1e-8) -> fx.Node:
    """a · b / (max(‖a‖, ε) · max(‖b‖, ε))"""
    a, b = c.tensor(a), c.tensor(b)
    dims = (dim % len(c.b.shape(a)),)
    product = c.b.call(ir.sum_, c.b.call(ir.mul, a, b), dims, False)
    sizes = [c.b.call(ir.clamp, norm(c, x, 2, dim), eps, None) for x in (a, b)]
    return c.b.call(ir.div, product, c.b.call(ir.mul, *sizes))


def matrix_norm(
    c: Context, x: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, **rest: Any
) -> fx.Node:
    return linalg_norm(c, x, ord, dim, keepdim)


def pairwise_distance(
    c: Context, a: Any, b: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> fx.Node:
    """‖a − b + ε‖ over the last dimension"""
    apart = c.b.call(ir.add, c.b.call(ir.sub, c.tensor(a), c.tensor(b)), eps)
    return norm(c, apart, p, c.b.rank(apart) - 1, keepdim)


def cdist(c: Context, a: Any, b: Any, p: float = 2.0, *mode: Any, **named: Any) -> fx.Node:
    """‖aᵢ − bⱼ‖ of every pair of rows. By differences, as PyTorch does it for few: the expanded
    square, which it takes for many, cancels."""
    a, b = c.tensor(a), c.tensor(b)
    rows = c.b.reshape(a, [(*s[:-1], 1, s[-1]) for s in c.b.shapes(a)])
    columns = c.b.reshape(b, [(*s[:-2], 1, *s[-2:]) for s in c.b.shapes(b)])
    apart = c.b.call(ir.sub, rows, columns)
    return norm(c, apart, p, c.b.rank(apart) - 1, False)


RULES: dict[str, Callable[..., Any]] = {
    "mean": _reduction(ir.mean),
    "sum": _reduction(ir.sum_),
    "amax": _reduction(ir.amax),
    "amin": _reduction(ir.amin),
    "prod": _reduction(ir.prod),
    "var": var,
    "std": std,
    "var_mean": _beside_mean(var),
    "std_mean": _beside_mean(std),
    "linalg_norm": linalg_norm,
    **dict.fromkeys(("linalg_matrix_norm", "matrix_norm"), matrix_norm),
    "pairwise_distance": pairwise_distance,
    **dict.fromkeys(("cdist", "_cdist_forward"), cdist),
    "norm": norm,
    "linalg_vector_norm": norm,
    "vector_norm": norm,
    "normalize": normalize,
    "logsumexp": logsumexp,
    "cosine_similarity": cosine_similarity,
}
