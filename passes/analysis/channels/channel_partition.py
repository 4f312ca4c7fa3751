"""From what a run learned to channel groups: classes of identities, and which are alike.

A *coupled set* (class) is what unification ties together. Sets that touch the same parameters in
the same places and lie in the same slices, each equally often, are interchangeable; they are the
channels of one *group*. Only where convolution groups must lose equally many of different sets does
a group hold several kinds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shrinkc.passes.analysis.channels.channel_ids import FIXED, ChannelBook, Ids

Hashes = npt.NDArray[np.uint64]
Numbered = tuple[Ids, Ids, Ids, int]  # group, channel and cell of each class; number of groups


@dataclass(frozen=True, eq=False)
class Partition:
    """Arrays over classes, and `class_of` over identities.

    group    the class's group; −1: it must stay
    channel  its number within the group, in the order of identities
    cell     sets of a group must go in equal numbers from each of its cells
    why      index into `reasons` of classes that must stay, else −1
    reasons  (node, reason)
    """

    class_of: Ids
    group: Ids
    channel: Ids
    cell: Ids
    why: Ids
    reasons: tuple[tuple[str, str], ...]
    groups: int


def partition(book: ChannelBook) -> Partition:
    """Linear in the number of identities that the book holds, up to sorting."""
    class_of, count = _classes(book)
    first = np.full(count, book.count)
    np.minimum.at(first, class_of, np.arange(book.count))
    why = np.full(count, -1)
    reasons = _protect(book, class_of, why)
    likeness = _likeness(book, class_of, count)
    cells = _balance(book, class_of, why, likeness, reasons)
    numbered = _number(first, why, likeness, cells)
    unbalanced = _unbalanced(book, class_of, numbered)
    if unbalanced:
        _merge(likeness, numbered, unbalanced)
        numbered = _number(first, why, likeness, cells)
        _protect_unbalanced(book, class_of, numbered, why, reasons)
        numbered = _number(first, why, likeness, cells)
    return Partition(class_of, *numbered[:3], why, tuple(reasons), numbered[3])


def _classes(book: ChannelBook) -> tuple[Ids, int]:
    from scipy.sparse import coo_array, csgraph  # slower to import than most networks to group

    a = np.concatenate([a for a, _ in book.pairs] or [np.zeros(0, np.int64)])
    b = np.concatenate([b for _, b in book.pairs] or [np.zeros(0, np.int64)])
    edges = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(book.count, book.count))
    count, labels = csgraph.connected_components(edges, directed=False)
    return labels.astype(np.int64), int(count)


def _protect(book: ChannelBook, class_of: Ids, why: Ids) -> list[tuple[str, str]]:
    """The first reason of each class counts; returns the reasons."""
    reasons = [("", "no layer's")]
    why[class_of[FIXED]] = 0
    for protection in book.protections:
        classes = class_of[protection.ids]
        free = classes[why[classes] < 0]
        if free.size:
            why[free] = len(reasons)
            reasons.append((protection.node, protection.reason))
    return reasons


def _likeness(book: ChannelBook, class_of: Ids, count: int) -> Hashes:
    """The same number for classes that touch the same parameters and lie in the same slices, each
    equally often."""
    found = np.zeros(count, np.uint64)
    keys = _random(len(book.touches))
    for key, touch in zip(keys, book.touches.values(), strict=True):
        np.add.at(found, class_of[touch.ids], key)
    for key, part in zip(_random(len(book.parts), seed=2), book.parts, strict=True):
        np.add.at(found, class_of[part], key)
    return found


def _balance(
    book: ChannelBook,
    class_of: Ids,
    why: Ids,
    likeness: Hashes,
    reasons: list[tuple[str, str]],
) -> Hashes:
    """Which block a class is in, of all balances together, as one number.

    A class in every block equally often is always balanced; one that lies across some must stay.
    """
    cells = np.zeros(len(why), np.uint64)
    seen: set[tuple[int, bytes]] = set()
    keys = _random(2 * len(book.balances), seed=1).reshape(-1, 2)
    for (same, key), balance in zip(keys, book.balances, strict=True):
        blocks = class_of[balance.ids]
        asked = len(blocks), blocks.tobytes()
        if len(blocks) == 1 or asked in seen:
            continue
        seen.add(asked)
        classes, block, times = _occurrences(blocks)
        starts = np.flatnonzero(np.r_[True, classes[1:] != classes[:-1]])
        spread = np.diff(np.r_[starts, len(classes)])
        found = classes[starts]
        low, high = np.minimum.reduceat(times, starts), np.maximum.reduceat(times, starts)
        even = (spread == len(blocks)) & (low == high)
        across = found[(spread > 1) & ~even]
        across = across[why[across] < 0]
        if across.size:
            why[across] = len(reasons)
            reasons.append((balance.node, "lies across its groups"))
        inside = spread == 1
        likeness[found[inside]] += same
        cells[found[inside]] += key * (block[starts][inside] + 1).astype(np.uint64)
    return cells


def _occurrences(blocks: Ids) -> tuple[Ids, Ids, Ids]:
    """(class, block, how often it is there), sorted."""
    pairs = blocks * len(blocks) + np.arange(len(blocks))[:, None]
    unique, times = np.unique(pairs, return_counts=True)
    return unique // len(blocks), unique % len(blocks), times


def _merge(likeness: Hashes, numbered: Numbered, unbalanced: list[tuple[int, int]]) -> None:
    """Groups that are in balance only together (both halves of a concatenation that is read in
    convolution groups) become one, in place."""
    parent = list(range(numbered[3]))

    def root(group: int) -> int:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    of_balance: dict[int, int] = {}
    for balance, group in unbalanced:
        parent[root(group)] = root(of_balance.setdefault(balance, group))
    free = np.flatnonzero(numbered[0] >= 0)
    hashes = np.zeros(numbered[3], np.uint64)
    hashes[numbered[0][free]] = likeness[free]
    roots = np.array([root(group) for group in parent])
    likeness[free] = hashes[roots[numbered[0][free]]]


def _protect_unbalanced(
    book: ChannelBook,
    class_of: Ids,
    numbered: Numbered,
    why: Ids,
    reasons: list[tuple[str, str]],
) -> None:
    unfit = np.full(numbered[3], -1)
    for balance, owner in _unbalanced(book, class_of, numbered):
        unfit[owner] = len(reasons)
        node = book.balances[balance].node
        reasons.append((node, "cannot lose equally many channels from each group"))
    free = np.flatnonzero(numbered[0] >= 0)
    why[free] = unfit[numbered[0][free]]


def _number(first: Ids, why: Ids, likeness: Hashes, cells: Hashes) -> Numbered:
    """(group, channel, cell of each class, groups), groups by their first identity."""
    free = np.flatnonzero(why < 0)
    free = free[np.argsort(first[free], kind="stable")]
    group, channel, cell = (np.full(len(why), -1) for _ in range(3))
    if not free.size:
        return group, channel, cell, 0
    group[free] = _in_order(likeness[free])
    by_group = free[np.argsort(group[free], kind="stable")]
    channel[by_group] = _ranks(group[by_group])
    cell[free] = _in_order(cells[free])
    return group, channel, cell, int(group.max()) + 1


def _in_order(hashes: Hashes) -> Ids:
    """Numbers 0, 1, … for equal hashes, in the order in which they first occur."""
    _, at, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    rank = np.empty(len(at), np.int64)
    rank[np.argsort(at)] = np.arange(len(at))
    return rank[inverse]


def _ranks(sorted_groups: Ids) -> Ids:
    """0, 1, 2, … anew in each run of equal numbers."""
    starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    lengths = np.diff(np.r_[starts, len(sorted_groups)])
    return np.arange(len(sorted_groups)) - np.repeat(starts, lengths)


def _unbalanced(book: ChannelBook, class_of: Ids, numbered: Numbered) -> list[tuple[int, int]]:
    """(balance, group) where the group's cells do not take part equally in each block."""
    group, _, cell, _ = numbered
    found: list[tuple[int, int]] = []
    for index, balance in enumerate(book.balances):
        blocks = class_of[balance.ids]
        count = len(blocks)
        if count == 1:
            continue
        classes, block, times = _occurrences(blocks)
        inside = np.ones(len(classes), bool)
        inside[1:] &= classes[1:] != classes[:-1]
        inside[:-1] &= classes[:-1] != classes[1:]
        inside &= group[classes] >= 0
        g, k, b = group[classes][inside], cell[classes][inside], block[inside]
        times = times[inside]
        if not g.size:
            continue
        cells = np.unique(np.stack((g, k, b)), axis=1)  # each cell of a group once for a block
        per_block = np.unique(cells[[0, 2]], axis=1, return_counts=True)
        owners, counts = per_block[0][0], per_block[1]
        for owner in np.unique(owners):
            mine, often = counts[owners == owner], times[g == owner]
            equal = mine.min() == mine.max() and often.min() == often.max()
            if len(mine) != count or not equal:
                found.append((index, int(owner)))
    return found


def _random(count: int, seed: int = 0) -> Hashes:
    """Odd numbers, the same every time: sums of them are as good as unique."""
    return np.random.default_rng(seed).integers(1, 1 << 63, count, np.uint64) * np.uint64(2) + 1
