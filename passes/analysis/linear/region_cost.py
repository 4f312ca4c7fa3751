"""What a linear region costs as it is, and as the one layer that it can become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import fx

from shrinkc.passes.analysis.linear.linear_op import ConstantPart, Layout
from shrinkc.passes.analysis.linear.linear_ops import LinearOps
from shrinkc.passes.analysis.linear.region_map import Traced
from shrinkc.passes.analysis.op_spec import (
    ACTIVATIONS,
    FUSED_ACTIVATIONS,
    FUSING_OPS,
    OpSpec,
    conv_spec,
    linear_spec,
)
from shrinkc.passes.ir import module_of


def cost_before(ops: LinearOps, nodes: Sequence[fx.Node], layout: Layout) -> tuple[OpSpec, ...]:
    """The operators that the nodes are today, the activation behind the last one included where
    the merged layer would run it inside."""
    specs = [spec for node in nodes for spec in _cost(ops, node, layout)]
    sink = nodes[-1]
    activation = fused_activation(ops.graph_module, sink)
    if activation != "none" and (not specs or specs[-1].activation == "none"):
        specs.append(ops.elementwise(activation, sink, layout))
    return tuple(specs)


def cost_after(
    ops: LinearOps, source: fx.Node, sink: fx.Node, traced: Traced, layout: Layout
) -> tuple[OpSpec, ...]:
    """The merged layer; padding in front of a convolution runs inside it."""
    activation = fused_activation(ops.graph_module, sink)
    if layout == "linear":
        return (replace(linear_spec(traced.window, ops.rows(sink)), activation=activation),)
    conv = conv_spec(traced.window, ops.size(source, layout), ops.size(sink, layout))
    if traced.constant < ConstantPart.MAP:
        return (replace(conv, activation=activation),)
    return conv, replace(ops.elementwise("add", sink, layout), activation=activation)


def fused_activation(graph_module: fx.GraphModule, node: fx.Node) -> str:
    """The activation behind a node that runs inside it: none, relu or relu6."""
    if len(node.users) != 1:
        return "none"
    module = module_of(graph_module, next(iter(node.users)))
    return FUSED_ACTIVATIONS.get(type(module), "none") if module is not None else "none"


def _cost(ops: LinearOps, node: fx.Node, layout: Layout) -> tuple[OpSpec, ...]:
    op = ops.read(node, layout)
    assert not isinstance(op, str)
    if node.name in ops.removable:
        return _activation_cost(ops, node, layout)
    if op.spec is None:
        return ()
    if op.spec.op not in FUSING_OPS:
        return (op.spec,)
    return (replace(op.spec, activation=fused_activation(ops.graph_module, node)),)


def _activation_cost(ops: LinearOps, node: fx.Node, layout: Layout) -> tuple[OpSpec, ...]:
    module, before = module_of(ops.graph_module, node), node.all_input_nodes[0]
    name = "clip"
    if module is not None:
        name = ACTIVATIONS.get(type(module), type(module).__name__.lower())
    op = ops.read(before, layout)
    inside = not isinstance(op, str) and op.spec is not None and op.spec.op in FUSING_OPS
    if inside and fused_activation(ops.graph_module, before) != "none":
        return ()
    return (ops.elementwise(name, node, layout),)
