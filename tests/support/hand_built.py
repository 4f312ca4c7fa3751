"""Small canonical graphs built by hand, in float64, with random weights."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shrinkc.passes.ir import check_legal


class Net:
    """A canonical graph under construction. `x` is the input of the given shape.

    Methods take and give nodes; `build` closes the graph.
    """

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.root, self.graph, self.shape = nn.Module(), fx.Graph(), shape
        self.generator = torch.Generator().manual_seed(seed)
        self.x = self.graph.placeholder("x")

    def call(self, module: nn.Module, x: fx.Node, name: str = "") -> fx.Node:
        """Call a new module, its parameters and statistics random."""
        path = name or f"{type(module).__name__.lower()}_{len(self.graph.nodes)}"
        randomise(module, self.generator)
        self.root.add_module(path, module)
        return self.graph.call_module(path, (x,))

    def again(self, node: fx.Node, x: fx.Node) -> fx.Node:
        """Call the module of `node` once more."""
        return self.graph.call_module(str(node.target), (x,))

    def function(self, function: Callable[..., Any], *args: Any) -> fx.Node:
        return self.graph.call_function(function, args)

    def constant(self, tensor: Tensor, name: str = "") -> fx.Node:
        """A parameter of the root that the graph reads."""
        path = name or f"constant_{len(self.graph.nodes)}"
        self.root.register_parameter(path, nn.Parameter(tensor.double()))
        return self.graph.create_node("get_attr", path)

    def conv(self, x: fx.Node, inputs: int, outputs: int, kernel: int, **options: Any) -> fx.Node:
        name = options.pop("name", "")
        return self.call(nn.Conv2d(inputs, outputs, kernel, **options), x, name)

    def add(self, a: Any, b: Any) -> fx.Node:
        return self.function(operator.add, a, b)

    def pad(self, x: fx.Node, *amounts: int, value: float = 0.0) -> fx.Node:
        return self.function(F.pad, x, amounts, "constant", value)

    def build(self, *outputs: fx.Node) -> fx.GraphModule:
        self.graph.output(outputs)
        graph_module = fx.GraphModule(self.root, self.graph).double().eval()
        graph_module.meta["input_shapes"] = {"x": self.shape}
        check_legal(graph_module)
        return graph_module


def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Weights that keep the scale of what flows through; batch norm far from its initial state."""
    with torch.no_grad():
        for parameter in module.parameters():
            fan = max(parameter[0].numel(), 1) if parameter.ndim > 1 else 1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan**0.5)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.track_running_stats:
            shape = module.running_mean.shape
            module.running_mean.copy_(torch.randn(shape, generator=generator))
            module.running_var.copy_(0.2 + torch.rand(shape, generator=generator))


def modules_of(graph_module: fx.GraphModule, *kinds: type[nn.Module]) -> list[nn.Module]:
    """The called modules of these classes, in execution order."""
    called = [
        graph_module.get_submodule(str(n.target))
        for n in graph_module.graph.nodes
        if n.op == "call_module"
    ]
    return [m for m in called if isinstance(m, kinds)]


def operations(graph_module: fx.GraphModule) -> list[str]:
    """Module classes and function names in execution order, without constants."""
    names: list[str] = []
    for node in graph_module.graph.nodes:
        if node.op == "call_module":
            names.append(type(graph_module.get_submodule(str(node.target))).__name__)
        elif node.op == "call_function":
            names.append(node.target.__name__)
    return names
