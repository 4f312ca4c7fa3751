"""Functions of the closed set on channel identities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx

from shrinkc.passes.analysis.channels.channel_ids import FIXED, ChannelBook, Ids, Value
from shrinkc.passes.analysis.channels.channel_reshape import reshape
from shrinkc.passes.analysis.shapes import Shape
from shrinkc.passes.ir import (
    BROADCASTING,
    REDUCTIONS,
    UNARY,
    argmax,
    clamp,
    cumsum,
    dynamic_conv,
    embedding,
    grid_sample,
    integers,
    is_node,
    numbers,
    pick,
    slice_dim,
    sum_,
    take,
    topk_indices,
    topk_values,
)

Axes = Mapping[int, Ids]


@dataclass(frozen=True, eq=False)
class Call:
    """One node of the run: what it reads (a `Value` for every node) and the shape of its result."""

    book: ChannelBook
    node: fx.Node
    values: Mapping[fx.Node, Value]
    shape: Shape

    @property
    def name(self) -> str:
        return self.node.name

    def value(self, argument: object) -> Value:
        return self.values[cast(fx.Node, argument)]

    def computed(self, argument: object) -> Value:
        """A value; a constant that gets here, where it cannot follow, keeps all its elements."""
        value = self.value(argument)
        if value.constant is not None:
            path, tensor = value.constant
            layer, _, parameter = path.rpartition(".")
            for dim in range(tensor.ndim):
                self.book.touch((layer, parameter), tensor, dim, None, self.name, "scale")
        return value

    def protect_all(self, reason: str) -> Axes:
        """Nothing of what is read here can go."""
        for source in self.node.all_input_nodes:
            for ids in self.computed(source).axes.values():
                self.book.protect(ids, self.name, reason)
        return {}


def _combine(c: Call) -> Axes:
    operands = [c.value(a) for a in c.node.args if is_node(a)]
    return c.book.combine(operands, c.shape, c.name)


def _matmul(c: Call) -> Axes:
    """(…, m, k) · (…, k, n): k ends here, the rest broadcasts."""
    a, b = (c.computed(x) for x in c.node.args)
    if min(len(a.shape), len(b.shape)) < 2:
        return c.protect_all("a product with a vector")
    _contract(c, a, b)
    lead = [
        Value(v.shape[:-2], {d: i for d, i in v.axes.items() if d < len(v.shape) - 2})
        for v in (a, b)
    ]
    found = c.book.combine(lead, c.shape[:-2], c.name)
    last = len(c.shape) - 1
    rows, columns = a.axes.get(len(a.shape) - 2), b.axes.get(len(b.shape) - 1)
    return {
        **found,
        **({} if rows is None else {last - 1: rows}),
        **({} if columns is None else {last: columns}),
    }


def _contract(c: Call, a: Value, b: Value) -> None:
    at_a, at_b = len(a.shape) - 1, len(b.shape) - 2
    inner = a.axes.get(at_a), b.axes.get(at_b)
    names = [x.name for x in cast("tuple[fx.Node, ...]", c.node.args)]
    for mine, other in (inner, inner[::-1]):
        if mine is not None and other is None:
            c.book.protect(mine, c.name, "multiplied with a matrix that has no channels there")
    if inner[0] is not None and inner[1] is not None:
        c.book.unify(inner[0], inner[1], c.name)
        c.book.use(c.name, names[0], at_a, inner[0], "zero")
        c.book.use(c.name, names[1], at_b, inner[1], "zero")


def _cat(c: Call) -> Axes:
    nodes, dim = cast("tuple[tuple[fx.Node, ...], int]", c.node.args)
    values = [c.value(n) for n in nodes]
    for value in values:
        if value.constant is not None and value.shape[dim] > 1:
            path, tensor = value.constant
            layer, _, parameter = path.rpartition(".")
            at = dim - len(value.shape) + tensor.ndim
            c.book.touch((layer, parameter), tensor, at, None, c.name, "scale")
    found = dict(c.book.combine([_without(v, dim) for v in values], _one(c.shape, dim), c.name))
    if any(dim in v.axes for v in values):
        parts = [v.axes.get(dim, np.full(v.shape[dim], FIXED)) for v in values]
        found[dim] = np.concatenate(parts)
    return found


def _without(value: Value, dim: int) -> Value:
    """The other axes of a value."""
    axes = {d: i for d, i in value.axes.items() if d != dim}
    return Value(_one(value.shape, dim), axes, value.constant)


def _one(shape: Shape, dim: int) -> Shape:
    return (*shape[:dim], 1, *shape[dim + 1 :])


def _reshape(c: Call) -> Axes:
    found = reshape(c.book, c.computed(c.node.args[0]), c.shape, c.name)
    written = cast("tuple[int, ...]", c.node.args[1])
    for axis, ids in found.items():
        if written[axis] != -1:
            c.book.count_of(c.name, (1, axis), ids)
    return found


def _permute(c: Call) -> Axes:
    x, dims = c.computed(c.node.args[0]), cast("tuple[int, ...]", c.node.args[1])
    return {to: x.axes[dim] for to, dim in enumerate(dims) if dim in x.axes}


def _slice(c: Call) -> Axes:
    """A part of the channels; a stride takes or leaves whole runs of `step` channels."""
    _, dim, start, stop, step = cast("tuple[Any, int, int, int, int]", c.node.args)
    x = c.computed(c.node.args[0])
    ids = x.axes.get(dim)
    if ids is None:
        return x.axes
    if step == 1:
        c.book.count_of(c.name, (2,), ids[:start])
    elif len(ids) % step or start >= step:
        c.book.protect(ids, c.name, f"every {step}th channel is taken")
    else:
        runs = ids.reshape(-1, step)
        c.book.unify(runs, runs[:, :1], c.name)
    c.book.count_of(c.name, (3,), ids[:stop])
    part = ids[start:stop:step]
    if step == 1 and len(part) < len(ids):
        c.book.part(part)
    return {**x.axes, dim: part}


def _pad(c: Call) -> Axes:
    """Channels of padding are new ones; they go with what they are added to."""
    _, amounts, mode, _ = cast("tuple[Any, tuple[int, ...], str, Any]", c.node.args)
    x = c.computed(c.node.args[0])
    found = dict(x.axes)
    for axis, ids in x.axes.items():
        at = 2 * (len(x.shape) - 1 - axis)
        if at >= len(amounts) or not any(amounts[at : at + 2]):
            continue
        front, back = amounts[at : at + 2]
        if mode != "constant" or min(front, back) < 0:
            c.book.protect(ids, c.name, f"channels are padded ({mode}) or cropped")
            del found[axis]
            continue
        new = c.book.make(front + back, c.name)
        c.book.count_of(c.name, (1, at), new[:front])
        c.book.count_of(c.name, (1, at + 1), new[front:])
        found[axis] = np.concatenate((new[:front], ids, new[front:]))
    return found


def _reduce(c: Call) -> Axes:
    """Channels that are reduced away end here."""
    x, dims, keep = cast("tuple[fx.Node, tuple[int, ...], bool]", c.node.args)
    value = c.computed(x)
    how = "zero" if c.node.target is sum_ else "left out"
    for axis in dims:
        if axis in value.axes:
            c.book.use(c.name, x.name, axis, value.axes[axis], how)
    kept = [a for a in range(len(value.shape)) if keep or a not in dims]
    return {to: value.axes[a] for to, a in enumerate(kept) if a in value.axes and a not in dims}


def _embedding(c: Call) -> Axes:
    """The features of a table stay."""
    return c.protect_all("rows of a table")


def _same(c: Call) -> Axes:
    return c.computed(c.node.args[0]).axes


def _ordered(at: int, reason: str) -> Callable[[Call], Axes]:
    """Along the dimension `args[at]` positions count, so that none of its channels can go."""

    def rule(c: Call) -> Axes:
        value, dim = c.computed(c.node.args[0]), cast(int, c.node.args[at])
        if dim in value.axes:
            c.book.protect(value.axes[dim], c.name, reason)
        gone = len(value.shape) - len(c.shape)  # an argmax without keepdim
        left = {a: ids for a, ids in value.axes.items() if a != dim}
        return {a - gone if a > dim else a: ids for a, ids in left.items()}

    return rule


def _pick(c: Call) -> Axes:
    """What lies behind the rows comes along whole; rows are read by number."""
    table, rows = (c.computed(x) for x in c.node.args)
    for value, first in ((table, 2), (rows, len(rows.shape))):
        for axis, ids in value.axes.items():
            if axis < first:
                c.book.protect(ids, c.name, "picked by number")
    return {axis: ids for axis, ids in table.axes.items() if axis > 1}


def _grid_sample(c: Call) -> Axes:
    """Every channel of the image is read at the same places."""
    x, grid = (c.computed(a) for a in c.node.args[:2])
    for value, kept in ((x, 1), (grid, -1)):
        for axis, ids in value.axes.items():
            if axis != kept:
                c.book.protect(ids, c.name, "a place in an image")
    return {axis: ids for axis, ids in x.axes.items() if axis == 1}


def _dynamic_conv(c: Call) -> Axes:
    return c.protect_all("a convolution with computed filters")


def function_axes(c: Call) -> Axes:
    """Axis → identities of a `call_function` node's result."""
    return _RULES[cast("Callable[..., Any]", c.node.target)](c)


_RULES: dict[Callable[..., Any], Callable[[Call], Axes]] = {
    **dict.fromkeys(BROADCASTING, _combine),
    **dict.fromkeys((*UNARY.values(), clamp, integers, numbers), _same),
    embedding: _embedding,
    **dict.fromkeys(REDUCTIONS.values(), _reduce),
    cumsum: _ordered(1, "running sums over channels"),
    argmax: _ordered(1, "an argmax over channels"),
    **dict.fromkeys((topk_values, topk_indices), _ordered(2, "the largest of its channels")),
    pick: _pick,
    grid_sample: _grid_sample,
    dynamic_conv: _dynamic_conv,
    take: _ordered(1, "its channels are picked by number"),
    torch.matmul: _matmul,
    torch.cat: _cat,
    torch.reshape: _reshape,
    torch.permute: _permute,
    slice_dim: _slice,
    F.pad: _pad,
}
