"""The shape of every value, for the input shapes that the graph was captured with."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from shrinkc.errors import IllegalGraphError
from shrinkc.passes.analysis.usage import attribute
from shrinkc.passes.ir import (
    BROADCASTING,
    ELEMENTWISE_MODULES,
    REDUCTIONS,
    UNARY,
    input_shapes,
    module_of,
    take,
)
from shrinkc.passes.recurrent import Recurrent

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
Rule = Callable[[Any, Shape], Shape]  # of a module

_UNARY, _REDUCTIONS = frozenset(UNARY.values()), frozenset(REDUCTIONS.values())
_broadcast: Callable[..., Shape] = cast(Any, torch).broadcast_shapes


def shapes(graph_module: fx.GraphModule, batch_factor: int = 1) -> Shapes:
    """Node name → shape, batch included; the output node is left out.

    Nothing is computed: the graph runs on meta tensors and is left as it is. `batch_factor`
    multiplies the first dimension of every input. Raises RuntimeError (PyTorch's own) where the
    graph cannot run, say at a batch size it is not made for.
    """
    return {node.name: shape for node, shape in _shapes(graph_module, batch_factor)}


def check_shapes(graph_module: fx.GraphModule, most: int) -> None:
    """Raise IllegalGraphError naming the first node that cannot run on the inputs that the graph
    was captured with, or on twice as many where it says that any batch will do; or whose value has
    more than `most` numbers."""
    nodes = [node for node in graph_module.graph.nodes if node.op != "output"]
    for factor in (1, 2) if graph_module.meta.get("dynamic_batch") else (1,):
        done = 0
        try:
            for _, shape in _shapes(graph_module, factor):
                if math.prod(shape) > most * factor:
                    form = "×".join(map(str, shape))
                    raise RuntimeError(f"a value of {form}, the limit is {most:,} numbers")
                done += 1
        except Exception as error:  # PyTorch's functions check in many ways
            at = " at twice the batch" if factor > 1 else ""
            raise IllegalGraphError(f"node '{nodes[done].name}' cannot run{at}: {error}") from error


def _shapes(graph_module: fx.GraphModule, batch_factor: int = 1) -> Iterator[tuple[fx.Node, Shape]]:
    values: dict[fx.Node, Tensor] = {}
    modules: dict[int, Callable[..., Tensor]] = {}
    with torch.no_grad():
        for node in graph_module.graph.nodes:
            if node.op != "output":
                values[node] = found = _run(graph_module, node, values, modules, batch_factor)
                yield node, tuple(found.shape)


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
    args = cast("tuple[Any, ...]", map_arg(node.args, values.__getitem__))
    module = module_of(graph_module, node)
    if module is None:
        return meta_call(cast("Callable[..., Any]", node.target), args)
    if type(module) in _SAME and len(args) == 1:
        return args[0]
    if id(module) not in modules:
        modules[id(module)] = meta_twin(module)
    return modules[id(module)](*args)


def meta_call(function: Callable[..., Any], args: tuple[Any, ...]) -> Tensor:
    """A canonical function on meta tensors."""
    if function in BROADCASTING:
        sizes = [tuple(x.shape) for x in args if isinstance(x, Tensor)]
        first = sizes[0]
        shape = first if all(size == first for size in sizes) else _broadcast(*sizes)
        return torch.empty(shape, device="meta")
    if function in _UNARY:
        return args[0]
    if function in _REDUCTIONS:
        x, dims, keep = args
        _require(len(set(dims)) == len(dims) and all(d < x.ndim for d in dims), "its dimensions")
        kept = (1 if i in dims else n for i, n in enumerate(x.shape) if keep or i not in dims)
        return torch.empty(tuple(kept), device="meta")
    if function is take:
        x, dim, indices = args
        _require(dim < x.ndim and max(indices) < x.shape[dim], "its indices")
    return function(*args)


def _require(right: bool, what: str) -> None:
    if not right:
        raise RuntimeError(f"{what} do not fit its input")


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) or value is None else value


def _same(m: nn.Module, x: Shape) -> Shape:
    return x


def _by_channel(m: Any, x: Shape) -> Shape:
    """Batch norms"""
    ranks = (4,) if isinstance(m, nn.BatchNorm2d) else (2, 3)
    _require(len(x) in ranks and x[1] == m.num_features, "its channels")
    return x


def _by_features(m: Any, x: Shape) -> Shape:
    """Layer norm"""
    _require(x[-len(m.normalized_shape) :] == tuple(m.normalized_shape), "its features")
    return x


def _by_group(m: Any, x: Shape) -> Shape:
    """Group norm"""
    _require(x[1:2] == (m.num_channels,), "its channels")
    return x


def _by_slope(m: Any, x: Shape) -> Shape:
    """PReLU"""
    _require(m.num_parameters == 1 or x[1:2] == (m.num_parameters,), "its channels")
    return x


def _along(m: Any, x: Shape) -> Shape:
    _require(m.dim < len(x), "its dimension")
    return x


def _conv(m: Any, x: Shape) -> Shape:
    """⌊(n + 2p − d(k − 1) − 1)/s⌋ + 1"""
    _require(len(x) == 4 and x[1] == m.in_channels, "its channels")
    axes = zip(x[2:], m.kernel_size, m.stride, m.padding, m.dilation, strict=True)
    return _sized(
        (x[0], m.out_channels), ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
    )


def _transposed(m: Any, x: Shape) -> Shape:
    """(n − 1)s − 2p + d(k − 1) + o + 1"""
    _require(len(x) == 4 and x[1] == m.in_channels, "its channels")
    more, s, d = m.output_padding, m.stride, m.dilation
    _require(all(o < max(a, b) for o, a, b in zip(more, s, d, strict=True)), "its output padding")
    axes = zip(x[2:], m.kernel_size, s, m.padding, d, more, strict=True)
    size = ((n - 1) * s - 2 * p + d * (k - 1) + o + 1 for n, k, s, p, d, o in axes)
    return _sized((x[0], m.out_channels), size)


def _pooled(m: Any, x: Shape) -> Shape:
    """As `_conv`, but rounded up on request, as long as the last window begins in the image."""
    _require(len(x) in (3, 4), "its dimensions")
    fields = (m.kernel_size, m.stride, m.padding, getattr(m, "dilation", 1))
    size: list[int] = []
    for n, k, s, p, d in zip(x[-2:], *map(_pair, fields), strict=True):
        _require(2 * p <= k, "its padding")
        room = n + 2 * p - d * (k - 1) - 1
        steps = -(-room // s) if m.ceil_mode else room // s
        beyond = m.ceil_mode and steps * s >= n + p
        size.append(steps + (0 if beyond else 1))
    return _sized(x[:-2], size)


def _sized(before: Shape, size: Iterable[int]) -> Shape:
    found = tuple(size)
    _require(min(found) > 0, "its windows")
    return (*before, *found)


def _linear(m: Any, x: Shape) -> Shape:
    _require(x[-1:] == (m.in_features,), "its features")
    return (*x[:-1], m.out_features)


def _adaptive(m: Any, x: Shape) -> Shape:
    _require(len(x) in (3, 4), "its dimensions")
    pair = zip(x[-2:], _pair(m.output_size), strict=True)
    return (*x[:-2], *(n if k is None else k for n, k in pair))


def _recurrent(m: Recurrent, x: Shape) -> Shape:
    _require(len(x) == 3 and x[2] == m.input_size, "its features")
    return m.output_shape(x)


# Their rules are known, and PyTorch takes up to 2 ms to work them out on meta tensors; the first
# convolution there also imports a symbolic algebra system for a second.
_SAME = frozenset((*ELEMENTWISE_MODULES, nn.Identity, nn.Dropout))
_RULES: dict[type[nn.Module], Rule] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d), _by_channel),
    nn.LayerNorm: _by_features,
    nn.GroupNorm: _by_group,
    nn.PReLU: _by_slope,
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax), _along),
    nn.Conv2d: _conv,
    nn.ConvTranspose2d: _transposed,
    nn.Linear: _linear,
    **dict.fromkeys((nn.MaxPool2d, nn.AvgPool2d), _pooled),
    **dict.fromkeys((nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d), _adaptive),
    Recurrent: _recurrent,
}


def meta_twin(module: nn.Module) -> Callable[..., Tensor]:
    """The module on meta tensors: a twin that shares everything but parameters and buffers."""
    rule = _RULES.get(type(module))
    if rule is not None:

        def run(x: Tensor, *states: Tensor) -> Tensor:
            if isinstance(module, Recurrent):
                sizes = (module.output_size, module.hidden_size)
                _require(all(s.shape == (len(x), n) for s, n in zip(states, sizes)), "its states")  # noqa: B905
            shape = rule(module, tuple(x.shape))
            return x if shape == x.shape else torch.empty(shape, device="meta")

        return run
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
