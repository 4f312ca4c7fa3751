"""TFLite's metadata, as tflite-support's metadata_schema.fbs has it: a FlatBuffer in a buffer of
the model, and `labels.txt` in a zip archive behind it.

Task Library, MediaPipe, ML Kit and Android Studio read how an image is normalised and what classes
are called from there. No package that is kept up writes it: fields are numbered here as the schema
orders them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import flatbuffers

from shrinkc.compiler.export.tflite.builder import Buffer
from shrinkc.compiler.formats.boundary import Port
from shrinkc.compiler.formats.metadata.description import LABELS, Description, label_file
from shrinkc.compiler.formats.tflite_boundary import TfliteFile, tflite_boundary

BUFFER, IDENTIFIER = "TFLITE_METADATA", b"M001"
PARSER = "1.0.0"  # the least version of the schema that has all of these fields
AXIS_LABELS = 2  # of AssociatedFileType
IMAGE, NORMALISATION = 2, 1  # of the unions ContentProperties and ProcessUnitOptions
COLOUR_SPACES = {"RGB": 1, "grey": 2}  # of ColorSpaceType, which has no BGR: unknown, 0


def described(data: bytes, description: Description) -> bytes:
    """A file of one subgraph with its metadata; an older one is replaced."""
    file = TfliteFile(data)
    ports = tflite_boundary(data)
    table = _model(description, ports.inputs, ports.outputs)
    builder = flatbuffers.Builder(1024)
    builder.Finish(_packed(builder, table), IDENTIFIER)
    file.add_metadata(BUFFER, Buffer(memoryview(bytes(builder.Output()))))
    return _with_labels(file.bytes(), description)


def _with_labels(data: bytes, description: Description) -> bytes:
    if not description.labels:
        return data
    whole = io.BytesIO(data)
    whole.seek(0, io.SEEK_END)
    with zipfile.ZipFile(whole, "a") as archive:  # stored, and of no date
        member = zipfile.ZipInfo(LABELS)
        member.create_system = 3  # whichever system this is
        archive.writestr(member, label_file(description.labels))
    return whole.getvalue()


# --- the schema's tables -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scalar:
    kind: str  # Int8, Uint8, Uint32
    value: int


_Table = dict[int, Any]  # place in the schema's table → text, a scalar, a table, a list of them


def _model(description: Description, inputs: Sequence[Port], outputs: Sequence[Port]) -> _Table:
    """ModelMetadata."""
    graph: _Table = {2: [_input(one, description) for one in inputs]}
    graph[3] = [
        {0: one.name, **({6: [_labels()]} if description.labels and not place else {})}
        for place, one in enumerate(outputs)
    ]
    said = f"{description.task}, compiled by shrinkc"
    return {0: description.name, 1: said, 3: [graph], 7: PARSER}


def _labels() -> _Table:
    """AssociatedFile."""
    said = "Names of the classes, one a line, in their order"
    return {0: LABELS, 1: said, 2: _Scalar("Int8", AXIS_LABELS)}


def _input(port: Port, description: Description) -> _Table:
    """TensorMetadata."""
    image = description.image
    if image is None:
        return {0: port.name}
    height, width = image.size
    colour = description.colour
    size: _Table = {0: _Scalar("Uint32", width), 1: _Scalar("Uint32", height)}
    properties: _Table = {0: _Scalar("Int8", COLOUR_SPACES.get(colour, 0)), 1: size}
    options: _Table = {0: list(description.mean), 1: list(description.std)}
    return {
        0: port.name,
        1: f"Image, {width}×{height}, {colour}, {description.fit}",
        3: {0: _Scalar("Uint8", IMAGE), 1: properties},  # Content
        4: [{0: _Scalar("Uint8", NORMALISATION), 1: options}],  # ProcessUnit
    }


def _packed(builder: Any, table: _Table) -> int:
    """Written into the builder, what it refers to before it."""
    made = {
        place: value if isinstance(value, _Scalar) else _referred(builder, value)
        for place, value in table.items()
    }
    builder.StartObject(max(table) + 1)
    for place, value in made.items():
        if isinstance(value, _Scalar):
            getattr(builder, f"Prepend{value.kind}Slot")(place, value.value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(place, value, 0)
    return builder.EndObject()


def _referred(builder: Any, value: Any) -> int:
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, dict):
        return _packed(builder, cast(_Table, value))
    numbers = isinstance(value[0], float)
    items = value if numbers else [_referred(builder, one) for one in value]
    builder.StartVector(4, len(items), 4)
    for one in reversed(items):
        (builder.PrependFloat32 if numbers else builder.PrependUOffsetTRelative)(one)
    return builder.EndVector()
