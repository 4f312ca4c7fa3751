"""What files say of themselves, read back without the code that wrote it."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from noise_images import noise_images
from PIL import Image
from torch import nn

import shrinkc
from shrinkc.compiler.formats.metadata.description import Description
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.formats.tflite_operators import read_operators
from shrinkc.compiler.images.preprocessing import preprocessing_for
from shrinkc.errors import InputError

SIZE, CLASSES = 24, 4


class Table:
    """Of a FlatBuffer, by its places in the vtable."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.table = at - struct.unpack_from("<i", data, at)[0]

    def _field(self, place: int) -> int | None:
        length = struct.unpack_from("<H", self.data, self.table)[0]
        if 4 + 2 * place >= length:
            return None
        offset = struct.unpack_from("<H", self.data, self.table + 4 + 2 * place)[0]
        return self.at + offset if offset else None

    def _there(self, place: int) -> int | None:
        at = self._field(place)
        return None if at is None else at + struct.unpack_from("<I", self.data, at)[0]

    def number(self, place: int, form: str = "b") -> int:
        at = self._field(place)
        return 0 if at is None else struct.unpack_from(f"<{form}", self.data, at)[0]

    def text(self, place: int) -> str | None:
        at = self._there(place)
        if at is None:
            return None
        (length,) = struct.unpack_from("<I", self.data, at)
        return self.data[at + 4 : at + 4 + length].decode("utf-8")

    def inner(self, place: int) -> Table:
        at = self._there(place)
        assert at is not None
        return Table(self.data, at)

    def floats(self, place: int) -> list[float]:
        at = self._there(place)
        assert at is not None
        (length,) = struct.unpack_from("<I", self.data, at)
        return list(struct.unpack_from(f"<{length}f", self.data, at + 4))

    def tables(self, place: int) -> list[Table]:
        at = self._there(place)
        if at is None:
            return []
        (length,) = struct.unpack_from("<I", self.data, at)
        starts = range(at + 4, at + 4 + 4 * length, 4)
        return [Table(self.data, p + struct.unpack_from("<I", self.data, p)[0]) for p in starts]


def metadata(data: bytes) -> Table:
    """ModelMetadata of a file."""
    model: Any = schema.Model.GetRootAs(data, 0)  # pyright: ignore
    found = [model.Metadata(i) for i in range(model.MetadataLength())]
    (entry,) = (one for one in found if one.Name() == b"TFLITE_METADATA")
    held = bytes(model.Buffers(entry.Buffer()).DataAsNumpy())
    assert held[4:8] == b"M001"
    return Table(held, struct.unpack_from("<I", held)[0])


def packed(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def classifier(channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(channels, 8, 3, padding=1, stride=2), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)),
    ).eval()


def compiled(images: Any, channels: int = 3, **asked: Any) -> Any:
    shape = (1, channels, SIZE, SIZE)
    given = dict[str, Any](target="rpi4", images=images, runs=0, name="net") | asked
    return shrinkc.compile(classifier(channels), shape, **given)


IMAGENET = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
READ: dict[str, tuple[dict[str, Any], dict[str, Any], Any, int]] = {
    "as usual": ({}, {}, IMAGENET, 1),
    "one number": ({"mean": (0.5,), "std": (0.25,)}, {}, ([127.5], [63.75]), 1),
    "as stored": ({"scale": 255.0}, {}, ([0.0], [1.0]), 1),
    "blue first": ({"bgr": True}, {}, IMAGENET, 0),
    "folded": ({"bgr": True}, {"fold_normalisation": True}, ([0.0], [1.0]), 1),
    "integers": ({}, {"precision": "int8", "io": "uint8"}, IMAGENET, 1),
    "grey": ({}, {"channels": 1}, ([0.449 * 255], [0.226 * 255]), 2),
}


@pytest.mark.parametrize("case", READ)
def test_how_an_image_becomes_the_input(case: str, tmp_path: Path) -> None:
    way, asked, (mean, std), colour = READ[case]
    images = noise_images(tmp_path / "images")
    made = compiled(shrinkc.ImageFolder(images, **way), **asked)
    data = made.files["model.tflite"]
    model = metadata(data)
    assert (model.text(0), model.text(7)) == ("net", "1.0.0")
    (graph,) = model.tables(3)
    (port,) = graph.tables(2)
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    (details,) = interpreter.get_input_details()
    assert port.text(0) == details["name"]
    assert port.inner(3).number(0, "B") == 2  # ImageProperties
    image = port.inner(3).inner(1)
    assert image.number(0) == colour
    assert [image.inner(1).number(side, "I") for side in range(2)] == [SIZE, SIZE]
    (unit,) = port.tables(4)
    assert unit.number(0, "B") == 1  # NormalizationOptions
    assert unit.inner(1).floats(0) == pytest.approx(mean, rel=1e-6)
    assert unit.inner(1).floats(1) == pytest.approx(std, rel=1e-6)
    properties = {
        one.key: one.value
        for one in onnx.load_model_from_string(made.files["model.onnx"]).metadata_props
    }
    for name, want in (("mean", mean), ("std", std)):
        listed = list(map(float, properties[f"shrinkc.{name}"].split(",")))
        assert listed == pytest.approx(want, rel=1e-6)
    words = {0: "BGR", 1: "RGB", 2: "grey"}
    assert properties["shrinkc.colour"] == words[colour]
    assert json.loads(properties["shrinkc.labels"]) == ["0", "1", "2", "3"]


def test_pixels_normalised_as_the_file_says_give_what_the_network_gives(tmp_path: Path) -> None:
    images = noise_images(tmp_path / "images")
    made = compiled(images)
    data = made.files["model.tflite"]
    (port,) = metadata(data).tables(3)[0].tables(2)
    options = port.tables(4)[0].inner(1)
    pixels = np.random.default_rng(0).integers(0, 255, (1, SIZE, SIZE, 3)).astype(np.float32)
    x = ((pixels - options.floats(0)) / options.floats(1)).astype(np.float32)
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    mean, std = (
        torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    rgb = torch.tensor(pixels).permute(0, 3, 1, 2) / 255
    want = classifier()((rgb - mean) / std).detach().numpy()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_labels_are_in_the_file_and_beside_it(tmp_path: Path, precision: str) -> None:
    images = noise_images(tmp_path / "images")
    names = tmp_path / "classes.txt"
    names.write_text("3\n1\n2\n0\n")
    given = shrinkc.ImageFolder(images, classes=names)
    one, two = (compiled(given, precision=precision) for _ in range(2))
    data = one.files["model.tflite"]
    assert data == two.files["model.tflite"]
    assert packed(data) == {"labels.txt": b"3\n1\n2\n0\n"}
    assert one.files["labels.txt"] == b"3\n1\n2\n0\n"
    (port,) = metadata(data).tables(3)[0].tables(3)
    (file,) = port.tables(6)
    assert (file.text(0), file.number(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    assert read_operators(data).counts["CONV_2D"] == 1


def test_classes_without_class_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for index in range(4):
        Image.new("RGB", (30, 30), (index, 0, 0)).save(tmp_path / "images" / f"{index}.png")
    names = tmp_path / "classes.txt"
    names.write_text("tench\ngreat white shark\ncock\nhen\n")
    made = compiled(shrinkc.ImageFolder(tmp_path / "images", classes=names))
    assert packed(made.files["model.tflite"])["labels.txt"].decode("utf-8") == names.read_text()
    names.write_text("tench\ngoldfish\n")
    with pytest.raises(InputError, match="`classes` names 2 classes; the network tells 4 apart"):
        compiled(shrinkc.ImageFolder(tmp_path / "images", classes=names))


def test_what_is_not_known_is_not_said() -> None:
    made = compiled(None)
    (graph,) = metadata(made.files["model.tflite"]).tables(3)
    (port,), (answer,) = graph.tables(2), graph.tables(3)
    assert not port.tables(4)
    assert not answer.tables(6)
    assert not zipfile.is_zipfile(io.BytesIO(made.files["model.tflite"]))
    assert "labels.txt" not in made.files


def test_metadata_is_replaced_not_added() -> None:
    data = compiled(None).files["model.tflite"]
    described = Description(
        "other", "classification", preprocessing_for((1, 3, SIZE, SIZE)), ("a",)
    )
    twice = TFLITE.described(TFLITE.described(data, described), described)
    assert metadata(twice).text(0) == "other"
    assert packed(twice) == {"labels.txt": b"a\n"}
