"""A .onnx file as the model of every command, and of every function."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from noise_images import noise_images
from onnx_files import model_of, written
from torch import nn

import shrinkc
from shrinkc.compiler.cli.main import main
from shrinkc.compiler.support.quiet import quiet

RNG = np.random.default_rng(0)
Streams = pytest.CaptureFixture[str]


def rand(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32) * 0.3


def classifier(batch: int | str = "N") -> onnx.ModelProto:
    """Convolutions, batch norm, a residual, and scores that are called so."""
    nodes = [
        ("Conv", ["image", "stem.weight"], ["a"], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("BatchNormalization", ["a", "stem.gamma", "b", "m", "v"], ["n"], {}),
        ("Relu", ["n"], ["r"], {}),
        ("Conv", ["r", "block.one.weight", "c"], ["d"], {"pads": [1, 1, 1, 1]}),
        ("Relu", ["d"], ["e"], {}),
        ("Conv", ["e", "block.two.weight"], ["f"], {"pads": [1, 1, 1, 1]}),
        ("Add", ["f", "r"], ["g"], {}),
        ("GlobalAveragePool", ["g"], ["p"], {}),
        ("Flatten", ["p"], ["q"], {}),
        ("Gemm", ["q", "head.weight", "h"], ["scores"], {"transB": 1}),
    ]
    weights = {
        **{"stem.weight": rand(16, 3, 3, 3), "stem.gamma": rand(16) + 1, "b": rand(16)},
        **{"m": rand(16), "v": np.abs(rand(16)) + 0.5, "c": rand(16)},
        **{"block.one.weight": rand(16, 16, 3, 3), "block.two.weight": rand(16, 16, 3, 3)},
        **{"head.weight": rand(5, 16), "h": rand(5)},
    }
    return model_of(nodes, {"image": (batch, 3, 32, 32)}, ["scores"], weights, opset=13)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return written(classifier(), tmp_path)


def session(path: Path) -> Any:
    return ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])


def test_compile(model: Path, tmp_path: Path, capsys: Streams) -> None:
    out = tmp_path / "out"
    assert main([str(model), "--target", "rpi4", "--runs", "0", "-o", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == "net.onnx"
    assert report["max_relative_error"] < 1e-4
    assert {a["name"] for a in report["artefacts"]} == {"onnx", "tflite"}
    before, after = session(model), session(out / "model.onnx")
    assert [i.name for i in after.get_inputs()] == ["image"]
    assert [o.name for o in after.get_outputs()] == ["scores"]
    for batch in (1, 3):
        x = RNG.standard_normal((batch, 3, 32, 32)).astype(np.float32)
        want, got = before.run(None, {"image": x})[0], after.run(None, {"image": x})[0]
        assert np.abs(got - want).max() < 1e-5 * np.ptp(want)


def test_a_batch_that_the_file_fixes(tmp_path: Path) -> None:
    path = written(classifier(1), tmp_path)
    compiled = shrinkc.compile(path, target="rpi4", runs=0)
    assert "the file has 'image' as 1,3,32,32" in compiled.report.notes[0]
    assert "batches of 1 only" in compiled.report.notes[0]


def test_the_other_commands(model: Path, tmp_path: Path, capsys: Streams) -> None:
    assert main(["estimate", str(model), "--target", "rpi4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total_ms"] > 0
    assert main(["inspect", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["input_shapes"] == {"image": [1, 3, 32, 32]}
    images = noise_images(tmp_path / "images")
    out = tmp_path / "pruned"
    asked = ("--criterion", "l1", "--macs", "0.7", "--images", str(images), "-o", str(out))
    assert main(["prune", str(model), "--target", "rpi4", "--runs", "0", *asked]) == 0
    capsys.readouterr()
    assert (out / "model.onnx").stat().st_size < model.stat().st_size
    assert main(["bench", str(model), "--runs", "2"]) == 0


def test_one_line_for_what_is_wrong(model: Path, capsys: Streams) -> None:
    model.write_bytes(model.read_bytes()[:200])
    assert main(["estimate", str(model), "--target", "rpi4"]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_layers_are_named_and_trained(model: Path) -> None:
    network = shrinkc.load(model)
    assert {n for n, _ in network.named_parameters()} >= {
        "stem.weight",
        "block.one.weight",
        "block.two.weight",
        "head.weight",
        "head.bias",
    }
    pruned = shrinkc.prune(model, goal=shrinkc.Goal.macs(0.5))
    pruned.train()(torch.randn(4, 3, 32, 32)).square().mean().backward()
    assert all(p.grad is not None for p in pruned.parameters())


def test_plans_and_depth(model: Path) -> None:
    images, goal = torch.randn(16, 3, 32, 32), shrinkc.Goal.speedup(1.1)
    how: dict[str, Any] = {"target": "rpi4", "goal": goal, "images": images, "runs": 0}
    shrunk = shrinkc.shrink(model, steps=0, **how)
    assert shrunk(torch.randn(2, 3, 32, 32)).shape == (2, 5)
    assert shrinkc.sensitivity(model, images=images)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 4)
        self.map = nn.Conv2d(8, 2, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.body(image))
        return self.head(x.mean((2, 3))), nn.functional.interpolate(self.map(x), scale_factor=2.0)


@pytest.mark.parametrize("dynamo", [False, True])
def test_what_torch_exports(dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x, path = Two().eval(), torch.randn(2, 3, 16, 16), tmp_path / "two.onnx"
    batch: dict[str, Any] = {"dynamic_axes": {"image": {0: "n"}}, "opset_version": 13}
    if dynamo:
        open_batch = ({0: torch.export.Dim("n")},)
        batch = {"dynamic_shapes": open_batch, "external_data": False, "opset_version": 18}
    names = {"input_names": ["image"], "output_names": ["scores", "mask"]}
    with quiet():
        torch.onnx.export(model, (x,), str(path), dynamo=dynamo, **names, **batch)
    compiled = shrinkc.compile(path, target="rpi4", runs=0)
    assert not compiled.report.notes
    assert compiled.report.max_relative_error < 1e-4
    for got, want in zip(compiled(x[:1]), model(x[:1]), strict=True):
        assert torch.allclose(got, want, atol=1e-5)
    made = onnx.load_model_from_string(compiled.files["model.onnx"])
    assert [o.name for o in made.graph.output] == ["scores", "mask"]
