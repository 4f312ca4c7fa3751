"""What a rule is handed: one node of the file, its inputs and attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from shrinkc.compiler.load.onnx.build import Build, FollowsBatch, Shape, Value, path_of
from shrinkc.compiler.support.text import shown
from shrinkc.errors import CaptureError

Numbers = tuple[tuple[int, ...], ...]  # some integers, at each batch size
Rule = Callable[["Context"], Any]


@dataclass(frozen=True, eq=False)
class Context:
    """One node.

    opset   of the standard operators
    inputs  None where one is left out
    alone   of every input whether nobody else reads it
    """

    build: Build
    node: Any
    opset: int
    inputs: tuple[Value | None, ...]
    attributes: dict[str, Any]
    alone: tuple[bool, ...] = ()

    # --- inputs ------------------------------------------------------------------------------

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def x(self, index: int = 0) -> Value:
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise self.unsupported(f"its input {index} is missing")
        return value

    def maybe(self, index: int) -> Value | None:
        return self.x(index) if self.has(index) else None

    def weight(self, index: int) -> Value:
        """An input that must be known."""
        value = self.x(index)
        if not value.known:
            raise self.unsupported(f"its input {index} is computed from the network's input")
        if not value.same():
            raise FollowsBatch(f"its input {index} follows the batch size")
        return value

    def maybe_weight(self, index: int) -> Value | None:
        return self.weight(index) if self.has(index) else None

    def tensor(self, index: int) -> Tensor:
        return self.weight(index).tensors[0]

    def number(self, index: int) -> float:
        return self.tensor(index).reshape(-1)[0].item()

    def numbers(self, index: int) -> Numbers:
        """Integers, at each batch size."""
        value = self.x(index)
        if not value.known:
            raise self.unsupported(f"its input {index} is computed from the network's input")
        flat = [cast("list[int]", cast(Any, t.reshape(-1)).tolist()) for t in value.tensors]
        return tuple(tuple(int(n) for n in one) for one in flat)

    def fixed(self, index: int) -> tuple[int, ...]:
        """Integers that do not follow the batch size."""
        numbers = self.numbers(index)
        if len(set(numbers)) > 1:
            raise FollowsBatch(f"its input {index} follows the batch size")
        return numbers[0]

    # --- attributes --------------------------------------------------------------------------

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def int(self, name: str, default: int = 0) -> int:
        return int(self.attributes.get(name, default))

    def float(self, name: str, default: float) -> float:
        return float(self.attributes.get(name, default))

    def text(self, name: str, default: str = "") -> str:
        value = self.attributes.get(name, default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def ints(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...] | None:
        value = self.attributes.get(name, default)
        return None if value is None else tuple(int(v) for v in value)

    def axis(self, default: int, rank: int | None = None) -> int:
        """`axis`, counted from 0."""
        return self.normal(self.int("axis", default), self.x().rank if rank is None else rank)

    def normal(self, axis: int, rank: int) -> int:
        if not -rank <= axis < max(rank, 1):
            raise self.unsupported(f"axis {axis} of {rank} dimensions")
        return axis % max(rank, 1)

    # --- what is made ------------------------------------------------------------------------

    def call(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        return self.build.call(function, *args, **named)

    def layer(self, module: nn.Module, weights: dict[str, Value | None], *x: Any) -> Any:
        return self.build.layer(self.path, module, weights, *x)

    def constant(self, value: Any, dtype: torch.dtype | None = None) -> Value:
        return self.build.constant(torch.as_tensor(value, dtype=dtype))

    def reshape(self, x: Value, shapes: Sequence[Shape]) -> Value:
        """To the given shape at each batch size; −1 stands for the dimension that follows it."""
        if x.known:
            made = zip(x.tensors, shapes, strict=True)
            return Value(tuple(t.reshape(s) for t, s in made), None, x.key)
        if tuple(shapes) == x.shapes:
            return x
        columns = list(zip(*shapes, strict=True))
        varying = [dim for dim, column in enumerate(columns) if len(set(column)) > 1]
        target = [
            -1 if varying == [dim] else self.build.size(column)
            for dim, column in enumerate(columns)
        ]
        return self.call(torch.reshape, x, target)

    def permute(self, x: Value, dims: Sequence[int]) -> Value:
        return x if list(dims) == list(range(x.rank)) else self.call(torch.permute, x, tuple(dims))

    # --- what it is called -------------------------------------------------------------------

    @property
    def op(self) -> str:
        return str(self.node.op_type)

    @property
    def label(self) -> str:
        return shown(self.node.name or next(iter(self.node.output), ""))

    @property
    def path(self) -> str:
        """Where its layer is kept: as its weight is called, or the node."""
        for name in self.node.input[1:]:
            head, _, last = name.rpartition(".")
            if head and last in _WEIGHTS and "/" not in head:
                return path_of(head.split("."))
        scopes = [s for s in (self.node.name or self.node.output[0]).split("/") if s]
        if len(scopes) > 1 and scopes[-1].partition("_")[0] == self.op:
            scopes.pop()  # /layer1/layer1.0/conv1/Conv
        following = [*scopes[1:], ""]
        parts = [
            part
            for scope, after in zip(scopes, following, strict=True)
            if not after.startswith(f"{scope}.")  # which says it again
            for part in scope.split(".")
        ]
        return path_of(parts) or self.op.lower()

    def unsupported(self, why: str) -> CaptureError:
        return CaptureError(f"node '{self.label}' ({self.op}): {why}")


_WEIGHTS = ("weight", "bias", "running_mean", "running_var", "gamma", "beta")

DTYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}


def torch_tensor(array: Any) -> Tensor:
    """A stored array. Raises CaptureError for types that no network of ours computes with."""
    try:
        return cast(Any, torch).from_numpy(np.array(array, order="C"))
    except TypeError as error:
        raise CaptureError(f"numbers of type {array.dtype}; export it in float32") from error


def values_of(result: Any) -> list[Value]:
    """What a rule returned."""
    return [result] if isinstance(result, Value) else cast("list[Value]", list(result))
