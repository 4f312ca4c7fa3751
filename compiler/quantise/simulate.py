"""The int8 network in PyTorch: what the TFLite file computes, before there is one.

A copy of the graph in which layers hold rounded weights and a rounding stands behind every tensor
that the file holds in int8, so whatever runs a graph runs this one: batch by batch, with the
memory of one batch. Accumulators are exact here and in the runtimes; what remains between the two
is how a kernel rounds halves and rescales, a few levels of the output.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import fx, nn

from shrinkc.compiler.export import ops
from shrinkc.compiler.quantise.ranges import Range
from shrinkc.compiler.quantise.rounding import (
    LEVELS,
    SYMMETRIC_UNIT,
    UNIT,
    Grid,
    Layer,
    Rounding,
    grid_of,
    round_layer,
)
from shrinkc.passes import ir
from shrinkc.passes.base import copy_graph

# Their result has the grid of what they read: numbers only move, or are averaged.
_MOVES = (torch.reshape, torch.permute, ir.slice_dim, F.pad)
_MOVING = (nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.PixelShuffle, nn.PixelUnshuffle)
# Truth, counts and the numbers of words are never rounded.
_WHOLE = (*ir.COMPARISONS.values(), ir.argmax, ir.topk_indices, ir.integers, ir.numbers)
_NOTHING = (nn.Identity, nn.Dropout)
_AVERAGING = (nn.AvgPool2d, nn.Upsample)
_FIXED: dict[type[nn.Module], Grid] = {
    nn.Sigmoid: UNIT,
    nn.Softmax: UNIT,
    nn.Tanh: SYMMETRIC_UNIT,
}


@dataclass(frozen=True)
class Quantisation:
    """What becomes int8: the network's operators, the activations' ranges, what stays fp32.

    ranges      tensor → range, of `calibrate`
    keep_fp32   operators (graph nodes) whose arithmetic stays float
    levels      of weights on each side of zero
    """

    program: ops.Program
    ranges: Mapping[str, Range]
    keep_fp32: frozenset[str] = frozenset()
    levels: int = LEVELS

    def layers(self) -> dict[str, str]:
        """Layer → the tensor that it leaves, behind the activation fused into it."""
        kinds = (ops.Conv, ops.ConvTranspose, ops.Linear)
        return {op.name: op.output.name for op in self.program.ops if isinstance(op, kinds)}


def rounding_of(tensor: str) -> str:
    """The node in a simulation that holds the int8 version of a tensor."""
    return f"{tensor}__int8"


def simulate(graph_module: fx.GraphModule, quantisation: Quantisation) -> fx.GraphModule:
    """The int8 network. Nodes keep their names; see `rounding_of` for the new ones.

    `graph_module` is the graph that the program was lowered from; it is left as it is.
    """
    result = copy_graph(graph_module).float()
    grids = grids_of(result, quantisation)
    _round_layers(result, grids, quantisation)
    made_by = {op.output.name: op.name for op in quantisation.program.ops}
    operators = set(made_by.values())
    for node in list(result.graph.nodes):
        grid = grids.get(node)
        if grid is None or _only_moves(result, node):
            continue
        is_int8 = made_by.get(node.name, "") not in {*quantisation.keep_fp32, ""}
        readers = [
            user
            for user in node.users
            if is_int8 or _works_in_int8(user, operators, quantisation.keep_fp32)
        ]
        if is_int8 or readers:
            _insert_rounding(result, node, grid, readers)
    result.recompile()
    return result


def _insert_rounding(
    graph_module: fx.GraphModule, node: fx.Node, grid: Grid, readers: Collection[fx.Node]
) -> None:
    name = rounding_of(node.name)
    graph_module.add_module(name, Rounding(grid))
    with graph_module.graph.inserting_after(node):
        rounded = graph_module.graph.create_node("call_module", name, (node,), name=name)
    for reader in readers:
        reader.replace_input_with(node, rounded)


def grids_of(graph_module: fx.GraphModule, quantisation: Quantisation) -> dict[fx.Node, Grid]:
    """The grid of every value that the int8 file holds as a tensor; of its inputs too."""
    found: dict[fx.Node, Grid] = {}
    for node in graph_module.graph.nodes:
        if node.target in _WHOLE:
            continue
        grid = _fixed(graph_module, node)
        if grid is None and _takes_grid(graph_module, node):
            grid = found.get(ir.input_of(node))
        elif grid is None and node.name in quantisation.ranges:
            grid = grid_of(*quantisation.ranges[node.name])
        if grid is not None:
            found[node] = grid
    return found


def _fixed(graph_module: fx.GraphModule, node: fx.Node) -> Grid | None:
    module = ir.module_of(graph_module, node)
    return None if module is None else _FIXED.get(type(module))


def _takes_grid(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    module = ir.module_of(graph_module, node)
    return _only_moves(graph_module, node) or isinstance(module, _AVERAGING)


def _only_moves(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_function":
        return node.target in _MOVES
    return isinstance(ir.module_of(graph_module, node), (*_MOVING, *_NOTHING))


def _works_in_int8(node: fx.Node, operators: set[str], keep_fp32: frozenset[str]) -> bool:
    """A node that is no operator of the file is part of those that read it."""
    if node.op == "output":
        return False
    if node.name in operators:
        return node.name not in keep_fp32
    return any(_works_in_int8(user, operators, keep_fp32) for user in node.users)


def _round_layers(
    graph_module: fx.GraphModule, grids: Mapping[fx.Node, Grid], quantisation: Quantisation
) -> None:
    done: set[int] = set()
    keep_fp32, levels = quantisation.keep_fp32, quantisation.levels
    for node in graph_module.graph.nodes:
        layer = ir.module_of(graph_module, node)
        if isinstance(layer, Layer) and node.name not in keep_fp32 and id(layer) not in done:
            done.add(id(layer))
            round_layer(layer, grids.get(ir.input_of(node)), levels)
