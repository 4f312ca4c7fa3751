"""Builds the canonical graph node by node, and knows every node's shape as it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from shrinkc.compiler.capture.observe import BatchInt
from shrinkc.errors import CaptureError
from shrinkc.passes import ir
from shrinkc.passes.analysis.shapes import meta_call, meta_twin

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that does not depend on the inputs. `path` is where the model keeps it."""

    tensor: Tensor
    path: str | None = None


MOST_WHOLE = 2**24  # up to which float32 holds every integer


def _whole(tensor: Tensor) -> Tensor:
    """Integers or truth as floats."""
    if tensor.is_complex():
        raise CaptureError("the model computes with complex numbers")
    if tensor.numel() and int(tensor.long().abs().max()) > MOST_WHOLE:
        raise CaptureError(f"the model computes with integers beyond {MOST_WHOLE:,}")
    return tensor.to(torch.get_default_dtype())


@dataclass(frozen=True, eq=False)
class Expanded:
    """A node broadcast to larger shapes; arithmetic never needs the copy."""

    node: fx.Node
    shapes: tuple[Shape, ...]


class Builder:
    """The canonical graph under construction.

    `batches` are the batch sizes observed; a node's `meta["like"]` holds one meta tensor for each.
    """

    def __init__(self, batches: tuple[int, ...], reserved: frozenset[str]) -> None:
        self.batches = batches
        self._reserved = reserved  # the model's own top-level names
        self._inner: set[str] = set()  # paths that other attributes live below
        self._used: dict[str, int] = {}
        self.graph = fx.Graph()
        self.attributes: dict[str, nn.Module | Tensor] = {}
        self._lifted: dict[tuple[Any, ...], tuple[str, Callable[[], nn.Module]]] = {}

    # --- nodes -------------------------------------------------------------------------------

    def placeholder(self, name: str, shapes: tuple[Shape, ...]) -> fx.Node:
        node = self.graph.placeholder(name)
        node.meta["like"] = tuple(torch.empty(s, device="meta") for s in shapes)
        return node

    def call(self, function: Callable[..., Any], *args: Any) -> fx.Node:
        """A canonical function call; its shape comes from running it on meta tensors."""
        node = self.graph.call_function(function, args)
        return self._annotate(node, lambda index: meta_call(function, self._like(args, index)))

    def module(self, path: str, module: nn.Module, *inputs: fx.Node) -> fx.Node:
        """A call of `module`, kept at `path`; the same module at the same path is shared."""
        if self.attributes.get(path) is not module:
            path = self._home(path)
            self._keep(path, module)
        node = self.graph.call_module(path, inputs)
        twin = meta_twin(module)
        return self._annotate(node, lambda index: twin(*self._like(inputs, index)))

    def new_module(self, hint: str, module: nn.Module, x: fx.Node) -> fx.Node:
        """A call of a module that the model did not have as one."""
        module.eval()
        return self.module(self._free(hint), module, x)

    def lifted(
        self, key: tuple[Any, ...], hint: str, make: Callable[[], nn.Module], *inputs: fx.Node
    ) -> fx.Node:
        """A module made from functional weights; one per key, so that sharing stays visible.

        Keys hold ids of tensors. `make` is kept with its key, and with it the tensors it closes
        over, so that no id is given to another tensor.
        """
        if key not in self._lifted:
            self._lifted[key] = self._home(hint), make
            self._keep(self._lifted[key][0], make().eval())
        path, _ = self._lifted[key]
        module = cast(nn.Module, self.attributes[path])
        return self.module(path, module, *inputs)

    def constant(self, constant: Constant, hint: str) -> fx.Node:
        """A `get_attr` of the constant, in floats; parameters keep their path.

        Raises CaptureError for integers that floats cannot hold.
        """
        if not constant.tensor.is_floating_point():
            constant = Constant(_whole(constant.tensor))
        path = constant.path
        if path is None or self.attributes.get(path, constant.tensor) is not constant.tensor:
            path = self._free(f"{hint}_constant")
        self._keep(path, constant.tensor)
        node = self.graph.get_attr(path)
        return self._annotate(node, lambda _: constant.tensor.to("meta"))

    # --- shapes ------------------------------------------------------------------------------

    def shapes(self, node: fx.Node) -> tuple[Shape, ...]:
        """Shape at each observed batch size."""
        return tuple(tuple(t.shape) for t in cast("tuple[Tensor, ...]", node.meta["like"]))

    def shape(self, node: fx.Node) -> Shape:
        return self.shapes(node)[0]

    def rank(self, node: fx.Node) -> int:
        return len(self.shape(node))

    def reshape(self, x: fx.Node, shapes: Sequence[Shape]) -> fx.Node:
        """To the given shape at each batch size; −1 stands for the dimension that follows it."""
        if tuple(shapes) == self.shapes(x):
            return x
        target = tuple(
            column[0] if len(set(column)) == 1 else -1 for column in zip(*shapes, strict=True)
        )
        if target.count(-1) > 1:
            raise CaptureError(
                f"a reshape to {shapes[0]} makes several dimensions depend on the batch size"
            )
        return self.call(torch.reshape, x, target)

    def permute(self, x: fx.Node, dims: Sequence[int]) -> fx.Node:
        if list(dims) == list(range(len(dims))):
            return x
        return self.call(torch.permute, x, tuple(dims))

    def slice(self, x: fx.Node, dim: int, start: int, stop: int, step: int = 1) -> fx.Node:
        if start == 0 and step == 1 and stop == self.shape(x)[dim]:
            return x
        return self.call(ir.slice_dim, x, dim, start, stop, step)

    def fixed(self, value: int | BatchInt, what: str) -> int:
        """An integer that must not depend on the batch size."""
        if isinstance(value, BatchInt):
            raise CaptureError(f"{what} depends on the batch size")
        return int(value)

    # --- inside ------------------------------------------------------------------------------

    def _like(self, args: Any, index: int) -> Any:
        return map_arg(args, lambda n: n.meta["like"][index])

    def _annotate(self, node: fx.Node, run: Callable[[int], Any]) -> fx.Node:
        with torch.no_grad():
            node.meta["like"] = tuple(run(index) for index in range(len(self.batches)))
        return node

    def _home(self, path: str) -> str:
        """`path` itself, unless another attribute is there, above or below."""
        above = {path[:i] for i, letter in enumerate(path) if letter == "."}
        taken = path in self.attributes or path in self._inner or above & self.attributes.keys()
        return self._free(path) if taken else path

    def _keep(self, path: str, value: nn.Module | Tensor) -> None:
        self.attributes[path] = value
        self._inner |= {path[:i] for i, letter in enumerate(path) if letter == "."}

    def _free(self, hint: str) -> str:
        """A top-level attribute name that nothing uses yet."""
        hint = hint.replace(".", "_") or "op"
        count = self._used.get(hint, 0)
        name = hint
        while name in self.attributes or name in self._reserved:
            count += 1
            name = f"{hint}_{count}"
        self._used[hint] = count
        return name
