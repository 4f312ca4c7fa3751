"""Cutting tensors down to the channels that stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn

from shrinkc.passes.analysis.channels.channel_groups import Groups, Keep
from shrinkc.passes.analysis.channels.channel_ids import Ids
from shrinkc.passes.analysis.usage import attribute

Cuts = Mapping[str, "Cut"]


@dataclass(frozen=True, eq=False)
class Cut:
    """The positions that stay along each dimension.

    groups  > 1: dimension 1 of a grouped convolution's weight. Position p is index p % n of the
            rows of convolution group p // n, n the size of that dimension
    """

    kept: Mapping[int, Ids]
    groups: int = 1

    def __call__(self, tensor: Tensor) -> Tensor:
        """The part of a tensor of the parameter's shape, in new memory."""
        if self.groups > 1 and 1 in self.kept:
            tensor = self._grouped(tensor)
        else:
            for dim, kept in self.kept.items():
                tensor = tensor.index_select(dim, indices(kept))
        return tensor.clone(memory_format=torch.contiguous_format)

    def _grouped(self, tensor: Tensor) -> Tensor:
        """(rows, n, …): each convolution group with its own columns."""
        per_group = tensor.shape[0] // self.groups
        rows = self.kept.get(0, np.arange(tensor.shape[0]))
        group = rows // per_group
        left = np.unique(self.kept[1] // tensor.shape[1])
        columns = (self.kept[1] % tensor.shape[1]).reshape(len(left), -1)
        chosen = columns[np.searchsorted(left, group)]
        return tensor[indices(rows)[:, None], indices(chosen)]


def indices(positions: Ids) -> Tensor:
    """For indexing a tensor."""
    return cast(Any, torch).from_numpy(positions)


def parameter_cuts(graph_module: nn.Module, groups: Groups, keep: Keep) -> Cuts:
    """Path → cut, for every parameter and buffer that loses channels, under all its names.

    `groups` are those of this very graph.
    """
    stays = groups.kept(keep)
    found: dict[int, dict[int, Ids]] = {}
    split: dict[int, int] = {}
    for touch in groups.touches:
        kept = np.flatnonzero(stays[touch.ids])
        if len(kept) < len(touch.ids):
            found.setdefault(id(touch.tensor), {})[touch.dim] = kept
        split[id(touch.tensor)] = max(split.get(id(touch.tensor), 1), touch.groups)
    return {
        path: Cut(found[id(tensor)], split[id(tensor)])
        for path, tensor in tensors(graph_module)
        if id(tensor) in found
    }


def tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, buffers and tensors that a graph reads, under every name that they have."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
    if isinstance(module, fx.GraphModule):
        for node in module.graph.nodes:
            if node.op == "get_attr":
                yield cast(str, node.target), attribute(module, node)


def cut_tensors(module: nn.Module, cuts: Cuts) -> None:
    """Replace what has a cut, in place; what is shared stays shared."""
    new: dict[int, Tensor] = {}
    alive: list[Tensor] = []  # no id is given away meanwhile
    for path, tensor in list(tensors(module)):
        if path not in cuts:
            continue
        if id(tensor) not in new:
            part = cuts[path](tensor.detach())
            trained = isinstance(tensor, nn.Parameter)
            new[id(tensor)] = nn.Parameter(part, tensor.requires_grad) if trained else part
            alive.append(tensor)
        owner, _, name = path.rpartition(".")
        setattr(module.get_submodule(owner), name, new[id(tensor)])
