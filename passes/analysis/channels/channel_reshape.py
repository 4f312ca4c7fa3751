"""Identities through a reshape.

Dimensions are matched in blocks of equal products: (C, H, W) → (C, H·W) is C → C and H·W → H·W.
In a block that holds channels, identities are laid out as the elements are and reshaped with them.
One axis of the result then carries them. Where others vary too, as in the shuffle
C → (groups, n), the channels that share an index of that axis go together.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from shrinkc.passes.analysis.channels.channel_ids import ChannelBook, Ids, Value
from shrinkc.passes.analysis.shapes import Shape

MAX_BLOCK = 1 << 24  # elements of one block, its identities written out


def reshape(book: ChannelBook, x: Value, shape: Shape, node: str) -> dict[int, Ids]:
    """Axis → identities of `x` reshaped to `shape` (its −1 worked out)."""
    found: dict[int, Ids] = {}
    for before, after in blocks(x.shape, shape):
        for axis in (a for a in before if a in x.axes):
            sizes = tuple(x.shape[a] for a in before)
            target = tuple(shape[a] for a in after)
            if prod(sizes) > MAX_BLOCK:
                book.protect(x.axes[axis], node, "reshaped together with too many positions")
                continue
            at, ids = _through(book, x.axes[axis], before.index(axis), sizes, target, node)
            if after[at] in found:
                book.protect(ids, node, "reshaped into the same axis as other channels")
            else:
                found[after[at]] = ids
    return found


def blocks(before: Shape, after: Shape) -> Iterator[tuple[list[int], list[int]]]:
    """Matching runs of axes with equal products, the smallest possible; sizes of 1 left out."""
    left = [a for a, n in enumerate(before) if n > 1]
    right = [a for a, n in enumerate(after) if n > 1]
    while left and right:
        a, b = [left.pop(0)], [right.pop(0)]
        m, n = before[a[0]], after[b[0]]
        while m != n:
            if m < n:
                a.append(left.pop(0))
                m *= before[a[-1]]
            else:
                b.append(right.pop(0))
                n *= after[b[-1]]
        yield a, b


def _through(
    book: ChannelBook, ids: Ids, axis: int, sizes: Shape, target: Shape, node: str
) -> tuple[int, Ids]:
    """(which of the target's axes, identities along it)"""
    if sizes == target:
        return axis, ids
    laid = np.broadcast_to(ids.reshape(-1, *(1,) * (len(sizes) - axis - 1)), sizes).reshape(target)
    varying = [a for a in range(len(target)) if _varies(laid, a)]
    at = max(varying or range(len(target)), key=lambda a: (target[a], a))
    moved = np.moveaxis(laid, at, 0).reshape(target[at], -1)
    if len(varying) > 1:
        book.unify(moved, moved[:, :1], node)
    return at, np.ascontiguousarray(moved[:, 0])


def _varies(laid: Ids, axis: int) -> bool:
    first = laid.take([0], axis)
    return bool((laid != first).any())
