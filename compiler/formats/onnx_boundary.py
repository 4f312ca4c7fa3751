"""The inputs and outputs of an ONNX file, as whoever runs it meets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from shrinkc.compiler.formats.boundary import Boundary, Port
from shrinkc.compiler.quantise.rounding import Grid
from shrinkc.compiler.support.choices import Io

FLOATS = "/float"  # behind the name of an input or output: the same in floats
SHIFT = 128  # from a level of int8 to the same of uint8


def with_quantised_boundary(data: bytes, io: Io, grids: Mapping[str, Grid]) -> bytes:
    """The int8 file with integers of `io` for inputs and outputs that are floats. `grids`, by their
    names, are for those that nothing in the file quantises."""
    file = _Quantised(onnx.load_model_from_string(data), io, grids)
    for one in file.graph.input:
        if one.type.tensor_type.elem_type == TensorProto.FLOAT:
            file.change_input(one)
    for one in file.graph.output:
        if one.type.tensor_type.elem_type == TensorProto.FLOAT:
            file.change_output(one)
    del file.graph.value_info[:]  # of tensors that have other names and types now
    return file.model.SerializeToString()


class _Quantised:
    def __init__(self, model: onnx.ModelProto, io: Io, grids: Mapping[str, Grid]) -> None:
        self.model, self.graph, self.io, self.grids = model, model.graph, io, grids
        self.type = TensorProto.UINT8 if io == "uint8" else TensorProto.INT8
        self.known = {one.name: one for one in self.graph.initializer}

    def change_input(self, one: onnx.ValueInfoProto) -> None:
        name, floats = one.name, one.name + FLOATS
        readers = [node for node in self.graph.node if name in node.input]
        quantises = [node for node in readers if node.op_type == "QuantizeLinear"]
        grid = self._grid(quantises[0]) if quantises else self.grids[name]
        for node in quantises if self.io == "int8" else ():
            if self._grid(node) == grid:
                self.graph.node.remove(node)
                self._read_instead(node.output[0], name)
                readers.remove(node)
        for node in readers:
            _rename(node.input, name, floats)
        if readers:
            self._convert(0, "DequantizeLinear", name, floats, grid)
        one.type.tensor_type.elem_type = self.type

    def change_output(self, one: onnx.ValueInfoProto) -> None:
        name, floats = one.name, one.name + FLOATS
        maker = next((node for node in self.graph.node if name in node.output), None)
        grid = self.grids[name]
        made_of = None
        if maker is not None and maker.op_type == "DequantizeLinear":
            grid = self._grid(maker)
            makers = (node for node in self.graph.node if maker.input[0] in node.output)
            made_of = next((n for n in makers if n.op_type == "QuantizeLinear"), None)
        for node in self.graph.node:
            _rename(node.output, name, floats)
        self._read_instead(name, floats)
        shared = made_of is None or made_of.output[0] in {x.name for x in self.graph.output}
        if maker is not None and made_of is not None and self.io == "int8" and not shared:
            self._read_instead(made_of.output[0], name)
            made_of.output[0] = name
            if not any(floats in node.input for node in self.graph.node):
                self.graph.node.remove(maker)
        else:
            self._convert(len(self.graph.node), "QuantizeLinear", floats, name, grid)
        one.type.tensor_type.elem_type = self.type

    def _grid(self, node: onnx.NodeProto) -> Grid:
        """Of a conversion to or from int8."""
        scale, zero = (numpy_helper.to_array(self.known[x]) for x in node.input[1:3])
        return Grid(float(scale), int(zero))

    def _convert(self, place: int, kind: str, source: str, result: str, grid: Grid) -> None:
        """`grid` is that of int8."""
        tensor = source if kind == "DequantizeLinear" else result
        zero = grid.zero + SHIFT * (self.io == "uint8")
        numbers = {
            f"{tensor}/scale": np.array(grid.scale, np.float32),
            f"{tensor}/zero_point": np.array(zero, self.io),
        }
        for name, number in numbers.items():
            self.graph.initializer.append(numpy_helper.from_array(number, name))
        name = f"{result}/{kind}"
        node = helper.make_node(kind, [source, *numbers], [result], name)
        self.graph.node.insert(place, node)

    def _read_instead(self, old: str, new: str) -> None:
        for node in self.graph.node:
            _rename(node.input, old, new)


def _rename(names: Any, old: str, new: str) -> None:
    for place, name in enumerate(names):
        if name == old:
            names[place] = new


def onnx_boundary(data: bytes) -> Boundary:
    """Of any ONNX file. Integers are quantised floats where a conversion reads or makes them."""
    graph = onnx.load_model_from_string(data).graph
    known = {one.name: one for one in graph.initializer}
    readers = {n.input[0]: n for n in graph.node if n.op_type == "DequantizeLinear"}
    makers = {n.output[0]: n for n in graph.node if n.op_type == "QuantizeLinear"}

    def port(one: onnx.ValueInfoProto, conversion: onnx.NodeProto | None) -> Port:
        kind = one.type.tensor_type
        known_type = kind.elem_type in helper.get_all_tensor_dtypes()  # outputs need not say theirs
        dtype = str(helper.tensor_dtype_to_np_dtype(kind.elem_type)) if known_type else "float32"
        shape = tuple(d.dim_value or d.dim_param for d in kind.shape.dim)
        if conversion is None or any(x not in known for x in conversion.input[1:]):
            return Port(one.name, dtype, shape)
        scale, *zero = (numpy_helper.to_array(known[x]) for x in conversion.input[1:])
        if scale.size != 1:
            return Port(one.name, dtype, shape)
        return Port(one.name, dtype, shape, scale.item(), zero[0].item() if zero else 0)

    inputs = (port(x, readers.get(x.name)) for x in graph.input if x.name not in known)
    outputs = (port(x, makers.get(x.name)) for x in graph.output)
    return Boundary(tuple(inputs), tuple(outputs))
