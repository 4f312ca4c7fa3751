"""`shrinkc shrink` from the command line, on a small network and noise for images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from noise_images import noise_images
from ray_double import FakeRay, installed
from small_networks import bare_block
from torch import nn

from shrinkc.compiler.cli.main import main
from shrinkc.errors import EXIT_CODES

INPUT = ("--target", "rpi4", "--input", "1,3,16,16", "--runs", "0")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.ReLU6(),
            *bare_block(8),
            nn.ReLU6(),
            *bare_block(8),
            nn.ReLU6(),
        ),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    path = tmp_path / "net.pt"
    torch.save(net, path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return noise_images(tmp_path / "images")


def test_a_network_within_the_budget_comes_out(
    model: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "out"
    given = ("--images", str(images), "--evaluation", str(images), "--steps", "2")
    arguments = ("shrink", str(model), *INPUT, *given, "--speedup", "1.1", "-o", str(out))
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    shrunk = result["shrunk"]
    assert shrunk["predicted_ms_after"] <= shrunk["predicted_ms_before"] / 1.1
    assert shrunk["choices"]
    assert shrunk["judged"]["images"] == 24
    assert {p.name for p in out.iterdir()} >= {"model.onnx", "model.tflite", "model.safetensors"}
    assert result["compiled"]["max_relative_error"] < 1e-4


@pytest.fixture
def with_norms(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()]
    for _ in range(2):
        layers += [
            *(nn.Conv2d(8, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU6()),
            *(nn.Conv2d(64, 64, 3, 1, 1, groups=64, bias=False), nn.BatchNorm2d(64), nn.ReLU6()),
            *(nn.Conv2d(64, 8, 1, bias=False), nn.BatchNorm2d(8)),
        ]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    path = tmp_path / "norms.pt"
    torch.save(net, path)
    return path


TRAINING = ("--epochs", "1", "--batch", "8", "--learning-rate", "0.01")


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("two-stage-dp", ()),
        ("depthshrinker", ()),
        ("depthshrinker", ("--chain-ratio", "1.5")),
        ("layer-folding", ()),
    ],
)
def test_a_trained_method_from_the_command_line(
    method: str,
    more: tuple[str, ...],
    with_norms: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    given = ("--images", str(images), "--train", str(images), "--evaluation", str(images))
    arguments = ("shrink", str(with_norms), *INPUT, *given, "--method", method, *TRAINING)
    arguments += more
    trials = ("--trial-steps", "1") if method == "two-stage-dp" else ()
    assert main([*arguments, *trials, "--speedup", "1.05", "-o", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    shrunk = result["shrunk"]
    assert shrunk["method"] == method
    assert shrunk["predicted_ms_after"] <= shrunk["predicted_ms_before"] / 1.05
    assert shrunk["judged"]["images"] == 24
    assert any("linear chains" in note for note in shrunk["notes"]) == bool(more)
    compiled = result["compiled"]
    assert compiled["max_relative_error"] < 1e-4
    # "before" is the network that was given, after its batch norms were folded
    assert compiled["predicted_ms_before"] == pytest.approx(shrunk["predicted_ms_before"])
    assert compiled["predicted_ms_after"] == pytest.approx(shrunk["predicted_ms_after"])
    work = tmp_path / "out.work"
    assert list(work.glob("*/fine-tuning-*/last.pt"))
    assert len(list(work.glob("*.jsonl"))) == (method == "two-stage-dp")


def test_a_threshold_that_nothing_passes_from_the_command_line(
    with_norms: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No goal is needed; one epoch is too short for α."""
    given = ("--images", str(images), "--labels", "--method", "layer-folding", *TRAINING)
    arguments = ("shrink", str(with_norms), *INPUT, *given, "-o", str(tmp_path / "out"))
    assert main([*arguments]) == EXIT_CODES["usage"]
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nothing can be folded: α of 0 of" in error
    assert "give more --search-epochs, or a goal" in error


class Residual(nn.Sequential):
    """Two blocks with a shortcut around each."""

    def __init__(self) -> None:
        super().__init__(*(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


def with_shortcuts() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), Residual(), nn.ReLU(), Residual(), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )


def test_practise_from_the_command_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folders of images that are no classes; it goes on where it was stopped."""
    torch.manual_seed(0)
    model, out = tmp_path / "net.pth", tmp_path / "out"
    torch.save(with_shortcuts().state_dict(), model)
    given = ("--arch", f"{__name__}:with_shortcuts", "--images", str(images), "--speedup", "1.1")
    given = (*given, "--method", "practise", "--steps", "4", "--learning-rate", "0.01")
    arguments = ("shrink", str(model), *INPUT, *given, "-o", str(out))
    assert main([*arguments]) == 0
    assert "recoverable to a squared error of" in capsys.readouterr().out
    assert main([*arguments, "--evaluation", str(images), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    scores = [block["score"] for block in result["shrunk"]["choices"]]
    assert scores == sorted(scores)
    assert result["shrunk"]["predicted_speedup"] >= 1.1
    assert result["shrunk"]["judged"]["images"] == 24
    assert result["compiled"]["max_relative_error"] < 1e-4
    work = tmp_path / "out.work"
    assert len(list(work.glob("*/adaptors/last.pt"))) == 1
    assert len(list(work.glob("*/fine-tuning/last.pt"))) == 1
    (scores,) = work.glob("*.jsonl")
    assert len(scores.read_text().splitlines()) == 2


def test_closed_form_may_be_trained_afterwards(
    with_norms: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    given = ("--images", str(images), "--labels", "--steps", "0", "--speedup", "1.05")
    arguments = ("shrink", str(with_norms), *INPUT, *given, *TRAINING, "-o", str(tmp_path / "out"))
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["shrunk"]["predicted_speedup"] >= 1.05
    assert result["compiled"]["max_relative_error"] < 1e-4
    assert result["compiled"]["predicted_ms_after"] == pytest.approx(
        result["shrunk"]["predicted_ms_after"]
    )
    (log,) = (tmp_path / "out.work").glob("*/fine-tuning/log.jsonl")
    assert log.read_text()


def test_expansion_from_the_command_line(
    with_norms: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = ("--images", str(images), "--labels", "--method", "expand", *TRAINING)
    assert main(["shrink", str(with_norms), *INPUT, *given, "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "expand" in said
    assert "not judged: give --evaluation DIR" in said
    assert "1.00×" in said


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ((), "give --images; no labels"),
        (("--images", "{images}", "--method", "magic"), "'magic' is not one of 'closed-form'"),
        (
            ("--images", "{images}", "--method", "layermerge", "--speedup", "1.1"),
            "learns from labels; give --train, with",
        ),
        (
            ("--images", "{images}", "--keep-blocks", "3"),
            "--keep-block-ratio belong",
        ),
        (
            ("--images", "{images}", "--method", "expand", "--labels", "--speedup", "2"),
            "expand makes nothing faster",
        ),
        (
            ("--images", "{images}", "--method", "layermerge", "--labels", "--steps", "3"),
            "--steps belongs to closed-form and practise",
        ),
        (("--images", "{images}", "--speedup", "1.1", "--jobs", "0"), "--jobs 0"),
        (
            ("--images", "{images}", "--speedup", "1.1", "--jobs", "2", "--ray", "head:6379"),
            "--jobs 2 and --ray head:6379 do not go together; leave out one",
        ),
        (("--images", "{images}"), "give exactly one of --speedup, --budget-ms"),
        (("--images", "{images}", "--speedup", "0.5"), "--speedup 0.5: give more than 1"),
        (("--images", "{images}", "--speedup", "900"), "cannot be reached"),
        (
            ("--images", "{images}", "--method", "practise", "--speedup", "1.1"),
            "no shortcut leads around what ends here",
        ),
    ],
)
def test_what_cannot_be_is_one_line(
    extra: tuple[str, ...],
    message: str,
    model: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    filled = [text.format(images=images) for text in extra]
    code = EXIT_CODES["unreachable" if message == "cannot be reached" else "usage"]
    assert main(["shrink", str(model), *INPUT, *filled, "-o", str(out)]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not out.exists()


def test_a_cluster_that_cannot_be_reached_is_told_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--ray says --jobs ray."""
    given = ("--images", str(tmp_path), "--speedup", "1.2", "--ray", "nowhere")
    with installed(monkeypatch, FakeRay()):
        assert main(["shrink", str(tmp_path / "none.pt"), *INPUT, *given]) == EXIT_CODES["usage"]
    assert "--ray nowhere is no address; give the HOST:PORT" in capsys.readouterr().err


def test_training_that_cannot_start_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    given = ("--images", str(tmp_path), "--labels", "--method", "layermerge", "--speedup", "1.2")
    assert main(["shrink", str(tmp_path / "none.pt"), *INPUT, *given]) == EXIT_CODES["training"]
    assert "pip install 'shrinkc[train]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--method", "layermerge", "--published"), "is the schedule of depthshrinker"),
        (("--method", "depthshrinker", "--published", "--epochs", "3"), "--published sets"),
        (("--method", "layer-folding", "--published", "--epochs", "3"), "--published sets"),
        (("--method", "layer-folding", "--per-activation"), "--per-activation has no effect"),
        (("--method", "layer-folding", "--keep-blocks", "2"), "--keep-block-ratio belong"),
        (("--method", "two-stage-dp", "--search", "random"), "--search has no effect"),
        (("--method", "layermerge", "--alpha", "1.5"), "--alpha has no effect"),
        (("--method", "depthshrinker", "--importance", "loss"), "--importance has no effect"),
        (("--anneal", "0.5"), "--anneal has no effect"),
        (("--chain-ratio", "2"), "--chain-ratio has no effect"),
        (("--method", "practise", "--anneal", "0.5"), "--anneal has no effect"),
    ],
)
def test_what_belongs_to_other_methods_is_refused(
    model: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    given: tuple[str, ...],
    message: str,
) -> None:
    labelled = ("--labels",) if given[0] == "--method" else ()
    arguments = ("shrink", str(model), *INPUT, "--images", str(images), *labelled)
    assert main([*arguments, *given, "--speedup", "1.1"]) == EXIT_CODES["usage"]
    assert message in capsys.readouterr().err
