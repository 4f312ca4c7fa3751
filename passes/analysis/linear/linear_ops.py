"""Reads nodes as linear window maps, or says why they are none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from torch import fx, nn

from shrinkc.passes.analysis.linear.linear_functions import FUNCTIONS
from shrinkc.passes.analysis.linear.linear_modules import MODULES
from shrinkc.passes.analysis.linear.linear_op import Layout, LinearContext, LinearOp
from shrinkc.passes.ir import module_of


@dataclass(frozen=True, eq=False)
class LinearOps(LinearContext):
    """The nodes of one graph, which must not change once they have been read.

    `removable` names activations that count as identity.
    """

    removable: frozenset[str] = frozenset()
    _known: dict[tuple[fx.Node, Layout], LinearOp | str] = field(
        default_factory=dict[tuple[fx.Node, Layout], LinearOp | str], repr=False
    )

    def read(self, node: fx.Node, layout: Layout) -> LinearOp | str:
        """The node as a linear map in this layout, or why it is none ("it …")."""
        key = (node, layout)
        if key not in self._known:
            self._known[key] = self._read(node, layout)
        return self._known[key]

    def _read(self, node: fx.Node, layout: Layout) -> LinearOp | str:
        shape = self.shapes.get(node.name, ())
        if node.op == "placeholder":
            return "it is an input"
        if node.op == "get_attr":
            return "it is a constant"
        if len(shape) < 2 or (layout == "conv2d" and len(shape) != 4):
            return f"its shape {shape} has no channels in the {layout} layout"
        if node.name in self.removable:
            return self.identity(node, layout)
        module = module_of(self.graph_module, node)
        if module is not None:
            return self._module(node, module, layout)
        reader = FUNCTIONS.get(cast(Any, node.target))
        if reader is None:
            return f"it is {function_name(node)}, not a linear window map"
        return reader(self, node, layout)

    def _module(self, node: fx.Node, module: nn.Module, layout: Layout) -> LinearOp | str:
        reader = MODULES.get(type(module))
        if reader is None:
            return f"it is {type(module).__name__}, not a linear window map"
        return self.usage.why_shared(module) or reader(self, node, module, layout)


def function_name(node: fx.Node) -> str:
    return getattr(node.target, "__name__", str(node.target))
