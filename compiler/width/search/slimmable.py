"""A network that can be run, and trained, at any widths: a gate on every channel, where it is read.

A gate of 0 computes what the network computes without that channel, a gate of 1 what it computes
with it (`mask_channels`); what lies between is for methods that learn widths. Weights are shared:
the narrower network has those of the wider one, its channels being the most important ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.width.search.within import Within
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.analysis.shapes import shapes
from shrinkc.passes.base import copy_graph
from shrinkc.passes.criteria.base import most_important


@dataclass(frozen=True, eq=False)
class Levels:
    """Widths of one group, ascending, and of every channel the first of them that has it."""

    widths: tuple[int, ...]
    of: Tensor  # (size,) int64

    @classmethod
    def of_group(cls, within: Within, name: str, widths: tuple[int, ...]) -> Levels:
        group, scores = within.space.groups[name], within.space.scores[name]
        gone = [~most_important(group, scores, width) for width in widths]
        return cls(widths, torch.tensor(np.sum(gone, axis=0), dtype=torch.int64))

    def open(self, index: int) -> Tensor:
        """1 for the channels of that width, else 0."""
        return (self.of <= index).float()


class Gates(nn.Module):
    """What every channel of a network is multiplied by; set before each run."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.sizes = dict(sizes)
        self.now = torch.ones(sum(sizes.values()) + 1)  # the last: of channels that must stay

    def set(self, gates: Mapping[str, Tensor]) -> None:
        """Of groups that are not named all channels are open."""
        parts = [gates.get(name, torch.ones(size)) for name, size in self.sizes.items()]
        self.now = torch.cat([*parts, torch.ones(1)])


class Gate(nn.Module):
    """Multiplies one value along an axis."""

    def __init__(self, gates: Gates, places: Tensor, behind: int) -> None:
        super().__init__()
        self.shared = (gates,)  # not a submodule
        self.places: Tensor
        self.register_buffer("places", places, persistent=False)
        self.behind = behind

    def forward(self, x: Tensor) -> Tensor:
        gates = self.shared[0].now.to(x.device, x.dtype)[self.places]
        return x * gates.reshape(-1, *(1,) * self.behind)


def slimmable(graph: fx.GraphModule, names: tuple[str, ...]) -> tuple[fx.GraphModule, Gates]:
    """A copy with gates on the groups of these names. Raises InputError for a group over whose
    channels something is normalised or averaged, which gates cannot leave out."""
    groups, known = channel_groups(graph), shapes(graph)
    sizes = {group.name: group.size for group in groups.groups}
    owner = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    wanted = {i for i, name in enumerate(sizes) if name in names}
    twin, gates, places = copy_graph(graph), Gates(sizes), groups.places()
    nodes = {node.name: node for node in twin.graph.nodes}
    for number, use in enumerate(groups.uses):
        at = places[use.ids]
        touched = {int(owner[i]) for i in np.unique(at[at >= 0])} & wanted
        if use.how == "made" or not touched:
            continue
        if use.how != "zero":
            raise InputError(
                f"node '{use.node}' normalises or averages over the channels of group "
                f"'{list(sizes)[min(touched)]}', which cannot be trained at other widths; "
                "take another `method`"
            )
        gate = Gate(gates, torch.tensor(at), len(known[use.source]) - use.axis - 1)
        _insert(twin, nodes[use.source], nodes[use.node], f"gate_{number}", gate)
    twin.recompile()
    return twin, gates


def _insert(twin: fx.GraphModule, source: fx.Node, reader: fx.Node, path: str, gate: Gate) -> None:
    """Between the source and this reader alone, behind gates of other axes."""
    read = next((n for n in reader.all_input_nodes if n.meta.get("gates") is source), source)
    twin.add_submodule(path, gate)
    with twin.graph.inserting_before(reader):
        gated = twin.graph.call_module(path, (read,))
    gated.meta["gates"] = source
    reader.replace_input_with(read, gated)
