"""The inputs and outputs of a TFLite file, as whoever runs it meets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shrinkc.compiler.export.tflite.builder import Buffer, packed
from shrinkc.compiler.formats.boundary import Boundary, Port
from shrinkc.compiler.formats.tflite_operators import names_of
from shrinkc.compiler.quantise.rounding import Grid
from shrinkc.compiler.support.choices import Io

INNER = "/inner"  # behind the name of what an output was converted from
SHIFT = 128  # from a level of int8 to the same of uint8
_CONVERTS, _REQUANTISES = 1, 2  # versions of QUANTIZE: from floats, and between integers
_FROM_INT8 = 2  # of DEQUANTIZE


class TfliteFile:
    """A file of one subgraph and one signature, whose inputs and outputs can be changed."""

    def __init__(self, data: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.model = self.schema.ModelT.InitFromPackedBuf(data, 0)
        self.model.buffers = [Buffer(content_of(buffer, data)) for buffer in self.model.buffers]
        (self.graph,) = self.model.subgraphs
        (self.signature,) = self.model.signatureDefs

    def bytes(self) -> bytes:
        """The file."""
        return packed(self.model)

    def add_metadata(self, name: str, content: Buffer) -> None:
        """A named buffer, in place of an older one of that name."""
        entries = [one for one in self.model.metadata or () if _text(one.name) != name]
        entry = self.schema.MetadataT()
        entry.name, entry.buffer = name, len(self.model.buffers)
        self.model.metadata = [*entries, entry]
        self.model.buffers.append(content)

    def name_as_signature(self) -> None:
        """Give inputs and outputs the names that the signature has for them. Quantisers leave the
        names to the integers that floats are made from, and call the floats otherwise."""
        entries = [*self.signature.inputs, *self.signature.outputs]
        wanted = {int(one.tensorIndex): _text(one.name) for one in entries}
        names = set(wanted.values())
        for index, tensor in enumerate(self.graph.tensors):
            name = _text(tensor.name)
            if index in wanted:
                tensor.name = wanted[index]
            elif name in names:
                tensor.name = name + INNER

    def quantise_boundary(self, io: Io, grids: Mapping[str, Grid]) -> None:
        """Make all inputs and outputs that are floats integers of `io`. `grids`, by their names in
        the signature, are for those that nothing in the file quantises."""
        for entry in self.signature.inputs:
            if self._is_float(int(entry.tensorIndex)):
                self._quantise_input(entry, io, grids[_text(entry.name)])
        for entry in self.signature.outputs:
            if self._is_float(int(entry.tensorIndex)):
                self._quantise_output(entry, io, grids[_text(entry.name)])
        self._drop_unused()
        self.name_as_signature()

    def _quantise_input(self, entry: Any, io: Io, grid: Grid) -> None:
        floats = int(entry.tensorIndex)
        readers = [op for op in self.graph.operators if floats in _indices(op.inputs)]
        quantises = [op for op in readers if self._is(op, "QUANTIZE")]
        first = int(quantises[0].outputs[0]) if quantises else None
        integers = self._tensor("int8", floats, grid) if first is None else first
        for op in quantises:
            made = int(op.outputs[0])
            if self._alike(made, integers):
                self.graph.operators.remove(op)
                readers.remove(op)
                self._read_instead(made, integers)
        if readers or floats in _indices(self.graph.outputs):
            self._insert(0, "DEQUANTIZE", integers, floats)
        if io == "uint8":
            shifted = self._tensor("uint8", integers, self._grid(integers))
            self._insert(0, "QUANTIZE", shifted, integers)
            integers = shifted
        self.graph.inputs = _replaced(self.graph.inputs, floats, integers)
        entry.tensorIndex = integers

    def _quantise_output(self, entry: Any, io: Io, grid: Grid) -> None:
        floats = int(entry.tensorIndex)
        maker = next((op for op in self.graph.operators if floats in _indices(op.outputs)), None)
        source = floats
        if maker is not None and self._is(maker, "DEQUANTIZE"):
            source = int(maker.inputs[0])
            grid = self._grid(source)
        taken = {*_indices(self.graph.inputs), *_indices(self.graph.outputs)}
        made = source
        if source == floats or source in taken or io != "int8":
            made = self._tensor(io, floats, grid)
            self._insert(len(self.graph.operators), "QUANTIZE", source, made)
        read = any(floats in _indices(op.inputs) for op in self.graph.operators)
        if source != floats and not read:
            self.graph.operators.remove(maker)
        self.graph.outputs = _replaced(self.graph.outputs, floats, made)
        entry.tensorIndex = made

    def _is_float(self, index: int) -> bool:
        return self.graph.tensors[index].type == self.schema.TensorType.FLOAT32

    def _is(self, op: Any, kind: str) -> bool:
        code = code_of(self.model.operatorCodes[op.opcodeIndex])
        return code == getattr(self.schema.BuiltinOperator, kind)

    def _grid(self, index: int) -> Grid:
        held = self.graph.tensors[index].quantization
        return Grid(float(held.scale[0]), int(held.zeroPoint[0]))

    def _alike(self, one: int, other: int) -> bool:
        return one == other or self._grid(one) == self._grid(other)

    def _tensor(self, dtype: str, like: int, grid: Grid) -> int:
        """A new one of the same shape; `grid` is that of int8."""
        shape = self.graph.tensors[like]
        made, held = self.schema.TensorT(), self.schema.QuantizationParametersT()
        made.shape, made.shapeSignature = shape.shape, shape.shapeSignature
        made.name, made.buffer = f"{_text(shape.name)}/{dtype}", 0
        made.type = getattr(self.schema.TensorType, dtype.upper())
        held.scale = np.array([grid.scale], np.float32)
        held.zeroPoint = np.array([grid.zero + SHIFT * (dtype == "uint8")], np.int64)
        made.quantization = held
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def _insert(self, place: int, kind: str, source: int, result: int) -> None:
        code = getattr(self.schema.BuiltinOperator, kind)
        version = _CONVERTS if self._is_float(source) else _REQUANTISES
        version = _FROM_INT8 if kind == "DEQUANTIZE" else version
        codes = [(code_of(one), one.version) for one in self.model.operatorCodes]
        if (code, version) not in codes:
            new = self.schema.OperatorCodeT()
            new.builtinCode = new.deprecatedBuiltinCode = code
            new.version = version
            self.model.operatorCodes.append(new)
            codes.append((code, version))
        op = self.schema.OperatorT()
        op.opcodeIndex = codes.index((code, version))
        op.inputs, op.outputs = (np.array([index], np.int32) for index in (source, result))
        self.graph.operators.insert(place, op)

    def _read_instead(self, old: int, new: int) -> None:
        for op in self.graph.operators:
            op.inputs = _replaced(op.inputs, old, new)
        self.graph.outputs = _replaced(self.graph.outputs, old, new)

    def _drop_unused(self) -> None:
        used = {*_indices(self.graph.inputs), *_indices(self.graph.outputs)}
        for op in self.graph.operators:
            used.update(*map(_indices, (op.inputs, op.outputs, op.intermediates)))
        places = {old: new for new, old in enumerate(sorted(used - {-1}))} | {-1: -1}
        self.graph.tensors = [x for i, x in enumerate(self.graph.tensors) if i in places]
        for op in (*self.graph.operators, self.graph):
            op.inputs, op.outputs = (_moved(x, places) for x in (op.inputs, op.outputs))
        for op in self.graph.operators:
            op.intermediates = _moved(op.intermediates, places)
        for entry in (*self.signature.inputs, *self.signature.outputs):
            entry.tensorIndex = places[int(entry.tensorIndex)]


def content_of(buffer: Any, data: bytes) -> memoryview:
    """Of a buffer of the schema's; quantisers write large ones behind the FlatBuffer."""
    if buffer.size:
        return memoryview(data)[buffer.offset : buffer.offset + buffer.size]
    return memoryview(b"" if buffer.data is None else buffer.data)


def code_of(code: Any) -> int:
    """The builtin operator, which old files hold in a byte of its own."""
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def with_signature_names(data: bytes) -> bytes:
    """The file with inputs and outputs called as its signature calls them."""
    file = TfliteFile(data)
    file.name_as_signature()
    return file.bytes()


def with_quantised_boundary(data: bytes, io: Io, grids: Mapping[str, Grid]) -> bytes:
    """The file with integers of `io` for inputs and outputs that are floats; see
    `TfliteFile.quantise_boundary`."""
    file = TfliteFile(data)
    file.quantise_boundary(io, grids)
    return file.bytes()


def tflite_boundary(data: bytes) -> Boundary:
    """Of any TFLite file."""
    from ai_edge_litert import schema_py_generated as schema

    file: Any = schema
    graph = file.Model.GetRootAs(data, 0).Subgraphs(0)
    types = {value: name.lower() for value, name in names_of(file.TensorType).items()}

    def port(index: int) -> Port:
        tensor = graph.Tensors(index)
        held, dtype = tensor.Quantization(), types[tensor.Type()]
        shape = tuple(int(n) for n in _indices(tensor.ShapeAsNumpy()))
        whole = dtype in ("int8", "uint8", "int16", "int32")
        if not whole or held is None or held.ScaleLength() != 1:
            return Port(_text(tensor.Name()), dtype, shape)
        zero = int(held.ZeroPoint(0)) if held.ZeroPointLength() else 0
        return Port(_text(tensor.Name()), dtype, shape, float(held.Scale(0)), zero)

    inputs = (port(graph.Inputs(i)) for i in range(graph.InputsLength()))
    outputs = (port(graph.Outputs(i)) for i in range(graph.OutputsLength()))
    return Boundary(tuple(inputs), tuple(outputs))


def _indices(found: Any) -> list[int]:
    """Of tensors; the schema has 0 or None for none."""
    return [] if found is None or np.isscalar(found) else [int(x) for x in found]


def _replaced(found: Any, old: int, new: int) -> Any:
    return _moved(found, {old: new})


def _moved(found: Any, places: Mapping[int, int]) -> Any:
    if found is None:
        return None
    return np.array([places.get(x, x) for x in _indices(found)], np.int32)


def _text(name: Any) -> str:
    return str(name, "utf-8") if isinstance(name, bytes) else name
