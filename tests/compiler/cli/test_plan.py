"""Planning, replaying and comparing from the command line, on a small network and noise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from json_command import run
from noise_images import noise_images
from small_networks import bare_block
from torch import nn

from shrinkc.compiler.cli.main import main
from shrinkc.errors import EXIT_CODES

INPUT = ("--input", "1,3,16,16", "--runs", "0")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> str:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), *bare_block(8), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    path = tmp_path / "net.pt"
    torch.save(net, path)
    return str(path)


@pytest.fixture
def images(tmp_path: Path) -> str:
    return str(noise_images(tmp_path / "images"))


def test_planned_replayed_without_images_and_compared(
    model: str, images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    given = (model, "--target", "rpi4", *INPUT, "--images", images)
    found = run(capsys, *given, "--speedup", "1.45", "-o", str(out))
    plan = found["plan"]
    assert plan["precision"] == "int8"
    assert plan["before_ms"] / plan["after_ms"] >= 1.45
    assert plan["promise"]["images"] == 6
    assert not plan["promise"]["labelled"]
    names = {"plan.json", "plan.safetensors", "model.onnx", "model.tflite", "report.json"}
    assert {p.name for p in out.iterdir()} >= names
    noise = json.loads((out / "report.json").read_text())["noise"]
    assert noise
    run(capsys, *given, "--speedup", "1.45", "-o", str(out))  # of the plan that is kept
    assert json.loads((out / "report.json").read_text())["noise"] == noise
    assert found["compiled"]["predicted_ms_after"] == pytest.approx(plan["after_ms"])
    applied = run(capsys, "apply", model, str(out / "plan.json"), *INPUT, "-o", str(again))
    assert applied["precision"] == "int8"
    plans = ("plan.json", "plan.safetensors")
    for name in plans:
        assert (again / name).read_bytes() == (out / name).read_bytes(), name
    seen = tmp_path / "seen"  # images tell what files say of their input
    assert main(["apply", model, str(out), *INPUT, "--images", images, "-o", str(seen)]) == 0
    for name in (*plans, "model.tflite", "model.onnx"):
        assert (seen / name).read_bytes() == (out / name).read_bytes(), name
    capsys.readouterr()
    compared = run(capsys, "compare", str(out), str(again), "--runs", "3")
    assert compared["files"]["model.tflite"]["difference"] == 0
    assert compared["files"]["model.tflite"]["speedup"] > 0
    assert main(["compare", str(out), str(again), "--runs", "3"]) == 0
    assert "times as fast as the first" in capsys.readouterr().out


def test_int8_is_written_for_the_planned_layers_though_two_could_be_one(
    images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1), nn.ReLU6(), *bare_block(8), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    torch.save(net, tmp_path / "net.pt")
    given = (str(tmp_path / "net.pt"), "--target", "rpi4", *INPUT)
    found = run(
        *(capsys, *given, "--images", images, "--speedup", "1.5", "--precision", "int8"),
        *("-o", str(tmp_path / "out")),
    )
    assert not any(step["name"] == "merge-linear" for step in found["compiled"]["passes"])
    assert found["compiled"]["predicted_ms_after"] == pytest.approx(found["plan"]["after_ms"])


@pytest.mark.parametrize(("speedup", "precision"), [("1.05", "int8"), ("1.45", None)])
def test_where_the_precision_is_enough_it_says_so(
    model: str,
    images: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    speedup: str,
    precision: str | None,
) -> None:
    """A budget between int8 alone and the network as it is; and one that takes more."""
    given = (model, "--target", "rpi4", *INPUT, "--images", images, "--speedup", speedup)
    assert main([*given, "-o", str(tmp_path / "out"), "--precision", "int8"]) == 0
    said = capsys.readouterr().out
    assert (f"{precision} alone: no layer is narrowed" in said) == (precision is not None)


def test_a_frontier_has_a_folder_for_every_point(
    model: str, images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = (model, "--target", "rpi4", *INPUT, "--images", images, "--pareto", "4")
    rows = run(capsys, *given, "-o", str(out))["frontier"]
    assert rows[0]["predicted_speedup"] == 1.0
    assert len(rows) >= 3
    for row in rows:
        assert (out / row["folder"] / "model.onnx").exists()
        assert (out / row["folder"] / "plan.json").exists()


def test_a_drop_is_met(
    model: str, images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (model, "--target", "rpi4", *INPUT, "--images", images, "--max-drop", "50")
    plan = run(capsys, *given, "-o", str(tmp_path / "out"))["plan"]
    assert plan["promise"]["drop"] <= 0.5
    assert plan["before_ms"] / plan["after_ms"] > 1.2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--speedup", "1"), "--speedup 1: give more than 1"),
        (("--speedup", "nan"), "--speedup nan: give more than 1"),
        (("--speedup", "99"), "the fastest is"),
        (("--budget-ms", "0"), "--budget-ms 0: give milliseconds above 0"),
        (("--budget-ms", "1e6"), "fit into 1e+06 ms already"),
        (("--max-drop", "-1"), "--max-drop -1: give points"),
        (("--pareto", "2"), "--pareto 2: give 3 to"),
        (
            ("--speedup", "2", "--pareto", "5"),
            "give exactly one of --speedup, --pareto, not several",
        ),
        (("--speedup", "2", "--precision", "fp16"), "'fp16' is not one of 'fp32', 'int8'"),
        (("--train", "x"), "belong to a goal"),
        (("--jobs", "2"), "belong to a goal"),
        (("--ray", "head:6379"), "belong to a goal"),
        (("--speedup", "2", "--jobs", "two"), "--jobs two: give a number of processes, or ray"),
        (("--speedup", "2", "--min-snr", "30"), "are for compiling without a goal"),
    ],
)
def test_bad_goals(
    arguments: tuple[str, ...],
    said: str,
    model: str,
    images: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = (model, "--target", "rpi4", *INPUT, "--images", images, *arguments)
    code = EXIT_CODES["unreachable" if said == "the fastest is" else "usage"]
    assert main([*given, "-o", str(tmp_path / "out")]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_planning_needs_images(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([model, "--target", "rpi4", *INPUT, "--speedup", "2"]) == 2
    assert "give --images; no labels" in capsys.readouterr().err


def test_comparing_what_shrinkc_did_not_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in ("[]", "{", '{"artefacts": []}'):
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "report.json").write_text(content)
        compared = ["compare", str(tmp_path / "a"), str(tmp_path / "b")]
        damaged = content != '{"artefacts": []}'
        assert main(compared) == EXIT_CODES["unreadable" if damaged else "usage"]
        assert capsys.readouterr().err.count("\n") == 1


def test_several_targets_have_a_folder_each(
    model: str, images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, exact, one = tmp_path / "out", tmp_path / "exact", tmp_path / "one"
    given = (model, "--target", "rpi4,rpi5", *INPUT)
    planned = (*given, "--images", images, "--speedup", "1.03", "--precision", "fp32")
    found = run(capsys, *planned, "-o", str(out))
    assert list(found["targets"]) == ["rpi4", "rpi5"]
    plans = [one["plan"] for one in found["targets"].values()]
    assert all(plan["before_ms"] / plan["after_ms"] >= 1.03 for plan in plans)
    assert found["targets"]["rpi5"]["compiled"]["target"] == "rpi5"
    assert {p.name for p in out.iterdir()} == {"rpi4", "rpi5", "comparison.html"}
    assert run(capsys, *given, "-o", str(exact))["targets"].keys() == {"rpi4", "rpi5"}
    assert (exact / "rpi5" / "model.tflite").exists()
    worst = run(capsys, *planned, "--worst-case", "-o", str(one))
    assert all(t["before_ms"] / t["after_ms"] >= 1.03 for t in worst["on"].values())
    assert (one / "model.tflite").exists()
    assert main([*planned, "-o", str(tmp_path / "shown")]) == 0
    shown = capsys.readouterr().out
    assert "comparison.html" in shown
    assert "rpi5" in shown


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--target", "rpi4,rpi4"), "--target has rpi4 more than once"),
        (("--target", "rpi4,"), "unknown target ''"),
        (("--target", "rpi4,rpi5", "--pareto", "4"), "--pareto is for one target"),
        (("--target", "rpi4", "--worst-case", "--speedup", "2"), "--worst-case is for several"),
        (("--target", "rpi4,rpi5", "--worst-case", "--max-drop", "2"), "max-drop"),
        (("--target", "rpi4,rpi5", "--worst-case", "--pareto", "4"), "--pareto is for one"),
        (
            ("--target", "rpi4,rpi5", "--worst-case", "--speedup", "2", "--resolutions", "8"),
            "--worst-case and --resolutions",
        ),
    ],
)
def test_targets_that_do_not_go_together(
    asked: tuple[str, ...],
    said: str,
    model: str,
    images: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    goal = () if len(asked) == 2 else ("--images", images)
    assert main([model, *INPUT, *asked, *goal]) == EXIT_CODES["usage"]
    assert said in capsys.readouterr().err
