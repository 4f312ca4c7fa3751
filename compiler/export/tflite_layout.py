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
    """RESHAPE to `before`, TRANSPOSE by `perm`, RESHAPE to what is asked for."""

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


def move(layout: Layout, physical: Shape, order: Order) -> Move:
    """How to bring a tensor of shape `physical` into `order` (which it is not stored in): with
    one TRANSPOSE of its own dimensions if possible, else over as few dimensions as possible."""
    current = _order_of(layout, physical)
    if current is not None and len(order) <= MAX_RANK:
        return Move(physical, tuple(current.index(d) for d in order))
    sequence = layout.sequence(order)
    runs = [
        tuple(factor for _, factor in run)
        for _, run in groupby(enumerate(sequence), key=lambda item: item[1] - item[0])
    ]
    by_storage = sorted(runs)
    before = tuple(prod(layout.factors[f] for f in run) for run in by_storage)
    return Move(before, tuple(by_storage.index(run) for run in runs))
