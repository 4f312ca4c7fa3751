"""The shape of every value, for the input shapes that the graph was captured with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from ..ir import ARITHMETIC, ELEMENTWISE_MODULES, input_shapes, module_of
from .usage import attribute

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

# Their rules are known, and PyTorch takes up to 2 ms to work them out on meta tensors.
_SAME_SHAPE = (
    *(*ELEMENTWISE_MODULES, nn.PReLU, nn.Identity, nn.Dropout, nn.Softmax),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm),
)
_broadcast: Callable[..., Shape] = cast(Any, torch).broadcast_shapes
_BROADCASTING = (*ARITHMETIC, torch.maximum, torch.minimum)


def shapes(graph_module: fx.GraphModule, batch_factor: int = 1) -> Shapes:
    """Node name → shape, batch included; the output node is left out.

    Nothing is computed: the graph runs on meta tensors and is left as it is. `batch_factor`
    multiplies the first dimension of every input. Raises RuntimeError (PyTorch's own) where the
    graph cannot run, say at a batch size it is not made for.
    """
    values: dict[fx.Node, Tensor] = {}
    modules: dict[int, nn.Module] = {}
    with torch.no_grad():
        for node in graph_module.graph.nodes:
            if node.op != "output":
                values[node] = _run(graph_module, node, values, modules, batch_factor)
    return {node.name: tuple(value.shape) for node, value in values.items()}


def _run(
    graph_module: fx.GraphModule,
    node: fx.Node,
    values: dict[fx.Node, Tensor],
    modules: dict[int, nn.Module],
    batch_factor: int,
) -> Tensor:
    if node.op == "placeholder":
        batch, *rest = input_shapes(graph_module)[node.name]
        return torch.empty(batch * batch_factor, *rest, device="meta")
    if node.op == "get_attr":
        return _meta(attribute(graph_module, node))
    args = cast("tuple[Any, ...]", map_arg(node.args, lambda n: values[n]))
    module = module_of(graph_module, node)
    if isinstance(module, _SAME_SHAPE):
        return args[0]
    if module is None:
        return _function(node, args)
    if id(module) not in modules:
        modules[id(module)] = _meta_module(module)
    return modules[id(module)](*args)


def _function(node: fx.Node, args: tuple[Any, ...]) -> Tensor:
    if node.target in _BROADCASTING:
        sizes = [tuple(x.shape) for x in args if isinstance(x, Tensor)]
        same = all(size == sizes[0] for size in sizes)
        shape = sizes[0] if same else _broadcast(*sizes)
        return torch.empty(shape, device="meta")
    return cast(Any, node.target)(*args)


def _meta_module(module: nn.Module) -> nn.Module:
    """A twin whose parameters and buffers are meta tensors; the rest is shared."""
    twin = copy.copy(module)
    state = twin.__dict__
    for kind in ("_parameters", "_buffers"):
        state[kind] = {k: None if v is None else _meta(v) for k, v in state[kind].items()}
    twin.training = False
    return twin


def _meta(tensor: Tensor) -> Tensor:
    """Only shapes matter: every float is the default one, so that no dtypes meet that differ."""
    dtype = torch.get_default_dtype() if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, device="meta")
