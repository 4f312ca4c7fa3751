"""Rule of `simplify`: what depends on constants alone is a constant."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from shrinkc.passes.analysis.usage import attribute
from shrinkc.passes.ir import integers, module_of
from shrinkc.passes.simplify.context import SimplifyContext


def fold_constant(c: SimplifyContext, node: fx.Node) -> None:
    """f(constants) → a buffer, worked out in float64.

    A parameter that the graph reads as it is stays a parameter: it may still be trained.
    """
    inputs = node.all_input_nodes
    computes = node.op in ("call_function", "call_module") and node.target is not integers
    if not computes or not inputs or any(x.op != "get_attr" for x in inputs):
        return
    graph_module = c.rewriter.graph_module
    values = {x: attribute(graph_module, x) for x in inputs}
    value = _evaluate(graph_module, node, values)
    floats = [v.dtype for v in values.values() if v.is_floating_point()]
    if value.is_floating_point() and floats:
        value = value.to(floats[0])
    node.op, node.target = "get_attr", c.rewriter.add_buffer(node.name, value.contiguous())
    node.args = ()
    c.rewriter.absorb_input(node, inputs, "it is a constant")


def _evaluate(graph_module: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Tensor]) -> Tensor:
    wide = {x: _float64(v) for x, v in values.items()}
    args = cast("tuple[Any, ...]", map_arg(node.args, lambda x: wide[x]))
    module = module_of(graph_module, node)
    if module is None:
        result: Tensor = cast(Any, node.target)(*args)
    else:
        twin: nn.Module = copy.deepcopy(module).double().eval()
        result = twin(*args)
    return result.detach().clone()


def _float64(value: Tensor) -> Tensor:
    return value.detach().to(torch.float64) if value.is_floating_point() else value
