"""What every translation to ONNX is handed: nodes, initializers, shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from shrinkc.compiler.export import ops

TYPES: dict[ops.DType, int] = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
}


class Writer:
    """State of one translation: nodes and initializers so far."""

    def __init__(self, opset: int, dynamic: bool) -> None:
        self.opset, self.dynamic = opset, dynamic
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.bytes = 0
        self.truths: dict[str, str] = {}  # 0 and 1 → the same as bool
        self.whole: dict[str, str] = {}  # whole numbers as floats → the same as integers
        self._written: dict[tuple[int, str], str] = {}
        self._names: set[str] = set()
        self._alive: list[NDArray[Any]] = []  # ids stay unique while the arrays live

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        name = f"{output}/{kind}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name, **attributes))
        return output

    def several(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> None:
        """A node of more than one output."""
        name = f"{outputs[0]}/{kind}"
        self.nodes.append(helper.make_node(kind, list(inputs), list(outputs), name, **attributes))

    def array(self, name: str, array: NDArray[Any], view: str = "") -> str:
        """An initializer; the same array is written once. `view` tells reshaped uses apart."""
        known = self._written.get((id(array), view))
        if known is not None:
            return known
        unique, n = name, 0
        while unique in self._names:
            n += 1
            unique = f"{name}_{n}"
        self._names.add(unique)
        self._written[id(array), view] = unique
        self._alive.append(array)
        shaped = array.T.copy() if view == "T" else array
        self.initializers.append(numpy_helper.from_array(shaped, unique))
        self.bytes += array.nbytes
        return unique

    def numbers(self, name: str, values: Sequence[int] | Sequence[float], kind: Any) -> str:
        return self.array(name, np.asarray(values, kind))

    def operand(self, operand: ops.Operand) -> str:
        if isinstance(operand, ops.Const):
            return self.array(operand.name, operand.array)
        return operand.name

    def shape(self, value: ops.Value) -> list[int]:
        """With −1 for the dimension that follows the batch."""
        dims = list(value.shape)
        if self.dynamic and value.batch_axis is not None:
            dims[value.batch_axis] = -1
        return dims

    def info(self, value: ops.Value) -> onnx.ValueInfoProto:
        dims: list[int | str] = [*value.shape]
        axis = value.batch_axis
        if self.dynamic and axis is not None:
            dims[axis] = "batch"
        return helper.make_tensor_value_info(value.name, TYPES[value.dtype], dims)

    def cast(self, x: str, out: str, dtype: ops.DType) -> str:
        return self.node("Cast", [x], out, to=TYPES[dtype])

    def scalar(self, out: str, name: str, value: float) -> str:
        return self.array(f"{out}/{name}", np.asarray(value, np.float32))
