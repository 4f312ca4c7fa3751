"""Slice channels: a mask over channel groups becomes smaller layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
from torch import fx, nn

from shrinkc.passes.analysis.channels.channel_groups import (
    ChannelGroup,
    Groups,
    Keep,
    channel_groups,
)
from shrinkc.passes.base import Change, PassResult, Skip, copy_graph
from shrinkc.passes.channels.channel_cuts import Cuts, cut_tensors, parameter_cuts
from shrinkc.passes.channels.new_weights import set_weights
from shrinkc.passes.channels.selection import Selection


@dataclass(frozen=True, eq=False)
class SliceChannels:
    """Remove the channels that `selection` does not keep, after setting its new weights.

    Filters, biases, norms, the slices of the layers that read, `get_attr` constants, sizes in
    reshapes, slices and paddings, convolution groups. Lossy; equal to `mask_channels`, its
    reference twin. Node and parameter names stay.

    Declined with a reason, the group then left whole: a name that is no channel group, a mask of
    another size, a group (or a cell of it) that would vanish, cells that lose unequally many.
    `whole_conv_groups` and `outputs` as in `channel_groups`.
    """

    selection: Selection
    whole_conv_groups: bool = False
    outputs: bool = False
    name: ClassVar[str] = "slice-channels"
    exact: ClassVar[bool] = False

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        groups = channel_groups(graph_module, self.whole_conv_groups, self.outputs)
        keep, skipped = usable(groups, self.selection.keep)
        sliced = copy_graph(graph_module)
        unknown = set_weights(sliced, self.selection.weights)
        cuts = parameter_cuts(graph_module, groups, keep)
        stays = groups.kept(keep)
        cut_tensors(sliced, cuts)
        details = _resize(sliced, groups, stays)
        rewritten = _recount(sliced, groups, stays)
        sliced.recompile()
        touched = {*cuts, *(self.selection.weights.keys() - {s.node for s in unknown})}
        changes = _changes(sliced, touched, details, rewritten)
        return PassResult(sliced, changes, (*skipped, *unknown))


def usable(groups: Groups, keep: Keep) -> tuple[Keep, tuple[Skip, ...]]:
    """The part of `keep` that can be carried out, and why not the rest."""
    known = {group.name: group for group in groups.groups}
    reasons = {name: _why_not(known.get(name), mask) for name, mask in keep.items()}
    skipped = tuple(Skip(name, reason) for name, reason in reasons.items() if reason)
    return {name: mask for name, mask in keep.items() if not reasons[name]}, skipped


def _why_not(group: ChannelGroup | None, mask: npt.NDArray[np.bool_]) -> str | None:
    if group is None:
        return "there is no such channel group"
    if mask.shape != (group.size,):
        return f"a mask of {mask.size} for {group.size} channels"
    left = np.bincount(group.cells[mask], minlength=int(group.cells.max()) + 1)
    if not left.all():
        return "all its channels would go" if not mask.any() else "a cell of it would vanish"
    gone = np.bincount(group.cells[~mask], minlength=len(left))
    if gone.min() != gone.max():
        return f"from {gone.min()} to {gone.max()} channels would go from its {len(gone)} cells"
    return None


def _resize(
    graph_module: fx.GraphModule, groups: Groups, stays: npt.NDArray[np.bool_]
) -> dict[str, list[str]]:
    """Sizes of modules; layer → what changed."""
    details: dict[str, dict[str, None]] = {}
    for size in groups.sizes:
        count = int(stays[size.ids].sum())
        if count == len(size.ids):
            continue
        module = graph_module.get_submodule(size.layer)
        value: Any = count
        if size.item is not None:
            old = cast("tuple[int, ...]", getattr(module, size.attribute))
            value = (*old[: size.item], count, *old[size.item + 1 :])
        setattr(module, size.attribute, value)
        change = f"{size.attribute} {len(size.ids)} → {count}"
        details.setdefault(size.layer, {})[change] = None
    return {layer: list(changes) for layer, changes in details.items()}


def _recount(
    graph_module: fx.GraphModule, groups: Groups, stays: npt.NDArray[np.bool_]
) -> dict[str, str]:
    """Channel counts in arguments; node → what changed."""
    nodes = {node.name: node for node in graph_module.graph.nodes}
    details: dict[str, str] = {}
    for count in groups.counts:
        left = int(stays[count.ids].sum())
        if left == len(count.ids):
            continue
        node, (index, *item) = nodes[count.node], count.at
        value: Any = left
        if item:
            old = list(cast("tuple[int, ...]", node.args[index]))
            old[item[0]] = left
            value = tuple(old)
        node.update_arg(index, value)
        details[node.name] = f"{node.args[1:]}"
    return details


def _changes(
    graph_module: fx.GraphModule,
    touched: Iterable[str],
    details: dict[str, list[str]],
    rewritten: dict[str, str],
) -> tuple[Change, ...]:
    """One for each node that differs; its value keeps its name with fewer channels."""
    paths = set(touched)
    layers = {id(_owner(graph_module, path)) for path in paths}
    named = {id(graph_module.get_submodule(k)): v for k, v in details.items()}
    found: list[Change] = []
    for node in graph_module.graph.nodes:
        detail = rewritten.get(node.name)
        if node.op == "call_module":
            module = graph_module.get_submodule(cast(str, node.target))
            if id(module) in named or id(module) in layers:
                detail = ", ".join(named.get(id(module), ["weights changed"]))
        elif node.op == "get_attr" and node.target in paths:
            detail = "sliced"
        if detail is not None:
            found.append(Change(node.name, (node.name,), detail))
    return tuple(found)


def _owner(graph_module: fx.GraphModule, path: str) -> nn.Module:
    return graph_module.get_submodule(path.rpartition(".")[0])


def sliced_cuts(graph_module: fx.GraphModule, slicing: SliceChannels) -> Cuts:
    """What the pass cuts from each parameter of this graph, say for an optimiser's state."""
    groups = channel_groups(graph_module, slicing.whole_conv_groups, slicing.outputs)
    return parameter_cuts(graph_module, groups, usable(groups, slicing.selection.keep)[0])
