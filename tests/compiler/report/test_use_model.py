"""The program beside the files, run as a user runs it: it says what the file says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from noise_images import noise_images
from PIL import Image
from torch import Tensor, nn

import shrinkc
from shrinkc.compiler.formats.onnx import ONNX, int8_saturates
from shrinkc.compiler.formats.registry import FORMATS
from shrinkc.compiler.images.preprocessing import preprocessing_for, read_image
from shrinkc.compiler.report.use_model import use_model
from shrinkc.compiler.tasks.classification import CLASSIFICATION

SIZE = 24


def classifier(channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(channels, 8, 3, padding=1, stride=2), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    ).eval()


def ran(folder: Path, *arguments: Path) -> list[str]:
    found = subprocess.run(
        [sys.executable, str(folder / "use_model.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "crop": ({}, {}),
    "larger and cropped": ({"resize": 40, "mean": (0.1, 0.2, 0.3), "std": (0.5,)}, {}),
    "letterbox": ({"resize": "letterbox", "bgr": True, "scale": 255.0}, {}),
    "stretch": ({"resize": "stretch", "scale": 2.0, "mean": (1.0,)}, {}),
    "raw": ({"bgr": True}, {"fold_normalisation": True}),
    "int8": ({}, {"precision": "int8", "io": "int8"}),
    "raw bytes": ({}, {"precision": "int8", "io": "uint8", "fold_normalisation": True}),
    "onnx": ({}, {"formats": (ONNX,)}),
    "onnx in bytes": ({}, {"formats": (ONNX,), "precision": "int8", "io": "uint8"}),
    "a batch": ({}, {"batch": 2}),
    "grey": ({}, {"channels": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_program_says_what_the_file_says(case: str, tmp_path: Path) -> None:
    if case == "onnx in bytes" and int8_saturates():
        pytest.skip("onnxruntime's int8 overflows on this processor")
    way, asked = CASES[case]
    asked = dict(asked)
    channels, batch = asked.pop("channels", 3), asked.pop("batch", 1)
    shape = (batch, channels, SIZE, SIZE)
    images = noise_images(tmp_path / "images")
    found = shrinkc.compile(
        *(classifier(channels), shape),
        target="rpi4",
        images=shrinkc.ImageFolder(images, **way),
        runs=0,
        task=CLASSIFICATION,
        **asked,
    )
    found.save(tmp_path / "out")
    numbers = np.random.default_rng(1).integers(0, 255, (37, 61, 3), dtype=np.uint8)
    file = tmp_path / "made.png"
    Image.fromarray(numbers).save(file)
    chosen = preprocessing_for(shape, **way)
    if "fold_normalisation" in asked:
        chosen = preprocessing_for(shape, **{**way, "bgr": False, "scale": 255, "mean": None})
    x = read_image(file.read_bytes(), file.name, chosen)[None]
    form = next(one for one in reversed(FORMATS) if one.file in found.files)
    artefact = found.artefact if found.artefact.name == form.name else None
    assert artefact is not None
    (want,) = artefact.run((x,))
    told = [line.split() for line in ran(tmp_path / "out", file)]
    order = np.argsort(-want[0], kind="stable")
    assert [name for _, name in told] == [str(i) for i in order]  # folders are 0 to 3
    scores = [float(score) for score, _ in told]
    np.testing.assert_allclose(scores, want[0][order], rtol=1e-4, atol=1e-5)
    assert (tmp_path / "out/labels.txt").read_text("utf-8") == "0\n1\n2\n3\n"


class Several(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"'quoted\"": self.conv(a), "total": b.sum(1, keepdim=True)}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)


def test_arrays_are_read_as_the_network_reads_them(tmp_path: Path) -> None:
    shapes = [(1, 3, 8, 8), (1, 5)]
    found = shrinkc.compile(Several().eval(), shapes, target="rpi4", runs=0)
    found.save(tmp_path)
    arrays = [tmp_path / f"{i}.npy" for i in range(2)]
    for path, shape in zip(arrays, shapes, strict=True):
        np.save(path, np.ones(shape, np.float32))
    assert ran(tmp_path, *arrays) == ["quoted (1, 6, 6, 2) float32", "total (1, 1) float32"]


def test_what_is_foreign_stays_a_literal() -> None:
    """A report may hold any text; nothing of it becomes a statement."""
    evil = 'x\'"\n__import__(\'os\').abort()\n"""'
    port = {
        "name": evil,
        "dtype": evil,
        "shape": [evil, 3, 8, 8],
        "scale": None,
        "zero_point": None,
    }
    report = {
        "model": evil,
        "artefacts": [{"name": "onnx", "file": evil, "inputs": [port], "outputs": [port]}],
        "preprocessing": None,
        "task": {"name": evil},
        "labels": [evil],
    }
    program = use_model(report)
    assert program is not None
    calls = [node.func for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Call)]
    assert "__import__" not in {call.id for call in calls if isinstance(call, ast.Name)}


def test_there_is_none_for_files_that_nobody_runs() -> None:
    assert use_model({"artefacts": [{"name": "packed", "inputs": []}]}) is None
