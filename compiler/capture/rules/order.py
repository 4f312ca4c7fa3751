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
    "values": _field(0),
    "indices": _field(1),
}
