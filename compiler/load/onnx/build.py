"""The graph under construction: nodes where inputs are read, numbers where none is needed.

Everything is followed at each of a few batch sizes. What no input's numbers decide (weights, shapes
and all that is computed of them) is computed at once; the rest becomes nodes, whose shapes meta
tensors tell. So shapes that a file computes are numbers here, and a number that differs from one
batch size to the next is one that follows the batch.
"""

from __future__ import annotations

import keyword
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as tree  # pyright: ignore[reportPrivateImportUsage]

from shrinkc.compiler.capture.names import word
from shrinkc.errors import CaptureError
from shrinkc.passes.ir import is_input_name

Shape = tuple[int, ...]
MOST_NUMBERS = 1 << 28  # of one tensor: 1 GiB
_T: Any = tree


class FollowsBatch(CaptureError):  # noqa: N818
    """Something that must be known is another at every batch size."""


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the file: a node with its meta tensors, or known, at each batch size.

    key  of a known one that the file stores: weights of one key are one parameter
    """

    tensors: tuple[Tensor, ...]
    node: fx.Node | None = None
    key: tuple[Any, ...] | None = None

    @property
    def known(self) -> bool:
        return self.node is None

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(tuple(t.shape) for t in self.tensors)

    @property
    def shape(self) -> Shape:
        return self.shapes[0]

    @property
    def rank(self) -> int:
        return self.tensors[0].ndim

    @property
    def dtype(self) -> torch.dtype:
        return self.tensors[0].dtype

    def same(self) -> bool:
        """Known, and the same at every batch size."""
        first = self.tensors[0]
        return self.known and all(
            t is first or (t.shape == first.shape and torch.equal(t, first)) for t in self.tensors
        )


class Build:
    """An `fx.Graph` and the modules it calls, for inputs of these names at each batch size."""

    def __init__(self, names: Sequence[str], shapes: Sequence[Sequence[Shape]]) -> None:
        """`shapes`: of every input at each batch size."""
        self.graph, self.root = fx.Graph(), nn.Module()
        words = [word(name) for name in names]  # of several names one may be left
        usable = all(map(is_input_name, words)) and len(set(words)) == len(words)
        self.count = len(shapes[0])
        self.batches = tuple(one[0] for one in shapes[0])
        self.inputs = tuple(
            Value(
                tuple(torch.empty(s, device="meta") for s in of_one),
                self.graph.placeholder(name if usable else f"input_{index}"),
            )
            for index, (name, of_one) in enumerate(zip(words, shapes, strict=True))
        )
        self._batch = self.graph.call_method("size", (self.inputs[0].node, 0))
        self._modules: dict[tuple[Any, ...], str] = {}
        # with the tensors that their keys hold ids of
        self._weights: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}
        self._buffers: dict[int, tuple[Tensor, fx.Node]] = {}
        self._paths: set[str] = set()

    # --- values ------------------------------------------------------------------------------

    def constant(self, tensor: Tensor, key: tuple[Any, ...] | None = None) -> Value:
        return Value((tensor,) * self.count, None, key)

    def call(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """What `function` computes: a Value, or a list of them where it returns several tensors.

        Arguments may hold Values anywhere.
        """
        given = [x for x in _T.tree_leaves((args, named)) if isinstance(x, Value)]
        if all(x.known for x in given):
            return self._folded(function, args, named, given)
        nodes: Any = _T.tree_map(self._argument, (args, named))
        node = self.graph.call_function(function, *nodes)
        return self._value(node, [self._meta(function, args, named, i) for i in self._each])

    def layer(self, path: str, module: nn.Module, weights: dict[str, Value | None], *x: Any) -> Any:
        """A call of `module` with these weights. The same on the same weights is one module, and
        the same weight in another layer the same parameter."""
        module.eval()
        for name, value in weights.items():
            if value is not None:
                self._set(module, name, value)
        key = (repr(module), *(id(one) for one in (*module.parameters(), *module.buffers())))
        if key not in self._modules:
            self._modules[key] = self._add(path, module)
        node = self.graph.call_module(self._modules[key], _T.tree_map(self._argument, x))
        metas = [self._meta_module(module, x, i) for i in self._each]
        return self._value(node, metas)

    def give_bias(self, made: Value, vector: Value) -> bool:
        """Make a vector the bias of the linear layer that made `made`, if it has none yet."""
        node = made.node
        if node is None or node.op != "call_module" or vector.rank != 1:
            return False
        module = self.root.get_submodule(cast(str, node.target))
        calls = [n for n in self.graph.nodes if n.target == node.target]
        bias: Tensor | None = getattr(module, "bias", None)
        if not isinstance(module, nn.Linear) or bias is not None or len(calls) > 1:
            return False
        if vector.shape != (module.out_features,):
            return False
        self._set(module, "bias", vector)
        self._modules = {k: path for k, path in self._modules.items() if path != node.target}
        return True

    def size(self, numbers: Sequence[int]) -> Any:
        """One size, given at each batch size, as an argument: a number, or a node that follows the
        batch. Raises FollowsBatch."""
        if len(set(numbers)) == 1:
            return int(numbers[0])
        ratios = {n / batch for n, batch in zip(numbers, self.batches, strict=True)}
        if len(ratios) == 1 and (factor := ratios.pop()) == int(factor):
            if factor == 1:
                return self._batch
            return self.graph.call_function(operator.mul, (self._batch, int(factor)))
        raise FollowsBatch("a size follows the batch in a way that is no multiple of it")

    def finished(self, outputs: Sequence[Value]) -> fx.GraphModule:
        """The module that returns these."""
        nodes = [self._argument(one) for one in outputs]
        self.graph.output(nodes[0] if len(nodes) == 1 else tuple(nodes))
        graph_module = fx.GraphModule(self.root, self.graph).eval()
        graph_module.graph.eliminate_dead_code()
        graph_module.recompile()
        graph_module.meta["dynamic_batch"] = self.count > 1
        return graph_module

    # --- inside ------------------------------------------------------------------------------

    @property
    def _each(self) -> range:
        return range(self.count)

    def _folded(
        self, function: Callable[..., Any], args: Any, named: Any, given: Sequence[Value]
    ) -> Any:
        once = all(t is x.tensors[0] for x in given for t in x.tensors)
        results: list[Any] = []
        for index in range(1) if once else self._each:
            now: Any = _T.tree_map(partial(_at, index), (args, named))
            _limit(function, *now)
            results.append(function(*now[0], **now[1]))
        results *= self.count if once else 1
        if isinstance(results[0], Tensor):
            return Value(tuple(results))
        return [Value(tuple(column)) for column in zip(*results, strict=True)]

    def _value(self, node: fx.Node, metas: Sequence[Any]) -> Any:
        if isinstance(metas[0], Tensor):
            if metas[0].numel() > MOST_NUMBERS:
                raise CaptureError(f"computes more than {MOST_NUMBERS:,} numbers at once")
            return Value(tuple(metas), node)
        parts: list[Any] = []
        for index, column in enumerate(zip(*metas, strict=True)):
            part = self.graph.call_function(operator.getitem, (node, index))
            parts.append(self._value(part, column))
        return parts

    def _meta(self, function: Callable[..., Any], args: Any, named: Any, index: int) -> Any:
        now: Any = _T.tree_map(partial(self._meta_at, index), (args, named))
        return function(*now[0], **now[1])

    def _meta_at(self, index: int, value: Any) -> Any:
        if isinstance(value, Value):
            return value.tensors[index].to("meta")
        if value is self._batch:
            return self.batches[index]
        if isinstance(value, fx.Node) and value.target is operator.mul:
            return self.batches[index] * cast(int, value.args[1])
        return value

    def _meta_module(self, module: nn.Module, x: Any, index: int) -> Any:
        state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        metas = {name: one.to("meta") for name, one in state.items()}
        call: Any = torch.func.functional_call
        return call(module, metas, tuple(self._meta_at(index, one) for one in x))

    def _argument(self, value: Any) -> Any:
        """As a node reads it."""
        if not isinstance(value, Value):
            return value
        return value.node if value.node is not None else self._stored(value)

    def _stored(self, value: Value) -> fx.Node:
        """A buffer; one that is made at the batch's size is stored at 1 and expanded."""
        tensor = value.tensors[0]
        sizes = list(zip(*value.shapes, strict=True))
        varying = [dim for dim, column in enumerate(sizes) if len(set(column)) > 1]
        for dim in varying:
            tensor = tensor.narrow(dim, 0, 1)
        for one in value.tensors:
            if not torch.equal(tensor.expand_as(one).nan_to_num(), one.nan_to_num()):
                raise FollowsBatch("numbers that are computed of shapes follow the batch size")
        node = self._buffer(tensor)
        if not varying:
            return node
        return self.graph.call_method("expand", (node, [self.size(column) for column in sizes]))

    def _buffer(self, tensor: Tensor) -> fx.Node:
        if id(tensor) not in self._buffers:
            name = f"constant_{len(self._buffers)}"
            self.root.register_buffer(name, tensor.detach().clone())
            self._buffers[id(tensor)] = tensor, self.graph.get_attr(name)
        return self._buffers[id(tensor)][1]

    def _set(self, module: nn.Module, name: str, value: Value) -> None:
        tensor = value.tensors[0]
        is_buffer = name in module._buffers  # pyright: ignore[reportPrivateUsage]
        key = (value.key or id(tensor), tuple(tensor.shape), is_buffer)
        if key not in self._weights:
            own = tensor.detach().clone().contiguous()
            self._weights[key] = tensor, own if is_buffer else nn.Parameter(own)
        _, weight = self._weights[key]
        if isinstance(weight, nn.Parameter):
            module.register_parameter(name, weight)
        else:
            module.register_buffer(name, weight)

    def _add(self, path: str, module: nn.Module) -> str:
        """Put `module` there, or near there, and say where."""
        parts = [_free(part) for part in path.split(".") if part] or ["layer"]
        wanted, count = ".".join(parts), 0
        found = wanted
        while self._blocked(found):
            count += 1
            found = f"{wanted}_{count}"
        owner = self.root
        *above, name = found.split(".")
        for part in above:
            if part not in owner._modules:  # pyright: ignore[reportPrivateUsage]
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.add_module(name, module)
        self._paths.add(found)
        return found

    def _blocked(self, path: str) -> bool:
        """Something is there, or a layer lies above or below it."""
        parts = path.split(".")
        above = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
        return bool(above & self._paths) or any(p.startswith(f"{path}.") for p in self._paths)


def path_of(names: Iterable[str]) -> str:
    """A module path of the parts of a name."""
    return ".".join(
        filter(None, (re.sub(r"[^0-9A-Za-z_]+", "_", n)[:60].strip("_") for n in names))
    )


_TAKEN = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph())))


def _free(part: str) -> str:
    taken = part in _TAKEN or keyword.iskeyword(part) or part.startswith("constant_")
    return f"{part}_" if taken else part


def _at(index: int, value: Any) -> Any:
    return value.tensors[index] if isinstance(value, Value) else value


def _on_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


def _limit(function: Callable[..., Any], args: Any, named: Any) -> None:
    """Raise CaptureError where the result would be larger than any network's, before it is made."""
    try:
        metas: Any = _T.tree_map(_on_meta, (args, named))
        made = _T.tree_leaves(function(*metas[0], **metas[1]))
    except Exception:  # what needs numbers to say its size is no larger than what it reads
        return
    if any(isinstance(x, Tensor) and x.numel() > MOST_NUMBERS for x in made):
        raise CaptureError(f"computes a constant of more than {MOST_NUMBERS:,} numbers")
