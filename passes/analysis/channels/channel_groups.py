"""Channel groups: which channels of a network can go, together with which others.

The graph is run on channel identities (`channel_ids`): convolutions make them, shape operators
move them as they move elements, additions and products unify them. The result: every channel that
can be removed, the slices of all parameters that go with it, and why the others stay.

A removed channel takes no part in anything any more. Convolutions, linear layers, sums and matrix
products compute the same as if they read zeros there; means, maxima and norms over channels are
those of the channels that stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt
from torch import fx

from shrinkc.passes.analysis.channels.channel_functions import Axes, Call, function_axes
from shrinkc.passes.analysis.channels.channel_ids import (
    ChannelBook,
    Count,
    Ids,
    Size,
    Touch,
    Use,
    Value,
)
from shrinkc.passes.analysis.channels.channel_modules import module_axes
from shrinkc.passes.analysis.channels.channel_partition import Partition, partition
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.analysis.usage import attribute
from shrinkc.passes.ir import batch_expand, module_of

Keep = Mapping[str, npt.NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class ParameterSlice:
    """Where a parameter or buffer holds channels of a group: `channels[i]` at `positions[i]`.

    role    the layer makes ("out"), reads ("in") or passes on ("scale") the channels
    groups  > 1: dimension 1 of a grouped convolution; position p is index p % (n / groups) of the
            rows of convolution group p // (n / groups), n the layer's channels
    """

    layer: str
    parameter: str
    dim: int
    positions: Ids
    channels: Ids
    role: str
    groups: int

    @property
    def path(self) -> str:
        """As the state dict names it."""
        return f"{self.layer}.{self.parameter}" if self.layer else self.parameter


@dataclass(frozen=True, eq=False)
class ChannelValues:
    """Where a value holds channels of a group, along `axis` of what node `source` computes.

    node  the reader at which the channels end, or the maker (then also the source)
    """

    node: str
    source: str
    axis: int
    positions: Ids
    channels: Ids


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Interchangeable channels. Each is a coupled set: all its slices go, or none.

    size    number of channels (coupled sets)
    cells   (size,): as many must go from each cell (convolution groups, group norm); at least one
            stays in each
    slices  of parameters and buffers
    made    by these layers' nodes
    read    by these, where they end
    """

    name: str
    size: int
    cells: Ids
    slices: tuple[ParameterSlice, ...]
    made: tuple[ChannelValues, ...]
    read: tuple[ChannelValues, ...]


@dataclass(frozen=True)
class ProtectedChannels:
    """Channels of `layer` that stay, because of `reason` at `node`."""

    layer: str
    channels: int
    node: str
    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class Groups:
    """The groups in execution order, what must stay, and what a slicer and its twin need."""

    groups: tuple[ChannelGroup, ...]
    protected: tuple[ProtectedChannels, ...]
    touches: tuple[Touch, ...]
    sizes: tuple[Size, ...]
    counts: tuple[Count, ...]
    uses: tuple[Use, ...]
    _parts: Partition

    def __getitem__(self, name: str) -> ChannelGroup:
        return self._by_name[name]

    def __repr__(self) -> str:
        channels = sum(group.size for group in self.groups)
        return (
            f"Groups({len(self.groups)} of {channels:,} channels, {len(self.protected)} protected)"
        )

    def places(self) -> Ids:
        """Of each identity the number of its channel, counted through all groups in their order;
        −1 for one that must stay."""
        parts = self._parts
        starts = np.cumsum([0, *(group.size for group in self.groups)])
        free = parts.group >= 0
        found = np.full(len(parts.group), -1)
        found[free] = starts[parts.group[free]] + parts.channel[free]
        return found[parts.class_of]

    @cached_property
    def _by_name(self) -> dict[str, ChannelGroup]:
        return {group.name: group for group in self.groups}

    def kept(self, keep: Keep) -> npt.NDArray[np.bool_]:
        """Which identities stay; groups that `keep` does not name stay whole."""
        parts = self._parts
        whole = [keep.get(group.name, np.ones(group.size, bool)) for group in self.groups]
        starts = np.cumsum([0, *(len(mask) for mask in whole)])
        free = np.flatnonzero(parts.group >= 0)
        stays = np.ones(len(parts.group), bool)
        if free.size:
            stays[free] = np.concatenate(whole)[starts[parts.group[free]] + parts.channel[free]]
        return stays[parts.class_of]


def channel_groups(
    graph_module: fx.GraphModule, whole_conv_groups: bool = False, outputs: bool = False
) -> Groups:
    """The channel groups of a canonical graph, which is left as it is.

    `whole_conv_groups`: grouped convolutions lose whole groups, input and output; otherwise
    equally many channels of each. `outputs`: channels of the network's outputs (classes) may go.
    Time is linear in the number of channels of all values.
    """
    book, known = ChannelBook(), shapes(graph_module)
    values: dict[fx.Node, Value] = {}
    for node in graph_module.graph.nodes:
        if node.op == "output":
            _end(book, node, values, outputs)
        else:
            call = Call(book, node, values, known[node.name])
            values[node] = _value(graph_module, call, whole_conv_groups)
    parts = partition(book)
    touches = tuple(book.touches.values())
    return Groups(
        *(_groups(book, parts, touches), _protected(book, parts)),
        *(touches, tuple(book.sizes), tuple(book.counts), tuple(book.uses), parts),
    )


def _value(graph_module: fx.GraphModule, call: Call, whole: bool) -> Value:
    node, shape = call.node, call.shape
    if node.op == "placeholder":
        return Value(shape, {})
    if node.op == "get_attr":
        return Value(shape, {}, (cast(str, node.target), attribute(graph_module, node)))
    if node.target is batch_expand:
        constant = call.value(node.args[0])
        return Value(shape, constant.axes, constant.constant)
    module = module_of(graph_module, node)
    axes = function_axes(call) if module is None else module_axes(call, module, whole)
    return Value(shape, _several(call, axes))


def _several(call: Call, axes: Axes) -> Axes:
    """An axis of one channel keeps it."""
    for axis, ids in axes.items():
        if call.shape[axis] == 1:
            call.book.protect(ids, call.name, "the only channel there")
    return {axis: ids for axis, ids in axes.items() if call.shape[axis] > 1}


def _end(book: ChannelBook, node: fx.Node, values: dict[fx.Node, Value], free: bool) -> None:
    for source in dict.fromkeys(cast("tuple[fx.Node, ...]", node.args[0])):
        for axis, ids in values[source].axes.items():
            if free:
                book.use(node.name, source.name, axis, ids, "left out")
            else:
                book.protect(ids, source.name, "an output of the network")


# --- the account, by group -----------------------------------------------------------------------


def _groups(
    book: ChannelBook, parts: Partition, touches: tuple[Touch, ...]
) -> tuple[ChannelGroup, ...]:
    if not parts.groups:
        return ()
    slices: list[list[ParameterSlice]] = [[] for _ in range(parts.groups)]
    made: list[list[ChannelValues]] = [[] for _ in range(parts.groups)]
    read: list[list[ChannelValues]] = [[] for _ in range(parts.groups)]
    for t in touches:
        for group, positions, channels in _split(parts, t.ids):
            slices[group].append(
                ParameterSlice(t.layer, t.parameter, t.dim, positions, channels, t.role, t.groups)
            )
    for u in book.uses:
        for group, positions, channels in _split(parts, u.ids):
            found = ChannelValues(u.node, u.source, u.axis, positions, channels)
            (made if u.how == "made" else read)[group].append(found)
    sizes = np.bincount(parts.group[parts.group >= 0], minlength=parts.groups)
    order = np.argsort(parts.group * (len(parts.group) + 1) + parts.channel, kind="stable")
    cells = np.split(parts.cell[order[parts.group[order] >= 0]], np.cumsum(sizes)[:-1])
    names = _names(book, parts)
    return tuple(
        ChannelGroup(name, int(size), _from_zero(cell), tuple(s), tuple(m), tuple(r))
        for name, size, cell, s, m, r in zip(names, sizes, cells, slices, made, read, strict=True)
    )


def _from_zero(cells: Ids) -> Ids:
    return np.unique(cells, return_inverse=True)[1].reshape(-1)


def _split(parts: Partition, ids: Ids) -> list[tuple[int, Ids, Ids]]:
    """(group, positions, channels) for each group that has identities in `ids`."""
    classes = parts.class_of[ids]
    groups = parts.group[classes]
    positions = np.flatnonzero(groups >= 0)
    positions = positions[np.argsort(groups[positions], kind="stable")]
    if not positions.size:
        return []
    sorted_groups = groups[positions]
    starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    runs = np.split(positions, starts[1:])
    return [(int(groups[p[0]]), p, parts.channel[classes[p]]) for p in runs]


def _names(book: ChannelBook, parts: Partition) -> list[str]:
    """After the layer that makes the first channel; numbered where a layer starts several."""
    first = np.full(parts.groups, book.count)
    groups = parts.group[parts.class_of]
    free = np.flatnonzero(groups >= 0)
    np.minimum.at(first, groups[free], free)
    names: list[str] = []
    count: dict[str, int] = {}
    for maker in _makers(book, first):
        count[maker] = count.get(maker, 0) + 1
        names.append(maker if count[maker] == 1 else f"{maker}#{count[maker]}")
    return names


def _makers(book: ChannelBook, ids: Ids) -> list[str]:
    starts = [start for start, _ in book.makers]
    return [book.makers[i][1] for i in np.searchsorted(starts, ids, "right") - 1]


def _protected(book: ChannelBook, parts: Partition) -> tuple[ProtectedChannels, ...]:
    found: list[ProtectedChannels] = []
    why = parts.why[parts.class_of]
    ends = (*(start for start, _ in book.makers[1:]), book.count)
    for (start, maker), end in zip(book.makers, ends, strict=False):  # no maker: no end
        reasons, counts = np.unique(why[start:end], return_counts=True)
        for reason, count in zip(reasons, counts, strict=True):
            if reason >= 0:
                node, text = parts.reasons[int(reason)]
                found.append(ProtectedChannels(maker, int(count), node, text))
    return tuple(found)
