"""What a raw graph computes besides tensors: run it at two batch sizes and compare.

Python numbers in a traced graph (`x.shape[0]`, `h // 2`) either never change with the batch, and
are constants, or do, and become `BatchInt`s. So no rule has to understand shape arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx


@dataclass(frozen=True)
class BatchInt:
    """An integer that follows the batch size: its value at each observed batch size."""

    values: tuple[int, ...]


@dataclass
class Observation:
    """Per node of one run: the shapes of tensors, the values of everything else, and the
    tensors that do not depend on the inputs."""

    values: dict[fx.Node, Any] = field(default_factory=dict[fx.Node, Any])
    constants: dict[fx.Node, Tensor] = field(default_factory=dict[fx.Node, Tensor])


class _Recorder(fx.Interpreter):
    def __init__(self, graph_module: fx.GraphModule, constant: set[fx.Node]) -> None:
        super().__init__(graph_module)
        self.extra_traceback = False
        self.constant = constant
        self.seen = Observation()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op != "output":
            self.seen.values[n] = _shapes(value)
            if n in self.constant and isinstance(value, Tensor):
                self.seen.constants[n] = value.detach()
        return value


def observe(graph_module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> Observation:
    """Run the graph once; activations are freed as soon as they are used up."""
    recorder = _Recorder(graph_module, _input_independent(graph_module))
    with torch.no_grad():
        recorder.run(*(x.clone() for x in inputs))  # in-place operators change them
    return recorder.seen


def _input_independent(graph_module: fx.GraphModule) -> set[fx.Node]:
    """Nodes whose value needs no input's numbers; sizes (`x.shape[0]`) are not numbers."""
    known: set[fx.Node] = set()
    for node in graph_module.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        if is_size(node) or all(source in known for source in node.all_input_nodes):
            known.add(node)
    return known


_SIZES = ("size", "dim", "numel")
_FILLED = (
    *("zeros_like", "ones_like", "full_like", "empty_like"),
    *("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor"),
)


def is_size(node: fx.Node) -> bool:
    """A node that asks a tensor for its sizes, dtype or device, not for its numbers."""
    if node.op == "call_method":
        return node.target in (*_SIZES, *_FILLED)
    if node.op != "call_function":
        return False
    name = getattr(node.target, "__name__", "")
    if node.target is getattr:
        return node.args[1] in ("shape", "dtype", "device", "ndim", "is_cuda", "requires_grad")
    named = name.partition(".")[0]
    return named in ("sym_size", "sym_numel", "sym_size_int", "_assert", "len", *_FILLED)


def _shapes(value: Any) -> Any:
    """Tensors replaced by their `torch.Size`, wrapped so that sizes stay recognisable."""
    if isinstance(value, Tensor):
        return TensorShape(tuple(value.shape))
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, (tuple, list)):
        return tuple(_shapes(item) for item in cast("list[Any]", value))
    return value


@dataclass(frozen=True)
class TensorShape:
    """Stands for a tensor in an observation."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class TensorShapes:
    """A tensor's shape at every observed batch size."""

    shapes: tuple[tuple[int, ...], ...]


def combine(values: tuple[Any, ...]) -> Any:
    """One value for the same node at every observed batch size."""
    first = values[0]
    if isinstance(first, TensorShape):
        return TensorShapes(tuple(value.shape for value in values))
    if isinstance(first, tuple):
        items = cast("tuple[tuple[Any, ...], ...]", values)
        return tuple(combine(column) for column in zip(*items, strict=True))
    if all(value is first or value == first for value in values[1:]):
        return first
    if isinstance(first, int):
        return BatchInt(cast("tuple[int, ...]", values))
    return first
