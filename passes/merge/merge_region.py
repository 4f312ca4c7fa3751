"""Put one layer in the place of a linear region."""

from __future__ import annotations

import operator
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shrinkc.passes.algebra.affine_map import AffineMap
from shrinkc.passes.algebra.window import Padding, Window, padding_of
from shrinkc.passes.analysis.linear.linear_ops import LinearOps
from shrinkc.passes.analysis.linear.linear_segments import LinearRegion
from shrinkc.passes.analysis.linear.region_map import affine_map
from shrinkc.passes.rewrite import Rewriter

_add: Any = operator.add


class Replaced(Protocol):
    """Nodes to be replaced, in execution order, the sink last; what they read is the source."""

    @property
    def source(self) -> str: ...
    @property
    def sink(self) -> str: ...
    @property
    def nodes(self) -> tuple[str, ...]: ...


def merge_region(
    rewriter: Rewriter, ops: LinearOps, region: LinearRegion, nodes: dict[str, fx.Node]
) -> None:
    """Replace `region` by one Conv2d or Linear of its dtype, at the path of its last layer.

    The sink keeps its name and its value. An `F.pad` goes in front where the padding is
    asymmetric, an add of a constant map behind where the constant part is not one vector.
    `nodes` holds the nodes of `rewriter.graph_module` by name, `ops` has read them.
    """
    inside = [nodes[name] for name in region.nodes]
    with torch.no_grad():
        merged = affine_map(ops, nodes[region.source], inside, region.layout)
    put_layer(rewriter, ops.graph_module, region, nodes, merged, describe(region, merged.uniform))


def put_layer(
    rewriter: Rewriter,
    graph_module: fx.GraphModule,
    region: Replaced,
    nodes: dict[str, fx.Node],
    merged: AffineMap,
    detail: str,
) -> None:
    """Replace the nodes of `region` by the layer with the numbers of `merged`."""
    inside = [nodes[name] for name in region.nodes]
    constants = [x for node in inside for x in node.all_input_nodes if x.op == "get_attr"]
    source, sink = nodes[region.source], nodes[region.sink]
    with torch.no_grad():
        padding = padding_of(merged.window, merged.size, merged.out_size)
        last = next(n for n in reversed(inside) if _is_layer(graph_module, n))
        like = cast("nn.Conv2d | nn.Linear", rewriter.module(last))
        path = cast(str, last.target)
        rewriter.set_module(path, _layer(merged, padding, like))
        _place(rewriter, source, sink, path, merged, padding, like.weight)
    rewriter.absorb_input(sink, [n for n in reversed(inside) if n is not sink], detail)
    rewriter.absorb_unread(sink, dict.fromkeys(constants))


def describe(region: LinearRegion, uniform: bool = True) -> str:
    """What the region becomes, in words."""
    nodes = f"{len(region.nodes)} nodes are one"
    if region.layout == "linear":
        return f"{nodes} linear layer"
    window = region.window
    kernel, stride = "×".join(map(str, window.kernel)), "×".join(map(str, window.stride))
    groups = f", {window.groups} groups" if window.groups > 1 else ""
    border = "" if uniform else " and a constant map for its border"
    return f"{nodes} {kernel} convolution, stride {stride}{groups}{border}"


def _is_layer(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    return isinstance(graph_module.get_submodule(cast(str, node.target)), nn.Conv2d | nn.Linear)


def _layer(merged: AffineMap, padding: Padding, like: nn.Conv2d | nn.Linear) -> nn.Module:
    """A layer with the numbers of `merged`, dtype and device of `like`."""
    bias = merged.constant.reshape(-1) if merged.uniform and bool(merged.constant.any()) else None
    if isinstance(like, nn.Linear):
        layer: nn.Module = _empty_linear(merged.window, bias is not None)
        weight = merged.weight[:, :, 0, 0]
    else:
        layer = _empty_conv(merged.window, padding, bias is not None)
        weight = merged.weight
    layer.weight = _parameter(weight, like.weight)
    if bias is not None:
        layer.bias = _parameter(bias, like.weight)
    return layer.train(like.training)


def _empty_linear(window: Window, bias: bool) -> nn.Linear:
    return nn.Linear(window.in_channels, window.out_channels, bias, device="meta")


def _empty_conv(window: Window, padding: Padding, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(
        window.in_channels,
        window.out_channels,
        window.kernel,
        window.stride,
        padding.own,
        window.dilation,
        window.groups,
        bias,
        device="meta",
    )


def _parameter(values: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(values.to(like).contiguous(), like.requires_grad)


def _place(
    rewriter: Rewriter,
    source: fx.Node,
    sink: fx.Node,
    path: str,
    merged: AffineMap,
    padding: Padding,
    like: Tensor,
) -> None:
    """Make `sink` the layer, or the add behind it."""
    graph, x = rewriter.graph_module.graph, source
    with graph.inserting_before(sink):
        if padding.explicit:
            args = (x, padding.explicit, "constant", 0.0)
            x = graph.create_node("call_function", F.pad, args, name=f"{sink.name}_pad")
            rewriter.helper(sink, x)
        if merged.uniform:
            sink.op, sink.target, sink.args = "call_module", path, (x,)
            return
        conv = graph.create_node("call_module", path, (x,), name=f"{sink.name}_conv")
        buffer = rewriter.add_buffer(f"{sink.name}_border", merged.constant[None].to(like))
        border = graph.create_node("get_attr", buffer, name=f"{sink.name}_border")
        rewriter.helper(sink, conv)
        rewriter.helper(sink, border)
        sink.op, sink.target, sink.args = "call_function", _add, (conv, border)
