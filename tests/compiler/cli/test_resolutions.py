"""--resolutions, from the images of a folder to files, reports and the plan done again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from json_command import run
from PIL import Image
from small_networks import bare_block
from torch import nn

from shrinkc.compiler.cli.main import main
from shrinkc.errors import EXIT_CODES

INPUT = ("--input", "1,3,48,48", "--runs", "0")
HOW = ("--resize", "54", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5")
FILES = ("plan.json", "plan.safetensors", "model.tflite", "model.onnx")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), *bare_block(8), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    path = tmp_path_factory.mktemp("model") / "net.pt"
    torch.save(net.eval(), path)
    return str(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 smooth images of 60×50 in four class folders."""
    root, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for index in range(24):
        folder = root / str(index % 4)
        folder.mkdir(exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 255, (5, 6, 3), dtype=np.uint8))
        coarse.resize((60, 50), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return str(root)


def test_from_images_to_files_and_again(
    model: str, images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again, exact = tmp_path / "out", tmp_path / "again", tmp_path / "exact"
    given = (model, "--target", "rpi4", *INPUT, "--images", images, *HOW)
    asked = ("--evaluation", images, "--speedup", "1.8", "--resolutions", "48,40,32")
    found = run(capsys, *given, *asked, "-o", str(out))
    plan, compiled = found["plan"], found["compiled"]
    side = plan["resolution"]["size"][0]
    assert plan["resolution"]["size"] == [side, side]
    assert plan["resolution"]["size_before"] == [48, 48]
    assert plan["before_ms"] / plan["after_ms"] >= 1.8
    (shape,) = compiled["input_shapes"].values()
    assert shape == [1, 3, side, side]
    how = compiled["preprocessing"]
    closer = json.loads((out / "plan.json").read_text())["resolution"]["closer"]
    assert (how["resize"], how["size"]) == (round(closer * 54 * side / 48), [side, side])
    note = f"the files read images of {side}×{side} instead of 48×48: the shorter side resized to "
    assert any(one.startswith(f"{note}{how['resize']} pixels") for one in compiled["notes"])
    told = {one.key: one.value for one in onnx.load(out / "model.onnx").metadata_props}
    assert told["shrinkc.size"] == f"{side}×{side}"
    assert str(how["resize"]) in told["shrinkc.fit"]
    assert told["shrinkc.fit"].encode() in (out / "model.tflite").read_bytes()
    assert f"max({how['resize']} / min(w, h)" in (out / "use_model.py").read_text()
    applied = ("apply", model, str(out), *INPUT, "--images", images, *HOW)
    run(capsys, *applied, "-o", str(again))
    for name in FILES:
        assert (again / name).read_bytes() == (out / name).read_bytes(), name
    run(capsys, *given, *asked, "-o", str(out))  # of the plan that is kept
    for name in FILES:
        assert (again / name).read_bytes() == (out / name).read_bytes(), name
    assert main([*applied, "-o", str(again)]) == 0
    shown = capsys.readouterr().out
    assert f"images of {side}×{side} instead of 48×48: saves" in shown
    assert main([*given, "-o", str(exact)]) == 0
    capsys.readouterr()
    compared = run(capsys, "compare", str(exact), str(out), "--runs", "3")
    for pair in compared["files"].values():
        assert pair["difference"] is None
        assert pair["speedup"] > 0
    assert main(["compare", str(exact), str(out), "--runs", "0"]) == 0
    assert "inputs or outputs are of other shapes" in capsys.readouterr().out
    files = (str(exact / "model.tflite"), str(out / "model.onnx"), "--runs", "0")
    seen = run(capsys, "compare", *files, "--images", images, *HOW)
    agreement = compiled["in_torch"]["agreement"]
    assert abs(seen["agreement"] - agreement) < 0.1  # the plan's own, but for int8
    assert main(["compare", *files]) == EXIT_CODES["usage"]
    assert "read inputs of other shapes; give --images" in capsys.readouterr().err


def test_a_frontier_tells_the_sizes(
    model: str, images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (model, "--target", "rpi4", *INPUT, "--images", images, *HOW, "--precision", "fp32")
    asked = ("--pareto", "4", "--resolutions", "40,32", "-o", str(tmp_path / "out"))
    rows = run(capsys, *given, *asked)["frontier"]
    sizes = [row["resolution"] and row["resolution"]["size"] for row in rows]
    assert sizes[0] is None
    assert any(sizes)
    for row, size in zip(rows, sizes, strict=True):
        report = json.loads((tmp_path / "out" / row["folder"] / "report.json").read_text())
        (shape,) = report["input_shapes"].values()
        assert shape[2:] == (size or [48, 48])
    assert main([*given, *asked]) == 0
    assert "images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--speedup", "2", "--resolutions", "40,x"), "--resolutions 40,x: give whole numbers"),
        (("--speedup", "2", "--resolutions", "40.5"), "--resolutions 40.5: give whole numbers"),
        (("--speedup", "2", "--resolutions", ""), "--resolutions : give whole numbers"),
        (("--speedup", "2", "--resolutions", "-40"), "--resolutions -40: give a whole number of 1"),
        (("--speedup", "2", "--resolutions", "64"), "--resolutions 64 is above"),
        (("--speedup", "2", "--resolutions", "48"), "48×48 is the network's own size"),
        (("--resolutions", "40"), "belong to a goal"),
    ],
)
def test_what_is_no_size(
    arguments: tuple[str, ...],
    said: str,
    model: str,
    images: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = (model, "--target", "rpi4", *INPUT, "--images", images, *arguments)
    assert main([*given, "-o", str(tmp_path / "out")]) == EXIT_CODES["usage"]
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
