"""A TFLite model under construction: tensors, constants, operators, then FlatBuffer bytes.

Knows the file format (`ai_edge_litert.schema_py_generated`) and nothing of networks. Tensors are
indexes into the only subgraph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from ..errors import ExportError

Shape = tuple[int, ...]
Array = NDArray[np.float32 | np.int32]

_TYPES: dict[str, int] = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
}
_ALIGNMENT = 16  # bytes; the schema's force_align of buffer data
_SIZE_LIMIT = 2**31 - 2**20  # bytes; FlatBuffer offsets are signed 32-bit
_LAST_BYTE_CODE = 127  # operator codes above it do not fit the field that old readers look at


class _Buffer:
    """Stands in for the schema's `BufferT`, whose `Pack` copies the data twice and does not
    align it."""

    def __init__(self, content: memoryview) -> None:
        self._content = content

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802  (the schema's name)
        size = len(self._content)
        data = 0
        if size:
            builder.StartVector(1, size, _ALIGNMENT)
            builder.head -= size
            builder.Bytes[builder.head : builder.head + size] = self._content
            data = builder.EndVector()
        schema.BufferStart(builder)
        if size:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


class ModelBuilder:
    """Collects one subgraph; `finish` writes it."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._shapes: list[Shape] = []
        self._buffers: list[_Buffer] = [_Buffer(memoryview(b""))]  # 0 means no data
        self._buffer_bytes = 0
        self._operators: list[Any] = []
        self._codes: dict[tuple[int, int], int] = {}
        self._constants: dict[tuple[Shape, str, bytes], int] = {}
        self._names: dict[str, int] = {}

    def shape(self, tensor: int) -> Shape:
        """The shape a tensor has in the file."""
        return self._shapes[tensor]

    def name(self, tensor: int) -> str:
        return self._tensors[tensor].name

    def rename(self, tensor: int, name: str) -> None:
        """Give `tensor` the name; names are unique, so an earlier holder gets a numbered one."""
        holder = self._names.get(name)
        if holder == tensor:
            return
        del self._names[self.name(tensor)]
        if holder is not None:
            del self._names[name]
            self._claim(holder, self._free_name(name + "/stored"))
        self._claim(tensor, name)

    def tensor(self, name: str, shape: Shape) -> int:
        """A computed float32 tensor."""
        return self._new_tensor(name, shape, schema.TensorType.FLOAT32, 0)

    def constant(self, name: str, array: Array, *, shared: bool = True) -> int:
        """A known tensor; `shared`: an equal one that is already in the file may serve."""
        flat = np.ascontiguousarray(array).reshape(-1)
        content = flat.data.cast("B")
        key = (array.shape, array.dtype.str, hashlib.blake2b(content, digest_size=16).digest())
        if shared and key in self._constants:
            return self._constants[key]
        self._buffers.append(_Buffer(content))
        self._buffer_bytes += len(content) + _ALIGNMENT
        index = self._new_tensor(
            name, array.shape, _TYPES[array.dtype.name], len(self._buffers) - 1
        )
        if shared:
            self._constants[key] = index
        return index

    def operator(
        self,
        code: int,
        inputs: Sequence[int],
        output: int,
        options: Any = None,
        version: int = 1,
    ) -> None:
        """Append an operator; `options` is the schema's options object for its kind."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault((code, version), len(self._codes))
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([output], np.int32)
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self._operators.append(operator)

    def finish(self, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> bytes:
        """The file, with `inputs` and `outputs` (name → tensor) as its only signature. Operators
        that no output depends on are left out."""
        subgraph = schema.SubGraphT()
        subgraph.name = "main"
        subgraph.tensors = self._tensors
        subgraph.operators = self._needed_operators(outputs.values())
        subgraph.inputs = np.array(list(inputs.values()), np.int32)
        subgraph.outputs = np.array(list(outputs.values()), np.int32)
        model = schema.ModelT()
        model.version = 3
        model.description = "shrinkc"
        model.subgraphs = [subgraph]
        model.buffers = self._buffers
        model.operatorCodes = [_operator_code(*key) for key in self._codes]
        model.signatureDefs = [_signature(inputs, outputs)]
        return self._serialise(model)

    def _needed_operators(self, outputs: Iterable[int]) -> list[Any]:
        needed, kept = set(outputs), list[Any]()
        for operator in reversed(self._operators):
            if operator.outputs[0] in needed:
                needed.update(operator.inputs.tolist())
                kept.append(operator)
        return kept[::-1]

    def _serialise(self, model: Any) -> bytes:
        if self._buffer_bytes > _SIZE_LIMIT:
            raise ExportError(
                f"TFLite files hold at most 2 GB and the constants take "
                f"{self._buffer_bytes / 1e9:.1f} GB: export to ONNX, or shrink the model"
            )
        overhead = 1024 * (len(self._tensors) + len(self._operators) + 16)
        builder = flatbuffers.Builder(self._buffer_bytes + overhead)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(memoryview(builder.Bytes)[builder.Head() :])

    def _new_tensor(self, name: str, shape: Shape, kind: int, buffer: int) -> int:
        tensor = schema.TensorT()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = kind
        tensor.buffer = buffer
        self._tensors.append(tensor)
        self._shapes.append(tuple(shape))
        self._claim(len(self._tensors) - 1, self._free_name(name))
        return len(self._tensors) - 1

    def _claim(self, tensor: int, name: str) -> None:
        self._tensors[tensor].name = name
        self._names[name] = tensor

    def _free_name(self, name: str) -> str:
        candidate, number = name, 1
        while candidate in self._names:
            number += 1
            candidate = f"{name}_{number}"
        return candidate


def _operator_code(code: int, version: int) -> Any:
    result = schema.OperatorCodeT()
    result.builtinCode = code
    result.deprecatedBuiltinCode = min(code, _LAST_BYTE_CODE)
    result.version = version
    return result


def _signature(inputs: Mapping[str, int], outputs: Mapping[str, int]) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey = "serving_default"
    signature.inputs = [_tensor_map(*item) for item in inputs.items()]
    signature.outputs = [_tensor_map(*item) for item in outputs.items()]
    return signature


def _tensor_map(name: str, tensor: int) -> Any:
    entry = schema.TensorMapT()
    entry.name = name
    entry.tensorIndex = tensor
    return entry
