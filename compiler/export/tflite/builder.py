"""A TFLite model under construction: tensors, constants, operators, then FlatBuffer bytes.

Knows the file format (`ai_edge_litert.schema_py_generated`) and nothing of networks. Tensors are
indexes into the only subgraph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from shrinkc.errors import ExportError

Shape = tuple[int, ...]
Named = tuple[str, int]  # name in the signature, tensor
Array = NDArray[np.float32 | np.int32]

_TYPES: dict[str, int] = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "bool": schema.TensorType.BOOL,
}
_ALIGNMENT = 16  # bytes; the schema's force_align of buffer data
_SIZE_LIMIT = 2**31 - 2**20  # bytes; FlatBuffer offsets are signed 32-bit
NONE = -1  # in place of a tensor
_LAST_BYTE_CODE = 127  # operator codes above it do not fit the field that old readers look at


class Buffer:
    """Stands in for the schema's `BufferT`, whose `Pack` copies the data twice and does not
    align it."""

    def __init__(self, content: memoryview) -> None:
        self.content = content

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802  (the schema's name)
        size = len(self.content)
        data = 0
        if size:
            builder.StartVector(1, size, _ALIGNMENT)
            builder.head -= size
            builder.Bytes[builder.head : builder.head + size] = self.content
            data = builder.EndVector()
        schema.BufferStart(builder)
        if size:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


@dataclass
class _Tensor:
    name: str
    shape: Shape
    dtype: str
    content: memoryview | None  # None: computed
    variable: bool = False


@dataclass(frozen=True)
class _Operator:
    code: int
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


class ModelBuilder:
    """Collects one subgraph; `finish` writes it."""

    def __init__(self) -> None:
        self._tensors: list[_Tensor] = []
        self._operators: list[_Operator] = []
        self._constants: dict[tuple[Shape, str, bytes], int] = {}
        self._names: dict[str, int] = {}

    def shape(self, tensor: int) -> Shape:
        """The shape a tensor has in the file."""
        return self._tensors[tensor].shape

    def dtype(self, tensor: int) -> str:
        """Of its elements, as NumPy calls it."""
        return self._tensors[tensor].dtype

    def rename(self, tensor: int, name: str) -> None:
        """Give `tensor` the name; names are unique, so an earlier holder gets another one."""
        holder = self._names.get(name)
        if holder == tensor:
            return
        del self._names[self._tensors[tensor].name]
        if holder is not None:
            del self._names[name]
            self._claim(holder, self._free_name(name + "/stored"))
        self._claim(tensor, name)

    def is_read(self, tensor: int) -> bool:
        """Whether an operator reads it."""
        return any(tensor in operator.inputs for operator in self._operators)

    def named(self, name: str) -> int | None:
        """The tensor that has the name."""
        return self._names.get(name)

    def tensor(self, name: str, shape: Shape, dtype: str = "float32") -> int:
        """A computed tensor."""
        return self._add(_Tensor(name, shape, dtype, None))

    def variable(self, name: str, shape: Shape) -> int:
        """A tensor that its operator keeps from one run of the file to the next, zeros at first."""
        return self._add(_Tensor(name, shape, "float32", None, variable=True))

    def constant(self, name: str, array: Array, *, shared: bool = True) -> int:
        """A known tensor; `shared`: an equal one that is already in the file may serve."""
        content = np.ascontiguousarray(array).reshape(-1).data.cast("B")
        key = (array.shape, array.dtype.name, hashlib.blake2b(content, digest_size=16).digest())
        if shared and key in self._constants:
            return self._constants[key]
        index = self._add(_Tensor(name, array.shape, array.dtype.name, content))
        if shared:
            self._constants[key] = index
        return index

    def operator(
        self,
        code: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Any = None,
        version: int = 1,
    ) -> None:
        """Append an operator; `options` is the schema's options object for its kind. An input that
        is left out is NONE."""
        self._operators.append(_Operator(code, version, tuple(inputs), tuple(outputs), options))

    def finish(self, inputs: Sequence[Named], outputs: Sequence[Named]) -> bytes:
        """The file, with `inputs` and `outputs` as its only signature. What no output depends on
        is left out; a name that comes twice gets a number."""
        operators = self._needed({tensor for _, tensor in outputs})
        used = {tensor for _, tensor in (*inputs, *outputs)}
        used.update(tensor for op in operators for tensor in (*op.inputs, *op.outputs))
        places = {tensor: place for place, tensor in enumerate(sorted(used - {NONE}))}
        return _serialise(
            [self._tensors[tensor] for tensor in places],
            [_placed(op, places) for op in operators],
            *(_signature_of(named, places) for named in (inputs, outputs)),
        )

    def _needed(self, tensors: set[int]) -> list[_Operator]:
        kept: list[_Operator] = []
        for operator in reversed(self._operators):
            if not tensors.isdisjoint(operator.outputs):
                tensors.update(operator.inputs)
                kept.append(operator)
        return kept[::-1]

    def _add(self, tensor: _Tensor) -> int:
        self._tensors.append(tensor)
        self._claim(len(self._tensors) - 1, self._free_name(tensor.name))
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


def _signature_of(named: Sequence[Named], places: Mapping[int, int]) -> dict[str, int]:
    result: dict[str, int] = {}
    for name, tensor in named:
        unique, number = name, 1
        while unique in result:
            number += 1
            unique = f"{name}_{number}"
        result[unique] = places[tensor]
    return result


def _placed(operator: _Operator, places: Mapping[int, int]) -> _Operator:
    inputs, outputs = (
        tuple(places.get(tensor, NONE) for tensor in tensors)
        for tensors in (operator.inputs, operator.outputs)
    )
    return _Operator(operator.code, operator.version, inputs, outputs, operator.options)


def _serialise(
    tensors: Sequence[_Tensor],
    operators: Sequence[_Operator],
    inputs: Mapping[str, int],
    outputs: Mapping[str, int],
) -> bytes:
    contents = [memoryview(b""), *(t.content for t in tensors if t.content is not None)]
    data_bytes = sum(len(content) + _ALIGNMENT for content in contents)
    if data_bytes > _SIZE_LIMIT:
        raise ExportError(
            f"TFLite files hold at most 2 GB and the constants take {data_bytes / 1e9:.1f} GB: "
            "export to ONNX, or shrink the model"
        )
    codes: dict[tuple[int, int], int] = {}
    for operator in operators:
        codes.setdefault((operator.code, operator.version), len(codes))
    model = schema.ModelT()
    model.version = 3
    model.description = "shrinkc"
    model.subgraphs = [_subgraph(tensors, operators, codes)]
    model.subgraphs[0].inputs = np.array(list(inputs.values()), np.int32)
    model.subgraphs[0].outputs = np.array(list(outputs.values()), np.int32)
    model.buffers = [Buffer(content) for content in contents]
    model.operatorCodes = [_operator_code(*key) for key in codes]
    model.signatureDefs = [_signature(inputs, outputs)]
    return packed(model)


def packed(model: Any) -> bytes:
    """The file of the schema's `ModelT`, its buffers this module's."""
    data_bytes = sum(len(buffer.content) + _ALIGNMENT for buffer in model.buffers)
    parts = sum(len(graph.tensors) + len(graph.operators) + 16 for graph in model.subgraphs)
    builder = flatbuffers.Builder(data_bytes + 1024 * parts)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


def _subgraph(
    tensors: Sequence[_Tensor],
    operators: Sequence[_Operator],
    codes: Mapping[tuple[int, int], int],
) -> Any:
    """Constants take the buffers from 1 on, in order; 0 is empty."""
    result = schema.SubGraphT()
    result.name = "main"
    result.operators = [_operator(op, codes[op.code, op.version]) for op in operators]
    constants = accumulate(tensor.content is not None for tensor in tensors)
    result.tensors = [
        _tensor(tensor, 0 if tensor.content is None else buffer)
        for tensor, buffer in zip(tensors, constants, strict=True)
    ]
    return result


def _tensor(tensor: _Tensor, buffer: int) -> Any:
    result = schema.TensorT()
    result.name, result.type, result.buffer = tensor.name, _TYPES[tensor.dtype], buffer
    result.shape = np.array(tensor.shape, np.int32)
    result.isVariable = tensor.variable
    return result


def _operator(operator: _Operator, code: int) -> Any:
    result = schema.OperatorT()
    result.opcodeIndex = code
    result.inputs = np.array(operator.inputs, np.int32)
    result.outputs = np.array(operator.outputs, np.int32)
    if operator.options is not None:
        kind = type(operator.options).__name__.removesuffix("T")
        result.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        result.builtinOptions = operator.options
    return result


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
