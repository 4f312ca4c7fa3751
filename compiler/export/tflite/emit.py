"""The TFLite operators that many translations use: tensors in, tensor out.

Shapes and axes here are those of the file. Operator versions are the lowest that have the
feature used, as TensorFlow's own converter writes them, so that old runtimes accept the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrinkc.compiler.export.ops import FloatArray, FusedActivation
from shrinkc.compiler.export.tflite.builder import ModelBuilder, Shape

Operator: Any = schema.BuiltinOperator

ACTIVATIONS: dict[FusedActivation, int] = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
_FUSING: dict[int, type[Any]] = {
    Operator.ADD: schema.AddOptionsT,
    Operator.SUB: schema.SubOptionsT,
    Operator.MUL: schema.MulOptionsT,
    Operator.DIV: schema.DivOptionsT,
}
_NAMES: dict[int, str] = {
    getattr(Operator, name): name.lower() for name in dir(Operator) if name.isupper()
}


class Emitter:
    """Writes operators into `builder`; helper tensors are named after the current graph node."""

    def __init__(self, builder: ModelBuilder) -> None:
        self.builder = builder
        self._scope = ""
        self._fresh: set[int] = set()
        self._moved: dict[tuple[int, int, Shape], int] = {}
        self._reshaped_from: dict[int, int] = {}

    def enter(self, node: str) -> None:
        """Name what follows after a graph node."""
        self._scope = node
        self._fresh.clear()

    def is_fresh(self, tensor: int) -> bool:
        """`tensor` was computed since `enter`."""
        return tensor in self._fresh

    def shape(self, tensor: int) -> Shape:
        return self.builder.shape(tensor)

    def emit(
        self,
        code: int,
        inputs: Sequence[int],
        shape: Shape,
        options: Any = None,
        version: int = 1,
        dtype: str = "float32",
    ) -> int:
        """Any operator; `shape` and `dtype` are those of its output."""
        return self.emit_all(code, inputs, ((shape, dtype),), options, version)[0]

    def emit_all(
        self,
        code: int,
        inputs: Sequence[int],
        results: Sequence[tuple[Shape, str]],
        options: Any = None,
        version: int = 1,
    ) -> tuple[int, ...]:
        """An operator with several outputs: shape and type of each."""
        name = f"{self._scope}/{_NAMES[code]}"
        outputs = tuple(self.builder.tensor(name, *result) for result in results)
        self.builder.operator(code, inputs, outputs, options, version)
        self._fresh.update(outputs)
        return outputs

    # --- constants ------------------------------------------------------------------------------

    def constant(self, array: FloatArray, suffix: str) -> int:
        return self.builder.constant(f"{self._scope}/{suffix}", array)

    def weights(self, weight: FloatArray | int, bias: FloatArray) -> tuple[int, int]:
        """Biases are never shared: quantisers give every operator its own bias scale."""
        shared = weight if isinstance(weight, int) else self.constant(weight, "weight")
        return shared, self.builder.constant(f"{self._scope}/bias", bias, shared=False)

    def scalar(self, value: float) -> int:
        return self.constant(np.array(value, np.float32), "number")

    def ints(self, values: Sequence[int] | Sequence[Sequence[int]]) -> int:
        return self.builder.constant(f"{self._scope}/integers", np.array(values, np.int32))

    # --- moving data ----------------------------------------------------------------------------

    def reshape(self, x: int, shape: Shape) -> int:
        """`x` itself where it has the shape; a tensor written before where one is there."""
        x = self._reshaped_from.get(x, x)
        if self.shape(x) == shape:
            return x
        key = (Operator.RESHAPE, x, shape)
        if key not in self._moved:
            self._moved[key] = self.copy(x, shape)
            self._reshaped_from[self._moved[key]] = x
        return self._moved[key]

    def copy(self, x: int, shape: Shape) -> int:
        """A new tensor with the elements of `x`."""
        options = schema.ReshapeOptionsT()
        options.newShape = np.array(shape, np.int32)
        inputs, dtype = (x, self.ints(shape)), self.builder.dtype(x)
        return self.emit(Operator.RESHAPE, inputs, shape, options, dtype=dtype)

    def transpose(self, x: int, perm: Shape) -> int:
        key = (Operator.TRANSPOSE, x, perm)
        if key not in self._moved:
            shape = tuple(self.shape(x)[p] for p in perm)
            version = {5: 4, 6: 6}.get(len(perm), 1)
            inputs = (x, self.ints(perm))
            self._moved[key] = self.emit(
                *(Operator.TRANSPOSE, inputs, shape, None, version), dtype=self.builder.dtype(x)
            )
        return self._moved[key]

    def concat(self, parts: Sequence[int], axis: int) -> int:
        shape = list(self.shape(parts[0]))
        shape[axis] = sum(self.shape(part)[axis] for part in parts)
        options = schema.ConcatenationOptionsT()
        options.axis = axis
        return self.emit(Operator.CONCATENATION, parts, tuple(shape), options)

    def slice(self, x: int, begin: Shape, size: Shape) -> int:
        inputs = (x, self.ints(begin), self.ints(size))
        return self.emit(Operator.SLICE, inputs, size, version=5 if len(size) > 4 else 1)

    def pad(self, x: int, before: Shape, after: Shape, value: float = 0.0) -> int:
        inputs, shape = self._padding(x, before, after)
        if value == 0:
            return self.emit(Operator.PAD, inputs, shape)
        return self.emit(Operator.PADV2, (*inputs, self.scalar(value)), shape)

    def mirror_pad(self, x: int, before: Shape, after: Shape) -> int:
        """Reflection that does not repeat the edge."""
        inputs, shape = self._padding(x, before, after)
        options = schema.MirrorPadOptionsT()
        options.mode = schema.MirrorPadMode.REFLECT
        return self.emit(Operator.MIRROR_PAD, inputs, shape, options)

    def _padding(self, x: int, before: Shape, after: Shape) -> tuple[tuple[int, int], Shape]:
        amounts = list(zip(before, after, strict=True))
        shape = tuple(b + n + a for n, (b, a) in zip(self.shape(x), amounts, strict=True))
        return (x, self.ints(amounts)), shape

    # --- elementwise and reductions -------------------------------------------------------------

    def unary(self, code: int, x: int, options: Any = None) -> int:
        return self.emit(code, (x,), self.shape(x), options)

    def binary(self, code: int, a: int, b: int, activation: FusedActivation = "none") -> int:
        """With NumPy broadcasting. MAXIMUM, MINIMUM and POW get their activation behind them."""
        shape = np.broadcast_shapes(self.shape(a), self.shape(b))
        if code in _FUSING:
            return self.emit(code, (a, b), shape, activated(_FUSING[code], activation))
        result = self.emit(code, (a, b), shape)
        if activation == "none":
            return result
        return self.unary(Operator.RELU if activation == "relu" else Operator.RELU6, result)

    def compare(self, code: int, a: int, b: int) -> int:
        """Truth; with NumPy broadcasting."""
        shape = np.broadcast_shapes(self.shape(a), self.shape(b))
        return self.emit(code, (a, b), shape, dtype="bool")

    def select(self, truth: int, a: int, b: int) -> int:
        """`a` where it holds, else `b`; with NumPy broadcasting."""
        shape = np.broadcast_shapes(*map(self.shape, (truth, a, b)))
        return self.emit(Operator.SELECT_V2, (truth, a, b), shape, schema.SelectV2OptionsT())

    def cast(self, x: int, dtype: str) -> int:
        if self.builder.dtype(x) == dtype:
            return x
        return self.emit(Operator.CAST, (x,), self.shape(x), schema.CastOptionsT(), dtype=dtype)

    def broadcast(self, x: int, shape: Shape) -> int:
        """`x` as often as fills the shape."""
        if self.shape(x) == shape:
            return x
        return self.mul(x, self.constant(np.ones(shape, np.float32), "ones"))

    def add(self, a: int, b: int, activation: FusedActivation = "none") -> int:
        return self.binary(Operator.ADD, a, b, activation)

    def mul(self, a: int, b: int, activation: FusedActivation = "none") -> int:
        return self.binary(Operator.MUL, a, b, activation)

    def reduce(self, code: int, x: int, axes: Shape, keepdims: bool) -> int:
        sizes = enumerate(self.shape(x))
        shape = tuple(1 if d in axes else n for d, n in sizes if keepdims or d not in axes)
        options = schema.ReducerOptionsT()
        options.keepDims = keepdims
        return self.emit(code, (x, self.ints(axes)), shape, options)


def activated(options: type[Any], activation: FusedActivation) -> Any:
    """An options object of the class with its fused activation set."""
    result = options()
    result.fusedActivationFunction = ACTIVATIONS[activation]
    return result
