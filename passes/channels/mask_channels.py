"""The reference twin of `SliceChannels`: every channel stays, the removed ones count for nothing.

Convolutions, linear layers, sums and matrix products read zeros in the removed channels; means,
maxima and norms over channels are taken over the others. All parameters keep their shapes, so that
a training can start, or be compared, with the masks on.
"""

from __future__ import annotations

import operator
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.analysis.channels.channel_ids import Use
from shrinkc.passes.analysis.shapes import Shapes, shapes
from shrinkc.passes.base import copy_graph
from shrinkc.passes.channels.channel_cuts import indices
from shrinkc.passes.channels.new_weights import set_weights
from shrinkc.passes.channels.slice_channels import SliceChannels, usable
from shrinkc.passes.ir import module_of

mul: Any = operator.mul


def mask_channels(graph_module: fx.GraphModule, slicing: SliceChannels) -> fx.GraphModule:
    """The graph that computes what `slicing` makes of it, nothing removed; not canonical where
    something is normalised over channels."""
    groups = channel_groups(graph_module, slicing.whole_conv_groups, slicing.outputs)
    stays = groups.kept(usable(groups, slicing.selection.keep)[0])
    twin, known = copy_graph(graph_module), shapes(graph_module)
    set_weights(twin, slicing.selection.weights)
    nodes = {node.name: node for node in twin.graph.nodes}
    norms: dict[str, dict[int, Tensor]] = {}
    for use in groups.uses:
        kept = stays[use.ids]
        if use.how == "made" or kept.all():
            continue
        reader = nodes[use.node]
        if use.how == "left out" and reader.op == "call_module":
            norms.setdefault(use.node, {})[use.axis] = indices(np.flatnonzero(kept))
        else:
            _mask(twin, reader, nodes[use.source], use, kept, known)
    for name, left in norms.items():
        _replace_norm(twin, nodes[name], left)
    twin.recompile()
    return twin


def _mask(
    twin: fx.GraphModule,
    reader: fx.Node,
    source: fx.Node,
    use: Use,
    kept: npt.NDArray[np.bool_],
    known: Shapes,
) -> None:
    """Between the source and this reader alone."""
    path = f"mask_{len(twin.graph.nodes)}"
    # an earlier mask of another axis may already stand in between
    read = next((n for n in reader.all_input_nodes if _behind(n) is source), source)
    with twin.graph.inserting_before(reader):
        constant = twin.graph.create_node("get_attr", path)
        if use.how == "zero":
            rank = len(known[use.source]) - use.axis
            mask = cast(Tensor, cast(Any, torch).from_numpy(kept)).reshape(-1, *(1,) * (rank - 1))
            dtype = next((p.dtype for p in twin.parameters()), torch.get_default_dtype())
            twin.register_buffer(path, mask.to(dtype))
            masked = twin.graph.call_function(mul, (read, constant))
        else:
            twin.register_buffer(path, indices(np.flatnonzero(kept)))
            select: Any = torch.index_select
            masked = twin.graph.call_function(select, (read, use.axis, constant))
    masked.meta["masks"] = source
    reader.replace_input_with(read, masked)


def _behind(node: fx.Node) -> fx.Node:
    return cast(fx.Node, node.meta.get("masks", node))


def _replace_norm(twin: fx.GraphModule, node: fx.Node, left: dict[int, Tensor]) -> None:
    norm = module_of(twin, node)
    path = f"{str(node.target).replace('.', '_')}_{node.name}_left"
    if isinstance(norm, nn.LayerNorm):
        twin.add_submodule(path, LayerNormOfSome(norm, left))
    else:
        assert isinstance(norm, nn.GroupNorm)
        twin.add_submodule(path, GroupNormOfSome(norm, left[1]))
    node.target = path


class LayerNormOfSome(nn.Module):
    """Layer norm of the channels in `left` (axis of the input → which), zeros elsewhere."""

    def __init__(self, norm: nn.LayerNorm, left: dict[int, Tensor]) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.rank, self.left = len(norm.normalized_shape), left

    def forward(self, x: Tensor) -> Tensor:
        part, weight, bias = x, self.weight, cast("Tensor | None", self.bias)
        for axis, kept in self.left.items():
            part = part.index_select(axis, kept)
            dim = axis - (x.ndim - self.rank)
            weight = None if weight is None else weight.index_select(dim, kept)
            bias = None if bias is None else bias.index_select(dim, kept)
        part = F.layer_norm(part, part.shape[x.ndim - self.rank :], weight, bias, self.eps)
        for axis, kept in reversed(self.left.items()):
            shape = [x.shape[d] if d == axis else n for d, n in enumerate(part.shape)]
            part = part.new_zeros(shape).index_copy(axis, kept, part)
        return part


class GroupNormOfSome(nn.Module):
    """Group norm of the channels `left`, zeros elsewhere."""

    def __init__(self, norm: nn.GroupNorm, left: Tensor) -> None:
        super().__init__()
        self.weight, self.bias, self.eps, self.left = norm.weight, norm.bias, norm.eps, left
        each = norm.num_channels // norm.num_groups
        self.groups = len(cast(Tensor, cast(Any, torch).unique(left // each)))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (
            None if p is None else p.index_select(0, self.left)
            for p in cast("tuple[Tensor | None, ...]", (self.weight, self.bias))
        )
        part = F.group_norm(x.index_select(1, self.left), self.groups, weight, bias, self.eps)
        return torch.zeros_like(x).index_copy(1, self.left, part)
