"""What a raw graph computes besides tensors, and what it writes in place: run it and look.

Python numbers in a traced graph (`x.shape[0]`, `h // 2`) either never change with the batch, and
are constants, or do, and become `BatchInt`s. So no rule has to understand shape arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx

from shrinkc.compiler.capture.writes import Place, Writes, live_writes
from shrinkc.compiler.reference.reference import leaves
from shrinkc.compiler.reference.state import State
from shrinkc.errors import CaptureError


@dataclass(frozen=True)
class BatchInt:
    """A number that follows the batch size: its value at each observed batch size."""

    values: tuple[Any, ...]


@dataclass
class Observation:
    """Per node of one run: the shapes of tensors, the values of everything else, the tensors, or
    tuples of them, that do not depend on the inputs, and what is written in place."""

    values: dict[fx.Node, Any] = field(default_factory=dict[fx.Node, Any])
    constants: dict[fx.Node, Any] = field(default_factory=dict[fx.Node, Any])
    writes: Writes = field(default_factory=Writes)


class _Recorder(fx.Interpreter):
    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.extra_traceback = False
        self.seen = Observation()
        self._constant: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        read = self._tensors_read(n)
        versions = [x._version for _, x in read]
        value = super().run_node(n)
        if n.op == "output":
            return value
        if _leaves_undefined(n):
            value.zero_()  # so that every run gives the same
        written = [p for (p, x), v in zip(read, versions, strict=True) if x._version != v]
        constant = self._is_constant(n)
        self.seen.writes.note(n, value, read, written, constant)
        if n.op == "get_attr":  # an earlier node may have written into it
            constant = not self.seen.writes.follow_input(self.seen.writes.at[n])
        self.seen.values[n] = _shapes(value)
        if constant:
            self._constant.add(n)
            if _is_all_tensors(value):  # as it is now: it may be written into later
                self.seen.constants[n] = value if n.op == "get_attr" else _cloned(value)
        return value

    def _tensors_read(self, n: fx.Node) -> list[tuple[Place, Tensor]]:
        """With where they lie."""
        found: list[tuple[Place, Tensor]] = []
        for source in n.all_input_nodes:
            tensors = [x for x in leaves(self.env[source]) if isinstance(x, Tensor)]
            found += zip(self.seen.writes.at[source], tensors, strict=True)
        return found

    def _is_constant(self, n: fx.Node) -> bool:
        """Its value needs no input's numbers; sizes (`x.shape[0]`) are not numbers."""
        if n.op == "placeholder":
            return False
        writes = self.seen.writes
        return is_size(n) or all(
            source in self._constant and not writes.follow_input(writes.at[source])
            for source in n.all_input_nodes
        )


def _is_all_tensors(value: Any) -> bool:
    """A tensor, or what `meshgrid` and `split` return."""
    if isinstance(value, (tuple, list)):
        items = cast("list[Any]", value)
        return bool(items) and all(isinstance(item, Tensor) for item in items)
    return isinstance(value, Tensor)


def _cloned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return tuple(_cloned(item) for item in value)


def observe(graph_module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> Observation:
    """Run the graph once; activations are freed as soon as they are used up."""
    recorder, state = _Recorder(graph_module), State(graph_module)
    try:
        with torch.inference_mode(False), torch.no_grad():
            recorder.run(*(x.clone() for x in inputs))  # in-place operators change them
    finally:
        state.restore()
    return recorder.seen


def remove_unused(graph_module: fx.GraphModule, seen: tuple[Observation, ...]) -> None:
    """Nodes that nothing reads, neither their result nor what they write.

    Raises UnclearWrites where what is written cannot be followed.
    """
    live = live_writes(graph_module, [one.writes for one in seen])
    graph_module.graph.eliminate_dead_code(
        lambda n: n.op in ("placeholder", "output") or n in live  # fx's own rule misses writes
    )
    graph_module.recompile()


_SIZES = ("size", "dim", "numel")
_UNDEFINED = ("empty", "empty_like", "new_empty")
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
    if node.target is getattr:
        return node.args[1] in ("shape", "dtype", "device", "ndim", "is_cuda", "requires_grad")
    named = _name(node)
    return named in ("sym_size", "sym_numel", "sym_size_int", "_assert", "len", *_FILLED)


def _leaves_undefined(node: fx.Node) -> bool:
    return node.op in ("call_method", "call_function") and _name(node) in _UNDEFINED


def _name(node: fx.Node) -> str:
    if isinstance(node.target, str):
        return node.target
    return getattr(node.target, "__name__", "").partition(".")[0]


def _shapes(value: Any) -> Any:
    """Tensors replaced by a TensorShape, so that sizes stay recognisable."""
    if isinstance(value, Tensor):
        return TensorShape(tuple(value.shape), value.dtype)
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, (tuple, list)):
        return tuple(_shapes(item) for item in cast("list[Any]", value))
    return value


@dataclass(frozen=True)
class TensorShape:
    """Stands for a tensor in an observation."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class TensorShapes:
    """A tensor's shape at every observed batch size, and its type."""

    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype


def combine(values: tuple[Any, ...]) -> Any:
    """One value for the same node at every observed batch size."""
    first = values[0]
    if isinstance(first, TensorShape):
        if len({len(value.shape) for value in values}) > 1:
            raise CaptureError("how many dimensions it returns follows the batch size")
        return TensorShapes(tuple(value.shape for value in values), first.dtype)
    if isinstance(first, tuple):
        items = cast("tuple[tuple[Any, ...], ...]", values)
        if len({len(one) for one in items}) > 1:
            raise CaptureError("how many tensors it returns follows the batch size")
        return tuple(combine(column) for column in zip(*items, strict=True))
    if all(value is first or value == first for value in values[1:]):
        return first
    return BatchInt(values)
