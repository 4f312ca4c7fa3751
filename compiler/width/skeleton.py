"""A network's operators and parameters at other widths, without its numbers.

Slicing moves weights about only to say how large they become. The skeleton is the deployed network
(batch norms folded) whose tensors are sized anew in place, and lowered; every other width of the
same network costs one walk over its graph.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.cost.keys import keyed
from shrinkc.compiler.export.lower import lower
from shrinkc.latency_tables.key import OpKey
from shrinkc.passes.analysis.channels.channel_groups import Groups
from shrinkc.passes.analysis.channels.channel_ids import Ids
from shrinkc.passes.base import copy_graph
from shrinkc.passes.channels.channel_cuts import tensors
from shrinkc.passes.criteria.base import most_important

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Facts:
    """What a network is made of: (node, key) of every operator that takes time, in fp32, and the
    shape of every parameter, by path."""

    operators: tuple[tuple[str, OpKey], ...]
    parameters: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class _Part:
    """Where a tensor holds channels; `groups` as in `Touch`."""

    dim: int
    ids: Ids
    groups: int


class Skeleton:
    """`groups` are those of the network with its batch norms, `folded` is the one without: layers
    and nodes that stay have the same names in both."""

    def __init__(self, folded: fx.GraphModule, groups: Groups) -> None:
        self._graph = copy_graph(folded).float()
        self._graph.meta["dynamic_batch"] = False  # a batch of two has the same operators
        self._groups = groups
        self._nodes = {node.name: node for node in self._graph.graph.nodes}
        modules = cast(Any, self._graph).named_modules(remove_duplicate=False)
        self._modules: dict[str, nn.Module] = dict(modules)
        self._owned = _owned(self._graph)
        self._parts = _parts(groups, self._owned)

    def facts(self, widths: Mapping[str, int]) -> Facts:
        """Of the network whose groups keep so many channels; those not named stay whole."""
        with self._sized(widths):
            operators = keyed(lower(self._graph), "fp32")
            parameters = {
                name: tuple(tensor.shape)
                for name, tensor in self._graph.named_parameters()  # what is shared: once
            }
        return Facts(tuple((op.name, key) for op, key in operators), parameters)

    @contextmanager
    def _sized(self, widths: Mapping[str, int]) -> Generator[None]:
        keep = {
            name: most_important(self._groups[name], np.zeros(self._groups[name].size), width)
            for name, width in widths.items()
        }
        stays = self._groups.kept(keep)
        changed = [*self._tensors(stays), *self._sizes(stays)]
        arguments = list(self._arguments(stays))
        for owner, name, _, new in changed:
            setattr(owner, name, new)
        for node, _, new in arguments:
            node.args = new
        try:
            yield
        finally:
            for owner, name, old, _ in reversed(changed):
                setattr(owner, name, old)
            for node, old, _ in reversed(arguments):
                node.args = old

    def _tensors(self, stays: Mask) -> Generator[tuple[nn.Module, str, Any, Any]]:
        for owners, parts in self._parts:
            owner, name = owners[0]
            old = cast(Tensor, getattr(owner, name))
            shape = list(old.shape)
            for part in parts:
                shape[part.dim] = _left(part, stays, old)
            if shape == list(old.shape):
                continue
            empty = torch.empty(shape)
            new = nn.Parameter(empty) if isinstance(old, nn.Parameter) else empty
            yield from ((module, attribute, old, new) for module, attribute in owners)

    def _sizes(self, stays: Mask) -> Generator[tuple[nn.Module, str, Any, Any]]:
        values: dict[tuple[str, str], tuple[Any, Any]] = {}
        for size in self._groups.sizes:
            module, count = self._modules.get(size.layer), int(stays[size.ids].sum())
            if module is None:
                continue
            old, new = values.get((size.layer, size.attribute), (None, None))
            if old is None:
                old = new = getattr(module, size.attribute)
            at = size.item
            new = count if at is None else (*new[:at], count, *new[at + 1 :])
            values[size.layer, size.attribute] = old, new
        for (layer, attribute), (old, new) in values.items():
            if old != new:
                yield self._modules[layer], attribute, old, new

    def _arguments(self, stays: Mask) -> Generator[tuple[fx.Node, Any, Any]]:
        found: dict[fx.Node, list[Any]] = {}
        for count in self._groups.counts:
            node, left = self._nodes.get(count.node), int(stays[count.ids].sum())
            if node is None or left == len(count.ids):
                continue
            index, *item = count.at
            new = found.setdefault(node, list(node.args))
            if item:
                before = cast("tuple[int, ...]", new[index])
                new[index] = (*before[: item[0]], left, *before[item[0] + 1 :])
            else:
                new[index] = left
        for node, new in found.items():
            yield node, node.args, tuple(new)


Owners = list[tuple[nn.Module, str]]


def _owned(graph: fx.GraphModule) -> dict[str, tuple[Tensor, Owners]]:
    """Path → tensor, and every place that holds that very tensor."""
    owners: dict[int, Owners] = {}
    found: dict[str, tuple[Tensor, Owners]] = {}
    for path, tensor in tensors(graph):
        layer, _, name = path.rpartition(".")
        places = owners.setdefault(id(tensor), [])
        module = graph.get_submodule(layer)
        if (module, name) not in places:
            places.append((module, name))
        found[path] = tensor, places
    return found


def _parts(
    groups: Groups, owned: dict[str, tuple[Tensor, Owners]]
) -> list[tuple[Owners, list[_Part]]]:
    """For each tensor that holds channels: its places, and where they lie."""
    touched = {f"{t.layer}.{t.parameter}" for t in groups.touches}
    found: dict[int, tuple[Owners, list[_Part]]] = {}
    for touch in groups.touches:
        path = f"{touch.layer}.{touch.parameter}" if touch.layer else touch.parameter
        if path not in owned:
            continue  # a batch norm that was folded
        tensor, owners = owned[path]
        parts = found.setdefault(id(tensor), (owners, []))[1]
        parts.append(_Part(touch.dim, touch.ids, touch.groups))
        bias = f"{touch.layer}.bias"
        if touch.role == "out" and bias in owned and bias not in touched:  # made by folding
            tensor, owners = owned[bias]
            found.setdefault(id(tensor), (owners, [_Part(0, touch.ids, 1)]))
    return list(found.values())


def _left(part: _Part, stays: Mask, tensor: Tensor) -> int:
    kept = stays[part.ids]
    if part.groups == 1 or part.dim != 1:
        return int(kept.sum())
    by_group = kept.reshape(-1, tensor.shape[1]).sum(1)  # of a grouped convolution
    return int(by_group.sum()) // max(int((by_group > 0).sum()), 1)
