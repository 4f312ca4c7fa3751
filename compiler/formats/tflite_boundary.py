"""The inputs and outputs of a TFLite file, as its readers meet them."""

from __future__ import annotations

from typing import Any

from shrinkc.compiler.export.tflite.builder import Buffer, packed

INNER = "/inner"  # behind the name of what an output was converted from


class Boundary:
    """A TFLite file of one subgraph and one signature, whose inputs and outputs can be changed.

    Weights are views into `data`, and written again as they are.
    """

    def __init__(self, data: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.file: Any = schema
        self.model = self.file.ModelT.InitFromPackedBuf(data, 0)
        self.model.buffers = [Buffer(content_of(buffer, data)) for buffer in self.model.buffers]
        (self.graph,) = self.model.subgraphs
        (self.signature,) = self.model.signatureDefs

    def bytes(self) -> bytes:
        """The file."""
        return packed(self.model)

    def name_as_signature(self) -> None:
        """Give inputs and outputs the names that the signature has for them. Quantisers leave the
        names to the integers that floats are made from, and call the floats otherwise."""
        tensors = self.graph.tensors
        entries = [*self.signature.inputs, *self.signature.outputs]
        wanted = {int(one.tensorIndex): _text(one.name) for one in entries}
        names = set(wanted.values())
        for index, tensor in enumerate(tensors):
            name = _text(tensor.name)
            if index in wanted:
                tensor.name = wanted[index]
            elif name in names:
                tensor.name = name + INNER


def content_of(buffer: Any, data: bytes) -> memoryview:
    """Of a buffer of the schema's; quantisers write large ones behind the FlatBuffer."""
    if buffer.size:
        return memoryview(data)[buffer.offset : buffer.offset + buffer.size]
    return memoryview(b"" if buffer.data is None else buffer.data)


def with_signature_names(data: bytes) -> bytes:
    """The file with inputs and outputs called as its signature calls them."""
    boundary = Boundary(data)
    boundary.name_as_signature()
    return boundary.bytes()


def _text(name: Any) -> str:
    return str(name, "utf-8") if isinstance(name, bytes) else name
