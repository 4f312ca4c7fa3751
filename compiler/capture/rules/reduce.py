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
    """Of vectors, of order 1, 2 or ∞."""
    x = c.tensor(x)
    dims = dims_of(c, dim, c.b.rank(x))
    if p == 1:
        return c.b.call(ir.sum_, c.b.call(torch.abs, x), dims, keepdim)
    if p == math.inf:
        return c.b.call(ir.amax, c.b.call(torch.abs, x), dims, keepdim)
    if p not in (2, "fro", None):
        raise c.unsupported(f"norm of order {p}")
    summed = c.b.call(ir.sum_, c.b.call(ir.pow_, x, 2), dims, keepdim)
    return c.b.call(torch.sqrt, summed)


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


RULES: dict[str, Callable[..., Any]] = {
    "mean": _reduction(ir.mean),
    "sum": _reduction(ir.sum_),
    "amax": _reduction(ir.amax),
    "amin": _reduction(ir.amin),
    "prod": _reduction(ir.prod),
    "var": var,
    "std": std,
    "var_mean": var_mean,
    "norm": norm,
    "linalg_vector_norm": norm,
    "vector_norm": norm,
    "normalize": normalize,
    "logsumexp": logsumexp,
    "cosine_similarity": cosine_similarity,
}
