"""Between which numbers every value lies, whatever the inputs and the trained weights are."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from math import inf, isnan
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shrinkc.passes import ir
from shrinkc.passes.analysis.usage import attribute

Range = tuple[float, float]  # the smallest and the largest number, both included
ANY: Range = (-inf, inf)

_op: Any = operator
_INCREASING = (
    *(nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Softplus),
    nn.Identity,
)
_INCREASING_ABOVE_ZERO = (nn.Hardswish, nn.SiLU, nn.GELU, nn.Mish, nn.LeakyReLU, nn.ELU)
_SELECTING = (  # every result is one of the inputs or lies between some
    *(nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample),
    *(nn.PixelShuffle, nn.PixelUnshuffle),
)
_REARRANGING = (torch.reshape, torch.permute, ir.slice_dim, ir.batch_expand, ir.mean, ir.amax)
_INCREASING_FUNCTIONS = (torch.exp, torch.sqrt)
_ARITHMETIC: tuple[Callable[..., Any], ...] = (_op.add, _op.sub, _op.mul)
_EXTREMES = {torch.maximum: max, torch.minimum: min}


def ranges(graph_module: fx.GraphModule) -> dict[str, Range]:
    """Node name → its range; the output node is left out. Parameters may still be trained, so they
    are anywhere; dropout scales what it keeps while training, so it is, too."""
    known: dict[fx.Node, Range] = {}
    for node in graph_module.graph.nodes:
        if node.op != "output":
            low, high = _range(graph_module, node, known)
            known[node] = ANY if isnan(low) or isnan(high) else (low, high)
    return {node.name: found for node, found in known.items()}


def limits(graph_module: fx.GraphModule, node: fx.Node) -> Range | None:
    """What the node limits its input to, leaving the rest alone; None: it does something else."""
    match ir.module_of(graph_module, node):
        case nn.ReLU():
            return 0.0, inf
        case nn.ReLU6():
            return 0.0, 6.0
        case nn.Hardtanh() as module:
            return module.min_val, module.max_val
        case _ if node.target is ir.clamp:
            low, high = cast("tuple[float | None, float | None]", node.args[1:])
            return -inf if low is None else low, inf if high is None else high
        case _:
            return None


def _range(graph_module: fx.GraphModule, node: fx.Node, known: dict[fx.Node, Range]) -> Range:
    limited = limits(graph_module, node)
    module = ir.module_of(graph_module, node)
    if limited is not None:
        low, high = known[ir.input_of(node)]
        return min(max(low, limited[0]), limited[1]), min(max(high, limited[0]), limited[1])
    if module is not None:
        return _of_module(module, known[ir.input_of(node)])
    if node.op == "get_attr":
        value = attribute(graph_module, node)
        fixed = value.is_floating_point() and value.numel() and not isinstance(value, nn.Parameter)
        return (float(value.min()), float(value.max())) if fixed else ANY
    if node.op == "call_function":
        return _of_function(node, known)
    return ANY


def _of_module(module: nn.Module, x: Range) -> Range:
    increasing = isinstance(module, _INCREASING)
    if increasing or (isinstance(module, _INCREASING_ABOVE_ZERO) and x[0] >= 0):
        return _at_both_ends(module, x)
    if isinstance(module, nn.Softmax):
        return 0.0, 1.0
    if isinstance(module, nn.AvgPool2d) and module.divisor_override is None:
        return _hull([x, (0.0, 0.0)])  # of its padding
    overshoots = isinstance(module, nn.Upsample) and module.mode == "bicubic"
    return x if isinstance(module, _SELECTING) and not overshoots else ANY


def _of_function(node: fx.Node, known: dict[fx.Node, Range]) -> Range:
    operands = [known[x] if ir.is_node(x) else (x, x) for x in node.args if not _is_tuple(x)]
    found = cast("list[Range]", operands)
    if node.target is torch.cat:
        return _hull([known[x] for x in node.all_input_nodes])
    if node.target is F.pad:
        fill = cast("float | None", node.args[3])
        return found[0] if node.args[2] != "constant" else _hull([found[0], (fill or 0, fill or 0)])
    if node.target in _REARRANGING:
        return found[0]
    if node.target in _INCREASING_FUNCTIONS:
        return _at_both_ends(cast(Any, node.target), found[0])
    if node.target is torch.abs:
        return 0.0, max(abs(end) for end in found[0])
    if node.target in _EXTREMES:
        take = _EXTREMES[cast(Any, node.target)]
        return take(found[0][0], found[1][0]), take(found[0][1], found[1][1])
    if node.target in _ARITHMETIC:
        apply = cast("Callable[[float, float], float]", node.target)
        ends = [apply(a, b) for a in found[0] for b in found[1]]
        return ANY if any(map(isnan, ends)) else (min(ends), max(ends))
    return ANY


def _is_tuple(value: object) -> bool:
    return isinstance(value, tuple | list)


def _at_both_ends(function: Callable[[Tensor], Tensor], x: Range) -> Range:
    ends = function(torch.tensor(x, dtype=torch.float64))
    return float(ends[0]), float(ends[1])


def _hull(parts: Iterable[Range]) -> Range:
    low, high = zip(*parts, strict=True)
    return min(low), max(high)
