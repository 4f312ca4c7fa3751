"""`shrinkc shrink` from the command line, on a small network and noise for pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shrinkc.compiler.cli import main
from torch import nn

INPUT = ("--target", "rpi4", "--input", "1,3,16,16", "--resize", "16", "--runs", "0")


def block(channels: int) -> list[nn.Module]:
    return [
        *(nn.Conv2d(channels, 4 * channels, 1), nn.ReLU6()),
        *(nn.Conv2d(4 * channels, 4 * channels, 3, 1, 1, groups=4 * channels), nn.ReLU6()),
        nn.Conv2d(4 * channels, channels, 1),
    ]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), *block(8), nn.ReLU6(), *block(8), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    path = tmp_path / "net.pt"
    torch.save(net, path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for index in range(24):
        folder = tmp_path / "pictures" / str(index % 4)
        folder.mkdir(parents=True, exist_ok=True)
        noise = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.png")
    return tmp_path / "pictures"


def test_a_network_within_the_budget_comes_out(
    model: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "out"
    given = ("--images", str(pictures), "--evaluation", str(pictures), "--steps", "2")
    arguments = ("shrink", str(model), *INPUT, *given, "--speedup", "1.1", "-o", str(out))
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    shrunk = result["shrunk"]
    assert shrunk["predicted_ms_after"] <= shrunk["predicted_ms_before"] / 1.1
    assert shrunk["choices"]
    assert shrunk["judged"]["pictures"] == 24
    assert {p.name for p in out.iterdir()} >= {"model.onnx", "model.tflite", "model.safetensors"}
    assert result["compiled"]["max_relative_error"] < 1e-4


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ((), "give --images DIR"),
        (("--images", "{pictures}"), "give either a speedup or a budget"),
        (("--images", "{pictures}", "--speedup", "0.5"), "a speedup of 0.5; give more than 1"),
        (("--images", "{pictures}", "--speedup", "900"), "cannot be reached"),
    ],
)
def test_what_cannot_be_is_one_line(
    extra: tuple[str, ...],
    message: str,
    model: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    filled = [text.format(pictures=pictures) for text in extra]
    assert main(["shrink", str(model), *INPUT, *filled, "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not out.exists()
