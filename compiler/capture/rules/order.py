"""Extremes along a dimension, where they are, and what is sorted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from shrinkc.compiler.capture.builder import Constant, Expanded
from shrinkc.compiler.capture.context import Context
from shrinkc.passes import ir


def argmax(c: Context, x: Any, dim: int | None = None, keepdim: bool = False) -> fx.Node:
    x = c.tensor(x)
    if dim is None:
        x = c.b.reshape(x, [(math.prod(s),) for s in c.b.shapes(x)])
        return c.reshape_out(c.b.call(ir.argmax, x, 0, False))
    return c.b.call(ir.argmax, x, dim % c.b.rank(x), keepdim)


def argmin(c: Context, x: Any, dim: int | None = None, keepdim: bool = False) -> fx.Node:
    return argmax(c, c.b.call(ir.neg, c.tensor(x)), dim, keepdim)


def _extreme(
    of_all: Callable[..., Any], of_two: Callable[..., Any], place: Callable[..., fx.Node]
) -> Callable[..., Any]:
    """`torch.max`: of everything, of two tensors, or (values, indices) along a dimension."""

    def rule(c: Context, x: Any, dim: Any = None, keepdim: bool = False, other: Any = None) -> Any:
        if isinstance(dim, (fx.Node, Constant, Expanded)):
            dim, other = None, dim
        if other is not None:
            return c.b.call(of_two, c.tensor(x), c.tensor(other))
        x = c.tensor(x)
        if dim is None:
            return c.b.call(of_all, x, tuple(range(c.b.rank(x))), False)
        values = c.b.call(of_all, x, (dim % c.b.rank(x),), keepdim)
        return [values, place(c, x, dim, keepdim)]

    return rule


def topk(
    c: Context, x: Any, k: Any, dim: int = -1, largest: bool = True, sorted: bool = True
) -> list[fx.Node]:
    """Sorted, whether or not that is asked for."""
    x, count = c.tensor(x), c.b.fixed(k, "how many are the largest")
    dim = dim % c.b.rank(x)
    signed = x if largest else c.b.call(ir.neg, x)
    values = c.b.call(ir.topk_values, signed, count, dim)
    indices = c.b.call(ir.topk_indices, signed, count, dim)
    return [values if largest else c.b.call(ir.neg, values), indices]


def sort(
    c: Context, x: Any, dim: int = -1, descending: bool = False, stable: bool = False
) -> list[fx.Node]:
    """All of them are the largest."""
    x = c.tensor(x)
    dim = dim % c.b.rank(x)
    if len({shape[dim] for shape in c.b.shapes(x)}) > 1:
        raise c.unsupported("sorts the batch")
    return topk(c, x, c.b.shape(x)[dim], dim, descending)


def argsort(
    c: Context, x: Any, dim: int = -1, descending: bool = False, stable: bool = False
) -> fx.Node:
    return sort(c, x, dim, descending)[1]


def kthvalue(c: Context, x: Any, k: int, dim: int = -1, keepdim: bool = False) -> list[fx.Node]:
    """The last of the k smallest."""
    x = c.tensor(x)
    dim = dim % c.b.rank(x)
    found = topk(c, x, k, dim, largest=False)
    last = [c.b.slice(part, dim, k - 1, k) for part in found]
    outs = (c.out[0].shapes, c.out[1].shapes)
    return [c.b.reshape(part, shapes) for part, shapes in zip(last, outs, strict=True)]


def median(c: Context, x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower one of two in the middle."""
    x = c.tensor(x)
    if dim is not None:
        return kthvalue(c, x, (c.b.shape(x)[dim] + 1) // 2, dim, keepdim)
    flat = c.b.reshape(x, [(math.prod(s),) for s in c.b.shapes(x)])
    if len(set(c.b.shapes(flat))) > 1:
        raise c.unsupported("the median of a whole batch")
    count = (c.b.shape(flat)[0] + 1) // 2
    smallest = topk(c, flat, count, 0, largest=False)[0]
    return c.reshape_out(c.b.slice(smallest, 0, count - 1, count))


def aminmax(c: Context, x: Any, *, dim: int | None = None, keepdim: bool = False) -> list[fx.Node]:
    x = c.tensor(x)
    dims = tuple(range(c.b.rank(x))) if dim is None else (dim % c.b.rank(x),)
    return [c.b.call(function, x, dims, keepdim) for function in (ir.amin, ir.amax)]


def _field(index: int) -> Callable[..., Any]:
    """`x.max(1).values`"""

    def rule(c: Context, results: Any) -> fx.Node:
        return results[index]

    return rule


RULES: dict[str, Callable[..., Any]] = {
    "argmax": argmax,
    "argmin": argmin,
    "max": _extreme(ir.amax, torch.maximum, argmax),
    "min": _extreme(ir.amin, torch.minimum, argmin),
    "topk": topk,
    "sort": sort,
    "argsort": argsort,
    "kthvalue": kthvalue,
    "median": median,
    "aminmax": aminmax,
    "values": _field(0),
    "indices": _field(1),
}
