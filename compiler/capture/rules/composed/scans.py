"""Running sums, products and extremes along a dimension, and what shifts along one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from shrinkc.compiler.capture.context import Context
from shrinkc.compiler.capture.rules.logic import truth_of
from shrinkc.compiler.capture.rules.reduce import dims_of
from shrinkc.compiler.capture.rules.shape import flip
from shrinkc.passes import ir


def cumsum(c: Context, x: Any, dim: int, *args: Any, **kwargs: Any) -> fx.Node:
    x = c.tensor(x)
    return c.b.call(ir.cumsum, x, _dim(c, x, dim))


def _scan(join: Callable[..., Any]) -> Callable[..., Any]:
    """log₂ n steps: everything joined with what stands 1, 2, 4, … places in front (Hillis and
    Steele)."""

    def rule(c: Context, x: Any, dim: int, *args: Any, **kwargs: Any) -> fx.Node:
        x = c.tensor(x)
        dim = _dim(c, x, dim)
        size, step = c.b.shape(x)[dim], 1
        while step < size:
            first = c.b.slice(x, dim, 0, step)
            rest = c.b.slice(x, dim, step, size)
            joined = c.b.call(join, rest, c.b.slice(x, dim, 0, size - step))
            x = c.b.call(torch.cat, (first, joined), dim)
            step *= 2
        return x

    return rule


def _running(join: Callable[..., Any]) -> Callable[..., Any]:
    """cummax, cummin: their indices are read by few, and no runtime has them."""
    scan = _scan(join)

    def rule(c: Context, x: Any, dim: int) -> list[Any]:
        return [scan(c, x, dim), None]

    return rule


def _dim(c: Context, x: fx.Node, dim: int) -> int:
    dim = dim % max(c.b.rank(x), 1)
    if len({shape[dim] for shape in c.b.shapes(x)}) > 1:
        raise c.unsupported("runs along the batch")
    return dim


def diff(
    c: Context, x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None
) -> fx.Node:
    """What follows less what stands in front, n times"""
    x = c.tensor(x)
    dim = _dim(c, x, dim)
    parts = [c.tensor(part) for part in (prepend, x, append) if part is not None]
    x = parts[0] if len(parts) == 1 else c.b.call(torch.cat, tuple(parts), dim)
    for _ in range(n):
        size = c.b.shape(x)[dim]
        x = c.b.call(ir.sub, c.b.slice(x, dim, 1, size), c.b.slice(x, dim, 0, size - 1))
    return x


def rot90(c: Context, x: Any, k: int = 1, dims: Any = (0, 1)) -> fx.Node:
    """Transposed and reversed"""
    x = c.tensor(x)
    rank, turns = c.b.rank(x), k % 4
    a, b = (d % rank for d in dims)
    order = list(range(rank))
    order[a], order[b] = b, a
    match turns:
        case 1:
            return c.b.permute(flip(c, x, (b,)), order)
        case 2:
            return flip(c, x, (a, b))
        case 3:
            return flip(c, c.b.permute(x, order), (b,))
        case _:
            return x


def count_nonzero(c: Context, x: Any, dim: Any = None) -> fx.Node:
    x = truth_of(c, x)
    return c.b.call(ir.sum_, x, dims_of(c, dim, c.b.rank(x)), False)


RULES: dict[str, Callable[..., Any]] = {
    "cumsum": cumsum,
    "cumprod": _scan(ir.mul),
    "cummax": _running(torch.maximum),
    "cummin": _running(torch.minimum),
    "diff": diff,
    "rot90": rot90,
    "count_nonzero": count_nonzero,
}
