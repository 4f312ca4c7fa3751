"""Channel identities: what one run over a graph learns about its channels.

Every channel that a layer makes has an identity, an integer. A value carries identities along
those of its axes that hold channels. What must be removed together is unified, what must stay is
protected, and every parameter, size and constant that depends on channels notes on which.
Identity 0 is a channel that is no layer's: an image's colours, padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from shrinkc.passes.analysis.shapes import Shape

Ids = npt.NDArray[np.int64]
FIXED = 0


@dataclass(frozen=True, eq=False)
class Value:
    """A node's value: its shape, and identities by axis. An axis of size 1 carries none.

    `constant` is the parameter or buffer (path, tensor) that the value is, unchanged: its axes
    follow what it is combined with.
    """

    shape: Shape
    axes: Mapping[int, Ids]
    constant: tuple[str, Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Touch:
    """A tensor that holds channels along `dim`: one identity for every position.

    role     what the layer does there: it makes ("out"), reads ("in") or passes on ("scale")
             the channels
    groups   > 1: position p is index p % (n / groups) of the rows of convolution group
             p // (n / groups)
    """

    layer: str
    parameter: str
    tensor: Tensor
    dim: int
    ids: Ids
    role: str
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Size:
    """A module's attribute (or one item of it) that counts channels."""

    layer: str
    attribute: str
    item: int | None
    ids: Ids


@dataclass(frozen=True, eq=False)
class Count:
    """An integer in a node's arguments that counts channels: `args[at[0]]`, or its item `at[1]`."""

    node: str
    at: tuple[int, ...]
    ids: Ids


@dataclass(frozen=True, eq=False)
class Use:
    """A node that makes channels, or at which they end.

    source   the node whose value they are; at its maker, the maker itself
    how      "made"; "zero": the reader could as well read zeros there; "left out": the channels
             take no part in its mean, maximum or normalisation
    """

    node: str
    source: str
    axis: int
    ids: Ids
    how: str


@dataclass(frozen=True, eq=False)
class Balance:
    """(blocks, n): as many channels must go from each block. `node` asks for it."""

    node: str
    ids: Ids


@dataclass(frozen=True, eq=False)
class Protection:
    """Identities that must stay, because of `reason` at `node`."""

    ids: Ids
    node: str
    reason: str


@dataclass(eq=False)
class ChannelBook:
    """The account of one run. `count` identities exist, 0 included."""

    count: int = 1
    makers: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    touches: dict[tuple[int, int], Touch] = field(default_factory=dict[tuple[int, int], Touch])
    untouched: dict[tuple[int, int], str] = field(default_factory=dict[tuple[int, int], str])
    sizes: list[Size] = field(default_factory=list[Size])
    counts: list[Count] = field(default_factory=list[Count])
    uses: list[Use] = field(default_factory=list[Use])
    balances: list[Balance] = field(default_factory=list[Balance])
    parts: list[Ids] = field(default_factory=list[Ids])
    alone: dict[tuple[str, int | None], Ids | None] = field(
        default_factory=dict[tuple[str, int | None], Ids | None]
    )
    protections: list[Protection] = field(default_factory=list[Protection])
    pairs: list[tuple[Ids, Ids]] = field(default_factory=list[tuple[Ids, Ids]])

    def make(self, count: int, maker: str) -> Ids:
        """Identities of new channels."""
        self.makers.append((self.count, maker))
        self.count += count
        return np.arange(self.count - count, self.count)

    def unify(self, a: Ids, b: Ids, node: str) -> None:
        """Remove a[i] with b[i], or neither. Arrays that broadcast."""
        if a is b:
            return
        a, b = np.broadcast_arrays(a, b)
        fixed_a, fixed_b = a == FIXED, b == FIXED
        self.protect(a[fixed_b], node, "coupled with channels that are no layer's")
        self.protect(b[fixed_a], node, "coupled with channels that are no layer's")
        free = ~(fixed_a | fixed_b | (a == b))
        self.pairs.append((a[free], b[free]))

    def protect(self, ids: Ids, node: str, reason: str) -> None:
        ids = ids[ids != FIXED]
        if ids.size:
            self.protections.append(Protection(ids, node, reason))

    def balance(self, ids: Ids, node: str) -> None:
        """(blocks, n): the same number from each block."""
        self.balances.append(Balance(node, ids))

    def part(self, ids: Ids) -> None:
        """Read by themselves: they are of another kind than the rest, so that some of them stay."""
        self.parts.append(ids)

    def touch(
        self,
        place: tuple[str, str],
        tensor: Tensor | None,
        dim: int,
        ids: Ids | None,
        node: str,
        role: str,
        groups: int = 1,
    ) -> None:
        """`tensor`, at `place` (layer, parameter), holds these channels, or none, along `dim`.

        A tensor touched before (a module called twice, a shared weight) is cut once.
        """
        if tensor is None:
            return
        key = id(tensor), dim
        known = self.touches.get(key)
        if known is not None and ids is not None and known.groups == groups:
            self.unify(known.ids, ids, node)
        elif known is not None:
            reason = f"'{place[0]}' uses the same {place[1]} in another way"
            self.protect(known.ids, node, reason)
            if ids is not None:
                self.protect(ids, node, reason)
        elif ids is None:
            self.untouched.setdefault(key, ".".join(filter(None, place)))
        elif key in self.untouched:
            reason = f"'{self.untouched[key]}' is also used where nothing can be removed"
            self.protect(ids, node, reason)
        else:
            self.touches[key] = Touch(*place, tensor, dim, ids, role, groups)

    def size(self, layer: str, attribute: str, ids: Ids, item: int | None = None) -> None:
        self.sizes.append(Size(layer, attribute, item, ids))

    def same_size(self, layer: str, ids: Ids | None, node: str, item: int | None = None) -> None:
        """A layer without parameters that knows how many channels it reads, or none of them: where
        it is called twice it reads as many again."""
        if (layer, item) not in self.alone:
            self.alone[layer, item] = ids
            return
        known = self.alone[layer, item]
        if known is not None and ids is not None:
            self.unify(known, ids, node)
        for one in (known, ids):
            if one is not None and (known is None or ids is None):
                self.protect(one, node, f"'{layer}' is also used where nothing can be removed")

    def count_of(self, node: str, at: tuple[int, ...], ids: Ids) -> None:
        self.counts.append(Count(node, at, ids))

    def use(self, node: str, source: str, axis: int, ids: Ids, how: str) -> None:
        self.uses.append(Use(node, source, axis, ids, how))

    def combine(self, values: Sequence[Value], shape: Shape, node: str) -> dict[int, Ids]:
        """Identities of a value that broadcasts `values` to `shape`, dimensions from the right."""
        found: dict[int, Ids] = {}
        for axis in range(len(shape)):
            own = [(v, axis - len(shape) + len(v.shape)) for v in values]
            wide = [(v, at) for v, at in own if at >= 0 and v.shape[at] > 1]
            ids = self._meet([pair for pair in wide if pair[0].constant is None], node)
            for value, at in wide:
                if value.constant is not None:
                    path, tensor = value.constant
                    dim = at - len(value.shape) + tensor.ndim
                    self.touch(_place(path), tensor, dim, ids, node, "scale")
            if ids is not None:
                found[axis] = ids
        return found

    def _meet(self, wide: list[tuple[Value, int]], node: str) -> Ids | None:
        """The identities on one axis, unified; protected where one value has none."""
        carried = [v.axes[at] for v, at in wide if at in v.axes]
        if not carried:
            return None
        for other in carried[1:]:
            self.unify(carried[0], other, node)
        if len(carried) < len(wide):
            self.protect(carried[0], node, "combined with a value that has no channels there")
            return None
        return carried[0]


def _place(path: str) -> tuple[str, str]:
    layer, _, parameter = path.rpartition(".")
    return layer, parameter
