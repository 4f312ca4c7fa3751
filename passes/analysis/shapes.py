"""The shape of every value, for the input shapes that the graph was captured with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from shrinkc.passes.analysis.usage import attribute
from shrinkc.passes.ir import (
    BROADCASTING,
    ELEMENTWISE_MODULES,
    REDUCTIONS,
    input_shapes,
    module_of,
)
from shrinkc.passes.recurrent import Recurrent

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

# Their rules are known, and PyTorch takes up to 2 ms to work them out on meta tensors; the first
# convolution there also imports a symbolic algebra system for a second.
_SAME_SHAPE = (
    *(*ELEMENTWISE_MODULES, nn.PReLU, nn.Identity, nn.Dropout, nn.Softmax, nn.LogSoftmax),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm),
)
_broadcast: Callable[..., Shape] = cast(Any, torch).broadcast_shapes


def shapes(graph_module: fx.GraphModule, batch_factor: int = 1) -> Shapes:
    """Node name → shape, batch included; the output node is left out.

    Nothing is computed: the graph runs on meta tensors and is left as it is. `batch_factor`
    multiplies the first dimension of every input. Raises RuntimeError (PyTorch's own) where the
    graph cannot run, say at a batch size it is not made for.
    """
    values: dict[fx.Node, Tensor] = {}
    modules: dict[int, Callable[..., Tensor]] = {}
    with torch.no_grad():
        for node in graph_module.graph.nodes:
            if node.op != "output":
                values[node] = _run(graph_module, node, values, modules, batch_factor)
    return {node.name: tuple(value.shape) for node, value in values.items()}


def _run(
    graph_module: fx.GraphModule,
    node: fx.Node,
    values: dict[fx.Node, Tensor],
    modules: dict[int, Callable[..., Tensor]],
    batch_factor: int,
) -> Tensor:
    if node.op == "placeholder":
        batch, *rest = input_shapes(graph_module)[node.name]
        return torch.empty(batch * batch_factor, *rest, device="meta")
    if node.op == "get_attr":
        return _meta(attribute(graph_module, node))
    args = cast("tuple[Any, ...]", map_arg(node.args, lambda n: values[n]))
    module = module_of(graph_module, node)
    if module is None:
        return meta_call(cast("Callable[..., Any]", node.target), args)
    if id(module) not in modules:
        modules[id(module)] = meta_twin(module)
    return modules[id(module)](*args)


def meta_call(function: Callable[..., Any], args: tuple[Any, ...]) -> Tensor:
    """A canonical function on meta tensors."""
    if function in BROADCASTING:
        sizes = [tuple(x.shape) for x in args if isinstance(x, Tensor)]
        same = all(size == sizes[0] for size in sizes)
        shape = sizes[0] if same else _broadcast(*sizes)
        return torch.empty(shape, device="meta")
    if function in REDUCTIONS.values():
        x, dims, keep = args
        kept = (1 if i in dims else n for i, n in enumerate(x.shape) if keep or i not in dims)
        return torch.empty(tuple(kept), device="meta")
    return function(*args)


def _conv(m: Any, x: Shape) -> Shape:
    """⌊(n + 2p − d(k − 1) − 1)/s⌋ + 1"""
    axes = zip(x[2:], m.kernel_size, m.stride, m.padding, m.dilation, strict=True)
    size = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
    return (x[0], m.out_channels, *size)


def _linear(m: Any, x: Shape) -> Shape:
    return (*x[:-1], m.out_features)


def _adaptive(m: Any, x: Shape) -> Shape:
    size = m.output_size
    pair = (size, size) if isinstance(size, int) or size is None else size
    return (*x[:-2], *(n if k is None else k for n, k in zip(x[-2:], pair, strict=True)))


_FORMULAS: dict[type[nn.Module], Callable[[Any, Shape], Shape]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.AdaptiveAvgPool2d: _adaptive,
    nn.AdaptiveMaxPool2d: _adaptive,
    Recurrent: Recurrent.output_shape,
}


def meta_twin(module: nn.Module) -> Callable[..., Tensor]:
    """The module on meta tensors: a twin that shares everything but parameters and buffers."""
    if isinstance(module, _SAME_SHAPE):
        return _same
    if type(module) in _FORMULAS:
        formula = _FORMULAS[type(module)]

        def run(x: Tensor, *_: Tensor) -> Tensor:
            return torch.empty(formula(module, tuple(x.shape)), device="meta")

        return run
    twin = copy.copy(module)
    state = twin.__dict__
    for kind in ("_parameters", "_buffers"):
        state[kind] = {k: None if v is None else _meta(v) for k, v in state[kind].items()}
    twin.training = False
    return twin


def _same(x: Tensor) -> Tensor:
    return x


def _meta(tensor: Tensor) -> Tensor:
    """Only shapes matter: every float is the default one, so that no dtypes meet that differ."""
    dtype = torch.get_default_dtype() if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, device="meta")
