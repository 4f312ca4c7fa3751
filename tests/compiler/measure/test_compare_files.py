"""Two model files of any origin beside each other."""

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import onnx_files
import pytest
import torch
from noise_images import noise_images
from torch import nn

import shrinkc
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cli.main import main
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.formats.onnx import ONNX
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.measure.compare_files import ComparedFiles
from shrinkc.errors import InputError, LoadError


def network(classes: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(8, classes)).eval()


def written(folder: Path, name: str, net: nn.Module, size: int = 8) -> Path:
    program = lower(capture(net, (torch.randn(1, 3, size, size),)))
    path = folder / name
    path.write_bytes((ONNX if name.endswith("onnx") else TFLITE).encode(program))
    return path


def compared(*args: Any, **options: Any) -> ComparedFiles:
    found = shrinkc.compare(*args, **{"runs": 0, **options})
    assert isinstance(found, ComparedFiles)
    return found


@pytest.mark.parametrize("names", [("a.tflite", "b.onnx"), ("a.onnx", "b.tflite"), ("a.onnx",) * 2])
def test_the_same_network_in_two_files(tmp_path: Path, names: tuple[str, str]) -> None:
    paths = [written(tmp_path, name, network()) for name in names]
    found = compared(*paths, runs=3)
    assert found.difference is not None
    assert found.difference < 1e-5
    assert found.agreement is None
    assert min(found.first_ms or 0, found.second_ms or 0, found.speedup or 0) > 0
    for side, path in zip(found.sides, paths, strict=True):
        assert side.bytes == path.stat().st_size
        conv = "Conv" if path.suffix == ".onnx" else "CONV_2D"
        assert side.operators[conv] == 1


def test_other_networks(tmp_path: Path) -> None:
    """A planted change of a weight shows, and so does another number of classes."""
    first, other = written(tmp_path, "a.tflite", network()), network()
    with torch.no_grad():
        other[4].weight[0] += 1.0
    found = compared(first, written(tmp_path, "b.tflite", other))
    assert found.difference is not None
    assert found.difference > 0.01
    assert compared(first, written(tmp_path, "c.tflite", network(5))).difference is None
    with pytest.raises(InputError, match="read inputs of other shapes"):
        compared(first, written(tmp_path, "d.onnx", network(), size=9))


def test_on_images(tmp_path: Path) -> None:
    folder = noise_images(tmp_path / "images")
    paths = [written(tmp_path, name, network()) for name in ("a.tflite", "b.onnx")]
    for pair in (paths, paths[::-1]):
        found = compared(*pair, images=folder)
        assert (found.images, found.agreement) == (24, 1.0)
        assert found.difference is not None
        assert found.difference < 1e-5
    other = network()
    with torch.no_grad():
        other[4].bias.copy_(torch.tensor([0.0, 0, 0, 1e3]))
    assert compared(paths[0], written(tmp_path, "c.onnx", other), images=folder).agreement == 0.0


def test_inputs_in_int8(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_quantizer")
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    program = lower(capture(network(), (x,)))
    path = tmp_path / "int8.tflite"
    path.write_bytes(TFLITE.encode_int8_operator(program, (x * 1.5,)))
    found = compared(written(tmp_path, "a.tflite", network()), path, runs=2)
    assert found.difference is not None
    assert 1e-4 < found.difference < 0.3
    assert found.second_ms is not None


def test_files_that_cannot_be_compared(tmp_path: Path) -> None:
    good = written(tmp_path, "a.tflite", network())
    for name, data, match in (
        ("b.tflite", good.read_bytes()[:200], r"b\.tflite: a damaged \.tflite \(.*\); copy"),
        ("b.onnx", b"\x08\x08\x12", r"b\.onnx: (a damaged \.onnx|ONNX Runtime cannot load)"),
        ("b.txt", b"text", r"b\.txt is neither a"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(LoadError, match=match) as caught:
            compared(good, tmp_path / name)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(InputError, match="give two folders or two files"):
        compared(good, tmp_path)


def test_outputs_of_any_kind(tmp_path: Path) -> None:
    """An ONNX file need not say of what type they are."""
    path = onnx_files.written(onnx_files.one_node("Relu", (1, 4)), tmp_path)
    assert compared(path, path, runs=0).difference == 0.0
    lists = onnx_files.one_node("SequenceConstruct", (1, 4))
    with pytest.raises(LoadError, match=r"net\.onnx: returns no arrays of numbers"):
        compared(onnx_files.written(lists, tmp_path), path, runs=0)


def changed(source: Path, path: Path, change: Callable[[Any, Any], None]) -> Path:
    """A .tflite with something else in its first subgraph."""
    schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    change(schema, model.subgraphs[0])
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


def without_weights(schema: Any, graph: Any) -> None:
    """The kernel follows a null pointer."""
    first = graph.operators[0]
    first.inputs = [first.inputs[0], -1, *first.inputs[2:]]


def test_a_file_that_crashes_its_runtime(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two files, two folders, and the runtime is whole for the next. What lies in memory where the
    weights should be says whether it crashes or asks for more than there is."""
    path = written(tmp_path, "model.tflite", network())
    (tmp_path / "other").mkdir()
    bad = changed(path, tmp_path / "other/model.tflite", without_weights)
    match = (
        r"other/model\.tflite: TFLite (crashed \(SIG[A-Z]+\) when it was to load the file|"
        r"cannot load the file: std::bad_alloc)"
    )
    with pytest.raises(LoadError, match=match):
        compared(path, bad)
    report = {"artefacts": [{"file": "model.tflite"}]}
    for folder in (tmp_path, tmp_path / "other"):
        (folder / "report.json").write_text(json.dumps(report))
    assert main(["compare", str(tmp_path), str(tmp_path / "other")]) == 3
    assert re.search(match, capsys.readouterr().err)
    assert compared(path, path).difference == 0.0


def test_a_file_of_texts(tmp_path: Path) -> None:
    """A kernel for numbers would write them over pointers."""

    def texts(schema: Any, graph: Any) -> None:
        graph.tensors[graph.outputs[0]].type = schema.TensorType.STRING

    path = written(tmp_path, "a.tflite", network())
    changed(path, tmp_path / "b.tflite", texts)
    with pytest.raises(LoadError, match=r"b\.tflite: it has tensors of kind STRING"):
        compared(path, tmp_path / "b.tflite", runs=0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(written(tmp_path, name, network())) for name in ("a.tflite", "b.onnx")]
    assert main(["compare", *paths, "--runs", "2"]) == 0
    shown = capsys.readouterr().out
    assert "times as fast as the first" in shown
    assert "on random input their outputs differ by up to 0.0% of the range" in shown
    assert main(["compare", *paths, "--runs", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first"]["operators"]["CONV_2D"] == found["second"]["operators"]["Conv"] == 1
    assert main(["compare", *paths, "--mean", "0.5"]) == 2
