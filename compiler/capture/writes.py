"""What a raw graph writes in place, and who reads it afterwards.

Tensors are told apart by what they share: two that lie in one storage at the same place, with the
same shape and strides, are one value under two names; others are views that a write may reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from shrinkc.compiler.reference.reference import leaves
from shrinkc.errors import CaptureError


class UnclearWrites(CaptureError):  # noqa: N818
    """A write whose readers cannot be told with the names alone."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: a storage, the elements of it, the type it is read as."""

    storage: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def overlaps(self, other: Place) -> bool:
        """Whether they have an element in common."""
        if self.storage != other.storage:
            return False
        if self.dtype != other.dtype:
            return True
        last = max(self._end(), other._end())
        mine = torch.zeros(last, dtype=torch.bool)
        mine.as_strided(self.shape, self.stride, self.offset).fill_(True)
        return bool(mine.as_strided(other.shape, other.stride, other.offset).any())

    def _end(self) -> int:
        steps = ((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        return self.offset + sum(max(step, 0) for step in steps) + 1


@dataclass
class Writes:
    """Of one run: where the tensors of every node lie, and what every node has written.

    at    node → the places of its tensors
    into  node → the places that it has written
    """

    at: dict[fx.Node, tuple[Place, ...]] = field(default_factory=dict[fx.Node, tuple[Place, ...]])
    into: dict[fx.Node, tuple[Place, ...]] = field(default_factory=dict[fx.Node, tuple[Place, ...]])
    _own: dict[int, int] = field(default_factory=dict[int, int])  # storages that the graph holds
    _follow: set[int] = field(default_factory=set[int])  # storages that hold what inputs decide
    _count: int = 0

    def note(
        self,
        node: fx.Node,
        value: Any,
        read: Sequence[tuple[Place, Tensor]],
        written: Sequence[Place],
        constant: bool,
    ) -> None:
        """One node of the run, done. `written`: of the places read; with something that needs no
        input if `constant`."""
        known = {_storage(x): place.storage for place, x in read}
        if node.op == "get_attr":
            known = self._own
        self.at[node] = tuple(self._place(x, known) for x in leaves(value) if _is_tensor(x))
        if written:
            self.into[node] = tuple(dict.fromkeys(written))
            if not constant:
                self._follow |= {place.storage for place in written}

    def follow_input(self, places: Sequence[Place]) -> bool:
        """Whether something that depends on the inputs was written into their storages."""
        return any(place.storage in self._follow for place in places)

    def names(self, node: fx.Node) -> tuple[fx.Node, ...]:
        """Of what `node` writes: the nodes before it that are the very same tensor."""
        names: list[fx.Node] = []
        for other, places in self.at.items():  # in the order of the run
            if other is node:
                break
            if places == self.into[node]:
                names.append(other)
        return tuple(names)

    def _place(self, x: Tensor, known: dict[int, int]) -> Place:
        storage = _storage(x)
        if storage not in known:
            self._count += 1
            known[storage] = self._count
        return Place(known[storage], int(x.storage_offset()), tuple(x.shape), x.stride(), x.dtype)


def live_writes(graph_module: fx.GraphModule, runs: Sequence[Writes]) -> set[fx.Node]:
    """The nodes that write what is read afterwards.

    Raises UnclearWrites for the first whose readers know it by other views than its own names.
    """
    order = {node: i for i, node in enumerate(graph_module.graph.nodes)}
    live = {
        node
        for node in order
        if any(node in run.into and _is_read_later(node, run, order) for run in runs)
    }
    for node in order:
        if node in live and not all(_is_clear(node, run, order) for run in runs):
            raise UnclearWrites(
                f"node '{node.name}' ({getattr(node.target, '__name__', node.target)}) writes into "
                "a tensor that is read later through another view"
            )
        if node in live and len({run.names(node) for run in runs}) > 1:
            raise UnclearWrites(f"node '{node.name}' shares memory at some batch sizes only")
    return live


def _is_read_later(node: fx.Node, run: Writes, order: dict[fx.Node, int]) -> bool:
    storages = {place.storage for place in run.into[node]}
    return any(
        place.storage in storages and _last_use(other, order) > order[node]
        for other, places in run.at.items()
        for place in places
    )


def _is_clear(node: fx.Node, run: Writes, order: dict[fx.Node, int]) -> bool:
    """It returns the one tensor that it writes, which nobody reads later through another view."""
    into = run.into.get(node, ())
    if len(into) != 1 or run.at[node] != into:
        return False
    for other, places in run.at.items():
        derived = order[other] > order[node] and other.op != "get_attr"  # from what is current
        if derived or places == into or _last_use(other, order) <= order[node]:
            continue
        if any(place.overlaps(into[0]) for place in places):
            return False
    return True


def _last_use(node: fx.Node, order: dict[fx.Node, int]) -> int:
    return max((order[user] for user in node.users), default=-1)


def _storage(x: Tensor) -> int:
    storage: Any = x.untyped_storage()
    return storage._cdata


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)
