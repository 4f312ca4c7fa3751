"""1-D signals stay maps of height 1 between their layers.

A 1-D convolution is captured as a 2-D one over (N, C, 1, L), and what it computes is reshaped to
(N, C, L) behind it and back in front of the next. With row(x) for the first of the two,

    f(row(x)) = row(f'(x)),

where f' is f with its dimensions counted on the map. The rows meet the next layer's reshape and are
gone with it: batch norms fold, activations run inside the convolution, and whatever is known of
2-D networks holds for 1-D ones.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import fx, nn

from shrinkc.passes import ir
from shrinkc.passes.analysis.shapes import Shape, shapes
from shrinkc.passes.analysis.usage import Usage, usage
from shrinkc.passes.base import PassResult
from shrinkc.passes.rewrite import Rewriter

_op: Any = operator
_MODULES = (*ir.ELEMENTWISE_MODULES, nn.PReLU, nn.Dropout, nn.Identity, nn.BatchNorm1d)
_UNARY = (torch.sqrt, torch.rsqrt, torch.exp, torch.log, torch.abs, torch.erf, ir.neg, ir.clamp)
_BINARY = (*ir.ARITHMETIC, torch.maximum, torch.minimum)
_REDUCTIONS = (ir.mean, ir.sum_, ir.amax)
HEIGHT = 2  # the dimension of a map that its row lacks


@dataclass(frozen=True)
class LiftRows:
    """Move rows behind batch norms, activations, arithmetic, padding, cuts, concatenations and
    reductions. Exact in training too: a BatchNorm1d becomes the
    BatchNorm2d with its parameters and statistics.

    Declined with a reason: a batch norm that is called more than once.
    """

    name: ClassVar[str] = "lift-rows"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        copy = rewriter.graph_module
        lift = _Lift(rewriter, usage(copy), shapes(copy))
        for node in rewriter.nodes:
            if rewriter.alive(node):
                lift.run(node)
        return rewriter.finish()


@dataclass(frozen=True, eq=False)
class _Lift:
    rewriter: Rewriter
    usage: Usage
    shapes: dict[str, Shape]
    _rows: set[fx.Node] = field(default_factory=set[fx.Node])

    def run(self, node: fx.Node) -> None:
        if self._is_row(node):
            self._rows.add(node)
            return
        rows = [x for x in node.all_input_nodes if x in self._rows]
        if not rows or len(rows) < len(node.all_input_nodes):
            return
        if node.target in _REDUCTIONS and not node.args[2]:  # of the height, too
            dims = map(_dim, cast("tuple[int, ...]", node.args[1]))
            node.args = (_map(rows[0]), tuple(sorted({*dims, HEIGHT})), False)
            self.rewriter.absorb_input(node, rows, "computed on the map")
            return
        args = self._args(node)
        if args is None:
            return
        row = rows[0]
        with node.graph.inserting_before(node):
            made = node.graph.create_node(node.op, node.target, args, name=f"{node.name}_on_map")
        _, channels, length = self.shapes[node.name]
        self.shapes[made.name] = (self.shapes[node.name][0], channels, 1, length)
        batch = cast("tuple[int, ...]", row.args[1])[0]
        node.op, node.target = "call_function", torch.reshape
        node.args = (made, (batch, channels, length))
        self.rewriter.absorb_input(node, rows[::-1], "computed on the map")
        self.rewriter.helper(node, made)
        self._rows.add(node)

    def _is_row(self, node: fx.Node) -> bool:
        """(N, C, 1, L) → (N, C, L), at every batch size: only N may be left open."""
        if node.target is not torch.reshape:
            return False
        before, after = self.shapes[ir.input_of(node).name], self.shapes[node.name]
        fixed = cast("tuple[int, ...]", node.args[1])[1:]
        return len(before) == 4 and before[2] == 1 and before[1::2] == after[1:] == tuple(fixed)

    def _args(self, node: fx.Node) -> tuple[Any, ...] | None:
        """What the node's operator is called with on the map; None: it stays on the row."""
        module = ir.module_of(self.rewriter.graph_module, node)
        if module is not None:
            return self._module_args(node, module)
        first, *rest = node.args
        if node.target in _BINARY:
            return tuple(_map(x) for x in node.args)
        if node.target in _UNARY:
            return (_map(first), *rest)
        if node.target is torch.cat:
            parts = cast("tuple[fx.Node, ...]", first)
            return tuple(map(_map, parts)), _dim(cast(int, rest[0]))
        if node.target is ir.slice_dim:
            return (_map(first), _dim(cast(int, rest[0])), *rest[1:])
        if node.target in _REDUCTIONS and rest[1]:
            return _map(first), tuple(map(_dim, cast("tuple[int, ...]", rest[0]))), True
        if node.target is F.pad and rest[1] == "constant":
            sides = cast("tuple[int, ...]", rest[0])
            return _map(first), (*sides[:2], *((0, 0, *sides[2:]) if sides[2:] else ())), *rest[1:]
        return None

    def _module_args(self, node: fx.Node, module: nn.Module) -> tuple[Any, ...] | None:
        if not isinstance(module, _MODULES):
            return None
        if isinstance(module, nn.BatchNorm1d):
            calls = self.usage.calls(module)
            if calls > 1:
                self.rewriter.skip(node, f"it stays 1-D: the module is called {calls} times")
                return None
            self.rewriter.set_module(cast(str, node.target), _two_dimensional(module))
        return (_map(node.args[0]),)


def _map(operand: Any) -> Any:
    """The map of a row; a number as it is."""
    return operand.args[0] if ir.is_node(operand) else operand


def _dim(dim: int) -> int:
    return dim if dim < HEIGHT else dim + 1


def _two_dimensional(norm: nn.BatchNorm1d) -> nn.BatchNorm2d:
    """The batch norm of maps with the very parameters and statistics of `norm`."""
    own = {name: getattr(norm, name) for name in ir.MODULES[nn.BatchNorm1d]}
    made = nn.BatchNorm2d(**own).train(norm.training)
    for state, given in (
        (made._parameters, norm._parameters),  # pyright: ignore[reportPrivateUsage]
        (made._buffers, norm._buffers),  # pyright: ignore[reportPrivateUsage]
    ):
        state.update(cast(Any, given))
    return made
