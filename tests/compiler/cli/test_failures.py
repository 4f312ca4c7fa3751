"""Failures: one line on stderr, an exit code that tells the kind, one object with --json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from noise_images import noise_images
from torch import nn

from shrinkc.compiler.api.steps import network
from shrinkc.compiler.cli.main import main
from shrinkc.compiler.cli.output import Run
from shrinkc.errors import EXIT_CODES

Streams = pytest.CaptureFixture[str]
INPUT = ("--input", "1,3,16,16")


@pytest.fixture
def model(tmp_path: Path) -> str:
    torch.manual_seed(0)
    path = tmp_path / "model.pt"
    torch.save(nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 4, 3)), path)
    return str(path)


def failed(words: list[str], kind: str, streams: Streams) -> str:
    """The message, which the line on stderr says too."""
    assert main([*words, "--json"]) == EXIT_CODES[kind]
    out, err = streams.readouterr()
    error = json.loads(out)["error"]
    assert set(error) == {"kind", "message", "hint"}
    assert error["kind"] == kind
    text = error["message"] if error["hint"] is None else f"{error['message']}; {error['hint']}"
    assert err == f"shrinkc: {text}\n"
    assert main(words) == EXIT_CODES[kind]
    assert streams.readouterr() == ("", err)
    return text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "Missing option '--target'"),
        (["--no-such-option"], "No such option: --no-such-option"),
        (["--target", "rpi4", "--runs", "many"], "'--runs'"),
        (["--target", "rpi4", "--precision", "int4"], "'int4' is not one of 'fp32', 'int8'"),
        (["--target", "rpi4", "--merge", "maybe"], "is not one of 'auto', 'all', 'none'"),
        (["--target", "rpi-4"], "unknown target 'rpi-4'; did you mean rpi4? known: host, gpu"),
        (["--target", "rpi4", "--budget-ms", "0"], "--budget-ms 0: give milliseconds above 0"),
    ],
)
def test_usage(model: str, more: list[str], message: str, capsys: Streams) -> None:
    assert message in failed(["compile", model, *more], "usage", capsys)


def test_a_missing_argument(capsys: Streams) -> None:
    assert "Missing argument 'MODEL'" in failed(["estimate"], "usage", capsys)


def test_unreadable(tmp_path: Path, capsys: Streams) -> None:
    (tmp_path / "text.pt").write_text("weights, I promise")
    given = ["estimate", str(tmp_path / "text.pt"), "--target", "rpi4"]
    assert "text.pt" in failed(given, "unreadable", capsys)
    given = ["estimate", str(tmp_path / "none.pt"), "--target", "rpi4"]
    assert "none.pt" in failed(given, "unreadable", capsys)


def test_unsupported(tmp_path: Path, capsys: Streams) -> None:
    path = tmp_path / "model.pt"
    torch.save(nn.Sequential(nn.Conv2d(3, 8, 3)), path)
    given = ["estimate", str(path), "--target", "rpi4", "--input", "1,5,16,16"]
    assert "give the right shape with --input" in failed(given, "unsupported", capsys)


def test_an_unreachable_goal(model: str, tmp_path: Path, capsys: Streams) -> None:
    given = ["prune", model, "--target", "rpi4", *INPUT, "-o", str(tmp_path / "out")]
    assert "closest: 0." in failed([*given, "--macs", "0.001"], "unreachable", capsys)
    assert "cannot be reached" in failed([*given, "--speedup", "99"], "unreachable", capsys)


def test_a_device(model: str, capsys: Streams) -> None:
    given = ["bench", model.replace(".pt", ".tflite"), "--on", "ssh://nobody@nowhere.invalid"]
    code = main(given)
    assert code in (EXIT_CODES["device"], EXIT_CODES["unreadable"])
    assert capsys.readouterr().err.count("\n") == 1


def test_interrupted(model: str, capsys: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(network, "capture", interrupt)
    message = failed(["inspect", model], "interrupted", capsys)
    assert message == "interrupted; nothing was written"


def test_what_is_written_and_what_failed_are_one_object(
    tmp_path: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sums.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 4, 3)\n"
        "    def forward(self, x):\n"
        "        return torch.linalg.det(self.conv(x))\n"
    )
    monkeypatch.chdir(tmp_path)
    convolution = nn.Conv2d(3, 4, 3)
    torch.save({f"conv.{k}": v for k, v in convolution.state_dict().items()}, "weights.pt")
    given = ["weights.pt", "--arch", "sums:Net", "--target", "rpi4", *INPUT, "--runs", "0"]
    assert main([*given, "-o", "out", "--json"]) == EXIT_CODES["unsupported"]
    found = json.loads(capsys.readouterr().out)
    assert found["error"]["kind"] == "unsupported"
    assert [a["file"] for a in found["artefacts"]] == ["model.onnx"]


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("prune", ("--keep-ratio", "2"), "--keep-ratio 2: give the share to keep"),
        ("prune", ("--macs", "0.5", "--criterion", "he"), "--criterion he looks at images"),
        (
            "prune",
            ("--macs", "0.5", "--keep-ratio", "0.5"),
            "give exactly one of --macs, --",
        ),
        ("compile", ("--min-snr", "30"), "--min-snr is for int8 files; give --precision int8"),
        ("shrink", ("--images", "x", "--keep-blocks", "1"), "--keep-blocks and --keep-block-ratio"),
    ],
)
def test_parameters_are_told_as_the_commands_own_flags(
    command: str, words: tuple[str, ...], message: str, model: str, capsys: Streams
) -> None:
    assert main([command, model, "--target", "rpi4", *INPUT, *words]) == EXIT_CODES["usage"]
    assert capsys.readouterr().err.startswith(f"shrinkc: {message}")


def test_other_words_lose_their_backticks() -> None:
    run = Run(flags={"budget_ms": "--budget-ms"})
    assert run.flagged("`budget_ms` 0: see `docs`") == "--budget-ms 0: see docs"


def test_images_that_are_none(model: str, tmp_path: Path, capsys: Streams) -> None:
    noise_images(tmp_path / "images")
    given = ["compile", model, "--target", "rpi4", *INPUT, "--images", str(tmp_path / "nowhere")]
    assert "check --images" in failed(given, "unreadable", capsys)
