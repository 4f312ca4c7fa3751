"""How a logical tensor lies in memory: the algebra behind operators that need not be written.

A file tensor is a row-major block of *factors*; each logical (PyTorch) dimension is an ordered
list of them. Transposing a value renames its dimensions and reshaping regroups its factors: both
leave the memory alone. Dimensions of size 1 have no factors. Example: (N, C, H, W) stored NHWC
has factors (N, H, W, C) and dims ((0,), (3,), (1,), (2,)); its channel shuffle view
(N, g, C/g, H, W) splits factor C in two and still needs no operator.

An *order* is a permutation of logical dimensions: `order[p]` is the one stored at position p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod

import numpy as np

from shrinkc.compiler.export.ops import FloatArray

Order = tuple[int, ...]
Shape = tuple[int, ...]

NHWC: Order = (0, 2, 3, 1)
MAX_RANK = 6  # of TRANSPOSE, of broadcasting, and of all that XNNPACK computes


@dataclass(frozen=True)
class Layout:
    """`factors`: sizes (> 1) in storage order. `dims[d]`: which of them make up logical
    dimension d, the major one first; every factor belongs to exactly one dimension."""

    factors: Shape
    dims: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> Shape:
        """The logical shape."""
        return tuple(prod(self.factors[f] for f in dim) for dim in self.dims)

    def sequence(self, order: Order) -> tuple[int, ...]:
        """The factors as they would be stored with the dimensions in `order`."""
        return tuple(f for d in order for f in self.dims[d])

    def is_stored_in(self, order: Order) -> bool:
        """No element has to move to have the dimensions in `order`."""
        return self.sequence(order) == tuple(range(len(self.factors)))


@dataclass(frozen=True)
class Move:
    """A RESHAPE to `before` and a TRANSPOSE by `perm`."""

    before: Shape
    perm: Order


def logical(rank: int) -> Order:
    """The order of PyTorch's own dimensions."""
    return tuple(range(rank))


def last(order: Order, dims: Sequence[int]) -> Order:
    """`order` with `dims` moved behind the others."""
    return (*(d for d in order if d not in dims), *dims)


def without(order: Order, dims: Sequence[int]) -> Order:
    """`order` of what is left, renumbered, when `dims` are gone."""
    left = [d for d in range(len(order)) if d not in dims]
    return tuple(left.index(d) for d in order if d not in dims)


def stored(shape: Shape, order: Order) -> Layout:
    """A tensor of logical `shape` whose dimensions are stored in `order`."""
    dims: list[tuple[int, ...]] = [()] * len(shape)
    factors: list[int] = []
    for d in order:
        if shape[d] != 1:
            dims[d] = (len(factors),)
            factors.append(shape[d])
    return Layout(tuple(factors), tuple(dims))


def permuted(layout: Layout, perm: Order) -> Layout:
    """Dimension i of the result is dimension `perm[i]`."""
    return Layout(layout.factors, tuple(layout.dims[d] for d in perm))


def resized(layout: Layout, place: int, size: int) -> Layout:
    """With `size` elements of the factor at `place` left."""
    factors = (*layout.factors[:place], size, *layout.factors[place + 1 :])
    if size > 1:
        return Layout(factors, layout.dims)
    kept = [f for f in range(len(factors)) if f != place]
    dims = (tuple(kept.index(f) for f in dim if f != place) for dim in layout.dims)
    return Layout(tuple(factors[f] for f in kept), tuple(dims))


def in_storage_order(array: FloatArray, axis: int, layout: Layout, dim: int) -> FloatArray:
    """Weights whose `axis` runs over dimension `dim`, rearranged to meet it as it is stored."""
    places = layout.dims[dim]
    if places == tuple(sorted(places)):
        return array
    sizes = [layout.factors[place] for place in places]
    indexes = np.arange(prod(sizes)).reshape(sizes).transpose(np.argsort(places))
    return array.take(indexes.reshape(-1), axis)


def reshaped(layout: Layout, shape: Shape) -> Layout | None:
    """The same elements as a logical `shape`; None where a factor would have to be cut at
    something that does not divide it, as in (6, 4) → (8, 3)."""
    pending = [(f, layout.factors[f]) for dim in layout.dims for f in dim]
    pending.reverse()
    dims: list[list[tuple[int, int]]] = []  # per dimension: (factor it is cut from, size)
    for size in shape:
        pieces: list[tuple[int, int]] = []
        while size > 1:
            factor, available = pending.pop()
            if size % available == 0:
                piece = available
            elif available % size == 0:
                piece = size
                pending.append((factor, available // size))
            else:
                return None
            pieces.append((factor, piece))
            size //= piece
        dims.append(pieces)
    # Pieces of one factor appear in logical order, which is their storage order.
    cuts = sorted(
        ((factor, d, i) for d, pieces in enumerate(dims) for i, (factor, _) in enumerate(pieces))
    )
    index = {(d, i): n for n, (_, d, i) in enumerate(cuts)}
    return Layout(
        tuple(dims[d][i][1] for _, d, i in cuts),
        tuple(tuple(index[d, i] for i in range(len(pieces))) for d, pieces in enumerate(dims)),
    )


def common_groups(before: Shape, after: Shape) -> Shape:
    """The finest shape that both shapes refine: (2, 6, 4, 5) and (2, 8, 3, 5) give (2, 24, 5)."""
    groups: list[int] = []
    left, right = list(reversed(before)), list(reversed(after))
    while left or right:
        a = left.pop() if left else 1
        b = right.pop() if right else 1
        while a != b:
            if a < b:
                a *= left.pop()
            else:
                b *= right.pop()
        groups.append(a)
    return tuple(groups)


def natural_order(layout: Layout, physical: Shape) -> Order:
    """The order that a tensor of shape `physical` is in, or the one nearest to it: dimensions
    by their first factor, and channels last where that is free."""
    exact = _order_of(layout, physical)
    if exact is not None:
        return exact
    rank = len(layout.dims)
    if rank == 4 and layout.is_stored_in(NHWC):
        return NHWC
    if layout.is_stored_in(logical(rank)):
        return logical(rank)
    return tuple(sorted(range(rank), key=lambda d: (layout.dims[d][:1] or (-1,), d)))


def _order_of(layout: Layout, physical: Shape) -> Order | None:
    if len(physical) != len(layout.dims):
        return None
    ones = [d for d, dim in enumerate(layout.dims) if not dim]
    others = sorted((d for d, dim in enumerate(layout.dims) if dim), key=lambda d: layout.dims[d])
    if len(ones) != sum(size == 1 for size in physical):
        return None
    ones.reverse()
    others.reverse()
    order = tuple(ones.pop() if size == 1 else others.pop() for size in physical)
    shape = layout.shape
    fits = layout.is_stored_in(order) and tuple(shape[d] for d in order) == physical
    return order if fits else None


def moves(layout: Layout, physical: Shape, order: Order) -> list[Move]:
    """How to bring a tensor of shape `physical` into `order`: no Move where it lies so, one of
    its own dimensions if possible, else as few as possible over dimensions that are merged as
    far as they stay together."""
    if layout.is_stored_in(order):
        return []
    current = _order_of(layout, physical)
    if current is not None and len(order) <= MAX_RANK:
        return [Move(physical, tuple(current.index(d) for d in order))]
    now, then = tuple(range(len(layout.factors))), layout.sequence(order)
    steps: list[Move] = []
    while now != then:
        reached = _toward(now, then)
        steps.append(_merged_move(layout.factors, now, reached))
        now = reached
    return steps


def _toward(now: tuple[int, ...], then: tuple[int, ...]) -> tuple[int, ...]:
    """The sequence that starts like `then` for as long as one TRANSPOSE can manage."""
    for length in range(len(then), 0, -1):
        head = then[:length]
        reached = (*head, *(f for f in now if f not in head))
        if len(_runs(now, reached)) <= MAX_RANK:
            return reached
    raise AssertionError("one factor more is always possible: it takes four dimensions")


def _runs(now: tuple[int, ...], then: tuple[int, ...]) -> list[tuple[int, ...]]:
    """`then` as positions in `now`, cut where neighbours come apart."""
    places = [now.index(f) for f in then]
    together = groupby(enumerate(places), key=lambda item: item[1] - item[0])
    return [tuple(place for _, place in run) for _, run in together]


def _merged_move(factors: Shape, now: tuple[int, ...], then: tuple[int, ...]) -> Move:
    runs = _runs(now, then)
    before = sorted(runs)
    sizes = (prod(factors[now[place]] for place in run) for run in before)
    return Move(tuple(sizes), tuple(before.index(run) for run in runs))


@dataclass(frozen=True)
class Cut:
    """`count` elements of a dimension of `size`, from `start` on, every `step`-th."""

    size: int
    start: int
    count: int
    step: int = 1

    @property
    def is_all(self) -> bool:
        return self.count == self.size

    def cut(self, start: int, count: int, step: int) -> Cut:
        """A slice of this slice."""
        step = self.step * step if count > 1 else 1
        return Cut(self.size, self.start + self.step * start, count, step)


Cuts = tuple[Cut, ...]
