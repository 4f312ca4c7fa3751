"""A format from outside the package is written, verified and reported like the package's own."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_files import one_node, written
from torch import nn

import shrinkc
import shrinkc.latency_tables
from shrinkc.compiler.api.steps.compilation import compile_graph
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.onnx import DEFAULT_OPSET
from shrinkc.compiler.formats.base import Format
from shrinkc.compiler.formats.onnx import ONNX, OnnxRunner
from shrinkc.compiler.formats.registry import (
    FORMATS,
    format_of_device,
    format_of_runtime,
    open_runner,
    read_model,
)
from shrinkc.compiler.formats.runner import random_inputs
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.options import Options
from shrinkc.compiler.quantise.stored import StoredCalibration
from shrinkc.compiler.support.atomic_files import atomic_folder
from shrinkc.errors import InputError, LoadError, UnsupportedOperatorError, VerificationError
from shrinkc.latency_tables.meta import read_meta

SHAPES = [(1, 3, 16, 16)]


class Packed(Format):
    """ONNX, compressed."""

    name = "packed"

    def encode(self, program: ops.Program, opset: int = DEFAULT_OPSET) -> bytes:
        return zlib.compress(ONNX.encode(program, opset))

    def open(self, data: bytes, threads: int = 1) -> OnnxRunner:
        return ONNX.open(zlib.decompress(data), threads)


class Wrong(Packed):
    """Scales the first weight."""

    name = "wrong"

    def encode(self, program: ops.Program, opset: int = DEFAULT_OPSET) -> bytes:
        first, *others = program.ops
        assert isinstance(first, ops.Conv)
        spoilt = replace(first, weight=first.weight * 2)
        return super().encode(replace(program, ops=(spoilt, *others)), opset)


class Poor(Packed):
    """Expresses nothing."""

    name = "poor"

    def encode(self, program: ops.Program, opset: int = DEFAULT_OPSET) -> bytes:
        raise UnsupportedOperatorError(program.ops[0].name, "conv", "poor")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    return net.eval()


def compiled(model: nn.Module, out: Path, *formats: Format, **more: Any) -> dict[str, Any]:
    """report.json"""
    graph = shrinkc.capture(model, SHAPES)
    made = compile_graph(graph, Options(formats=formats, runs=0, **more))
    with atomic_folder(out) as folder:
        for name, content in made.files.items():
            (folder / name).write_bytes(content)
    return json.loads((out / "report.json").read_text("utf-8"))


def test_a_third_format_is_written_verified_and_reported(model: nn.Module, tmp_path: Path) -> None:
    packed = Packed()
    made = shrinkc.compile(model, SHAPES, target="rpi4", formats=(*FORMATS, packed), runs=1)
    made.save(tmp_path)
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    file = report["artefacts"][2]
    assert (file["name"], file["file"]) == ("packed", "model.packed")
    assert 0 <= file["max_relative_error"] < 1e-4
    assert file["bytes"] == (tmp_path / "model.packed").stat().st_size
    assert file["measured_ms"] > 0
    assert file["memory_bytes"] is None  # no process of ours runs it
    assert report["target_format"] == "tflite"
    assert "model.packed" in (tmp_path / "report.html").read_text("utf-8")
    x = torch.randn(SHAPES[0], generator=torch.Generator().manual_seed(0))
    (got,) = packed.open((tmp_path / "model.packed").read_bytes()).run([x.numpy()])
    torch.testing.assert_close(torch.from_numpy(got), model(x).detach(), atol=1e-5, rtol=1e-4)


def test_it_may_be_the_only_one(model: nn.Module, tmp_path: Path) -> None:
    report = compiled(model, tmp_path, Packed())
    assert [file["file"] for file in report["artefacts"]] == ["model.packed"]
    assert report["target_format"] == "packed"
    assert report["after"]["bytes"] == (tmp_path / "model.packed").stat().st_size
    assert not (tmp_path / "model.onnx").exists()


def test_a_format_that_writes_something_else_is_found_out(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="wrong differs from the model"):
        compiled(model, tmp_path / "out", Wrong())
    assert not (tmp_path / "out").exists()


def test_a_format_without_int8_is_a_failure(model: nn.Module, tmp_path: Path) -> None:
    stored = StoredCalibration({}, {})
    report = compiled(model, tmp_path, ONNX, Packed(), precision="int8", stored=stored)
    assert report["failures"] == ["model.packed: the format has no int8"]
    assert [file["file"] for file in report["artefacts"]] == ["model.onnx"]
    assert not (tmp_path / "model.packed").exists()
    with pytest.raises(InputError, match=r"model\.packed: the format has no int8"):
        compiled(model, tmp_path, Packed(), precision="int8", stored=stored)


def test_what_a_format_cannot_express_is_a_failure(model: nn.Module, tmp_path: Path) -> None:
    report = compiled(model, tmp_path, ONNX, Poor())
    assert report["failures"] == ["poor cannot express node '_0' (conv)"]
    assert [file["name"] for file in report["artefacts"]] == ["onnx"]
    assert report["target_format"] == "onnx"
    with pytest.raises(UnsupportedOperatorError, match="poor cannot express"):
        compiled(model, tmp_path, Poor())


@pytest.mark.parametrize("formats", [(), (ONNX, ONNX), (TFLITE, Packed(), Packed())])
def test_formats_that_do_not_fit_together(formats: tuple[Format, ...]) -> None:
    with pytest.raises(
        InputError, match="`formats`: give one or more, each with a name of its own"
    ):
        shrinkc.compile(nn.Conv2d(3, 4, 1), SHAPES, target="rpi4", formats=formats)


def test_files_are_told_by_content_then_by_suffix(model: nn.Module, tmp_path: Path) -> None:
    shrinkc.compile(model, SHAPES, target="rpi4", runs=0).save(tmp_path)
    disguised = tmp_path / "other.onnx"
    disguised.write_bytes((tmp_path / "model.tflite").read_bytes())
    assert read_model(disguised)[0] is TFLITE
    assert read_model(tmp_path / "model.onnx")[0] is ONNX
    assert open_runner(disguised).input_shapes == ((1, 16, 16, 3),)
    with pytest.raises(LoadError, match=r"neither a \.onnx nor a \.tflite file"):
        read_model(tmp_path / "report.json")


def test_files_that_do_not_run_are_one_line(model: nn.Module, tmp_path: Path) -> None:
    """The interpreter would follow an offset out of the file, and the process end there."""
    path = tmp_path / "model.tflite"
    shrinkc.compile(model, SHAPES, target="rpi4", runs=0).save(tmp_path)
    data = bytearray(path.read_bytes())
    data[:4] = (len(data) - 4).to_bytes(4, "little")  # of the root table
    path.write_bytes(data)
    with pytest.raises(LoadError, match=r"model\.tflite: a damaged \.tflite"):
        open_runner(path)
    text = one_node("Identity", (1, 2))
    text.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    with pytest.raises(LoadError, match="its inputs are string, no arrays"):
        random_inputs(open_runner(written(text, tmp_path)))
    large = one_node("Identity", (1 << 20, 1 << 20))
    with pytest.raises(LoadError, match=r"an input of shape 1048576×1048576 is no network's"):
        random_inputs(open_runner(written(large, tmp_path)))
    odd = open_runner(written(one_node("Reshape", (1, 4), [np.array([3])]), tmp_path))
    with pytest.raises(LoadError, match="ONNX Runtime cannot run the file"):
        odd.run([np.zeros((1, 4), np.float32)])


def test_every_runtime_of_a_shipped_table_has_its_format() -> None:
    tables = list(Path(str(files(shrinkc.latency_tables))).rglob("meta.toml"))
    assert tables
    for table in tables:
        expected = ONNX if "tensorrt" in str(table) else TFLITE
        assert format_of_runtime(read_meta(table).runtime) is expected
    assert format_of_runtime("ai-edge-litert") is TFLITE
    assert format_of_runtime("onnxruntime") is ONNX
    assert format_of_runtime("pytorch") is None
    assert format_of_device("tensorrt") is format_of_device("onnxruntime") is ONNX
