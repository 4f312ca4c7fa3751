"""`shrinkc prune` from the command line, on a small network and noise for images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from noise_images import noise_images
from PIL import Image
from torch import nn

from shrinkc.compiler.cli.main import main
from shrinkc.compiler.measure import speedup
from shrinkc.compiler.model_file.file import load_model_file
from shrinkc.compiler.width.methods import NAMES
from shrinkc.compiler.width.search.methods import SEARCHES
from shrinkc.errors import EXIT_CODES, Kind

INPUT = ("--target", "rpi4", "--input", "1,3,16,16", "--runs", "0")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 24), (24, 32), (32, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs)]
        layers.append(nn.ReLU())
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))
    for norm in net:
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2)
    path = tmp_path_factory.mktemp("model") / "net.pt"
    torch.save(net, path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_images(tmp_path_factory.mktemp("images"))


def pruned(
    capsys: pytest.CaptureFixture[str], model: Path, out: Path, *more: str
) -> dict[str, Any]:
    assert main(["prune", str(model), *INPUT, *more, "-o", str(out), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_no_images_are_needed_for_norms(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "out", tmp_path / "widths.png"
    result = pruned(capsys, model, out, "--speedup", "1.03", "--plot", str(plot))
    shown = result["pruned"]
    assert shown["predicted_ms_after"] <= shown["predicted_ms_before"] / 1.03
    assert all(w["after"] % 8 == 0 for w in shown["widths"])
    assert any(w["after"] < w["before"] for w in shown["widths"])
    compiled = result["compiled"]
    assert compiled["max_relative_error"] < 1e-4
    assert compiled["predicted_ms_before"] == pytest.approx(shown["predicted_ms_before"])
    assert compiled["predicted_ms_after"] == pytest.approx(shown["predicted_ms_after"])
    assert compiled["after"]["macs"] < compiled["before"]["macs"]
    assert {p.name for p in out.iterdir()} >= {"model.onnx", "model.tflite", "model.safetensors"}
    graph, _ = load_model_file(out / "model.safetensors")
    made = [m.out_channels for m in graph.modules() if isinstance(m, nn.Conv2d)]
    assert made == [w["after"] for w in shown["widths"]]
    with Image.open(plot) as image:
        assert image.size[0] > 600


@pytest.mark.parametrize("criterion", NAMES)
def test_every_criterion(
    criterion: str,
    model: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = ("--macs", "0.5", "--criterion", criterion, "--images", str(images))
    learns = criterion == "mseb"
    more = (*more, *(("--epochs", "1", "--batch", "8") if learns else ("--steps", "1")))
    more = (*more, "--labels") if learns or criterion == "group-fisher" else more
    result = pruned(capsys, model, tmp_path / "out", *more)
    compiled = result["compiled"]
    assert compiled["after"]["macs"] <= 0.5 * compiled["before"]["macs"]
    assert result["pruned"]["criterion"] == criterion


def test_rounds_with_training_and_a_judge(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--criterion", "hrank", "--images", str(images), "--train", str(images))
    more = (*more, "--keep-ratio", "0.5", "--rounds", "2", "--epochs", "1", "--batch", "8")
    more = (*more, "--compensate", "--limit", "12", "--evaluation", str(images))
    result = pruned(capsys, model, tmp_path / "out", *more)["pruned"]
    assert all(abs(w["after"] - 0.5 * w["before"]) <= 4 for w in result["widths"])  # of 8 each
    assert len(result["history"]) == 2
    assert result["judged"]["images"] == 24
    work = tmp_path / "out.work"
    assert list(work.glob("*/fine-tuning-*/last.pt"))
    assert len(list(work.glob("*.jsonl"))) == 2  # the scores of both rounds


def test_over_parameterised_fine_tuning_ends_in_the_widths_that_were_chosen(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--train", str(images), "--macs", "0.5", "--epochs", "1", "--batch", "8")
    wide = (*more, "--chain-ratio", "2", "--evaluation", str(images))
    found = [pruned(capsys, model, tmp_path / str(i), *m) for i, m in enumerate((more, wide))]
    assert found[0]["pruned"]["widths"] == found[1]["pruned"]["widths"]
    told = [any("linear chains" in note for note in f["pruned"]["notes"]) for f in found]
    assert told == [False, True]
    assert found[1]["compiled"]["max_relative_error"] < 1e-4
    ms = [f["pruned"]["predicted_ms_after"] for f in found]
    assert ms[0] == ms[1]


def test_steps_of_distillation_move_the_weights(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[bytes] = []
    for steps in ("0", "3"):
        more = ("--criterion", "he", "--images", str(images), "--macs", "0.6", "--steps", steps)
        pruned(capsys, model, tmp_path / steps, *more)
        found.append((tmp_path / steps / "model.tflite").read_bytes())
    assert len(found[0]) == len(found[1])
    assert found[0] != found[1]


def test_in_order_chooses_channels_anew_and_keeps_the_widths(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[Any] = []
    files: list[bytes] = []
    for name, order in (("at-once", ()), ("in-order", ("--in-order",))):
        more = ("--criterion", "he", "--images", str(images), "--macs", "0.5", "--steps", "0")
        found.append(pruned(capsys, model, tmp_path / name, *more, *order)["pruned"])
        files.append((tmp_path / name / "model.tflite").read_bytes())
    assert found[0]["widths"] == found[1]["widths"]
    assert files[0] != files[1]


def test_a_penalty_is_trained_with_first(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--criterion", "slimming", "--images", str(images), "--labels", "--epochs", "1")
    more = (*more, "--params", "0.6", "--batch", "8", "--strength", "0.01")
    pruned(capsys, model, tmp_path / "out", *more)
    assert list((tmp_path / "out.work").glob("*/penalty/last.pt"))


def test_learned_scores_are_trained_for_first(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--criterion", "mseb", "--train", str(images), "--epochs", "1", "--batch", "8")
    found = pruned(capsys, model, tmp_path / "out", *more, "--macs", "0.6")
    assert list((tmp_path / "out.work").glob("mseb-*/last.pt"))
    assert found["pruned"]["notes"][0] == "scored by mseb in a training of its own, 1 epoch"


def test_published_iterations_from_the_command_line(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DropNet's rounds, each from the initial weights; HRank's groups, one by one."""
    some = ("--images", str(images), "--labels", "--epochs", "1", "--batch", "8")
    more = ("--criterion", "dropnet", "--allocation", "uniform", "--rounds", "2", "--macs", "0.6")
    pruned(capsys, model, tmp_path / "reset", *some, *more, "--initial", str(model))
    assert len(list((tmp_path / "reset.work").glob("*/round-1-*/last.pt"))) == 1
    more = ("--criterion", "hrank", "--one-by-one", "--macs", "0.5", "--multiple", "1")
    pruned(capsys, model, tmp_path / "ones", *some, *more)
    assert list((tmp_path / "ones.work").glob("*/group-1-*/last.pt"))


def test_the_growing_penalty_from_the_command_line(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = ("--images", str(images), "--labels", "--epochs", "1", "--batch", "8", "--macs", "0.6")
    more = ("--criterion", "group-sl", "--round-epochs", "1", "--strength", "0.01")
    result = pruned(capsys, model, tmp_path / "out", *some, *more)
    assert result["pruned"]["criterion"] == "group-sl"
    assert list((tmp_path / "out.work").glob("*/penalty/last.pt"))


def test_from_scratch_from_the_command_line(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = ("--train", str(images), "--epochs", "2", "--batch", "8", "--macs", "0.4")
    some = (*some, "--evaluation", str(images))
    result = pruned(capsys, model, tmp_path / "B", *some, "--from-scratch", "B")["pruned"]
    done = result["from_scratch"]
    assert done.pop("macs_ratio") >= 2.5
    assert done == {"kind": "B", "epochs": 4, "asked": 2, "images": 24, "start": "fresh"}
    assert len(result["history"]) == 4
    assert list((tmp_path / "B.work").glob("*/scratch-B-*/last.pt"))
    given = ("prune", str(model), *INPUT, *some, "--from-scratch", "E", "--initial", str(model))
    assert main([*given, "-o", str(tmp_path / "E")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Scratch-E: trained from its initial weights on 24 images for 2 epochs" in said


def test_the_report_for_people(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("prune", str(model), *INPUT, "--keep", "0=0.67", "-o", str(tmp_path / "out"))
    assert main([*arguments]) == 0
    said = capsys.readouterr().out
    assert "67%" in said
    assert "ms predicted" in said
    assert "not judged: give --evaluation DIR" in said


def test_a_ruined_network_says_so_first(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, unlabelled = torch.load(model, weights_only=False), str(images / "0")
    with torch.no_grad():
        net[-1].weight.normal_(std=100)  # else one class is the answer to all noise
        net[-1].bias -= net.eval()(torch.rand(16, 3, 16, 16)).mean(0)
    torch.save(net, tmp_path / "net.pt")
    given = (
        "prune",
        str(tmp_path / "net.pt"),
        *INPUT,
        "--criterion",
        "random",
        "--evaluation",
        unlabelled,
    )
    given = (*given, "--task", "classification", "--macs", "0.15", "-o", str(tmp_path / "out"))
    assert main([*given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["pruned"]
    assert found["judged"]["agreement"] < 0.97
    assert main([*given]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("it agrees with the original on only ")
    assert "about --macs 0." in first or "only a goal much milder than --macs 0.15" in first


OTHERS: dict[str, Kind] = {
    "cannot be reached: from": "unreachable",
    "closest: 0.": "unreachable",
    "nowhere: no such folder": "unreadable",
}


LOOKS = ("--macs", "0.5", "--images", "{images}")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ((), "give exactly one of --speedup, --budget-ms, --macs"),
        (("--speedup", "2", "--macs", "0.5"), "give exactly one of --speedup, --macs, not several"),
        (("--speedup", "0.9"), "--speedup 0.9: give more than 1"),
        (("--speedup", "99"), "cannot be reached: from"),
        (("--keep-ratio", "0"), "--keep-ratio 0: give the share to keep"),
        (("--keep-ratio", "1"), "--keep-ratio 1: give the share to keep"),
        (("--macs", "0.0001"), "closest: 0."),
        (("--keep", "0"), "--keep 0: give a channel group and a share"),
        (("--keep", "0=0"), "the group would vanish"),
        (("--keep", "zero=0.5"), "no channel group of that name"),
        (("--macs", "0.5", "--criterion", "magic"), "'magic' is not one of 'l1', 'l2'"),
        (("--macs", "0.5", "--criterion", "hrank"), "hrank looks at images; give --images, or a"),
        (
            ("--macs", "0.5", "--criterion", "group-fisher", "--images", "{images}"),
            "group-fisher needs class labels; give --labels",
        ),
        (("--macs", "0.5", "--compensate"), "--compensate looks at images"),
        (("--macs", "0.5", "--in-order"), "looks at images"),
        (
            ("--macs", "0.5", "--in-order", "--no-compensate", "--images", "{images}"),
            "compensates every layer",
        ),
        (("--macs", "0.5", "--steps", "9"), "--steps of distillation follow --compensate"),
        (("--macs", "0.5", "--epochs", "2"), "--epochs of what?"),
        (("--macs", "0.5", "--labels"), "--labels says that the folders"),
        (("--macs", "0.5", "--precision", "int8"), "int8 needs images"),
        (("--macs", "0.5", "--allocation", "best"), "'best' is not one of 'knapsack'"),
        (("--macs", "0.5", "--normalise", "max"), "'max' is not one of 'share'"),
        (("--macs", "0.5", "--rounds", "0"), "--rounds 0"),
        (("--macs", "0.5", "--every", "5"), "--every belongs to"),
        (("--macs", "0.5", "--multiple", "0"), "multiples of 0"),
        (
            ("--macs", "0.5", "--strength", "0.01"),
            "--strength has no effect here: it is for --crit",
        ),
        (("--macs", "0.5", "--rounds", "3"), "--rounds has no effect here: it is for pruning and"),
        (("--macs", "0.5", "--round-epochs", "2"), "--round-epochs has no effect here"),
        (("--macs", "0.5", "--batch", "16"), "--batch has no effect here: it is for a training"),
        (("--macs", "0.5", "--learning-rate", "1"), "--learning-rate has no effect here"),
        (("--macs", "0.5", "--chain-ratio", "2"), "--chain-ratio has no effect here"),
        (("--macs", "0.5", "--chain-ratio", "-1"), "--chain-ratio"),
        (("--macs", "0.5", "--seed", "3"), "it is for a training, and --criterion random"),
        (("--macs", "0.5", "--limit", "9"), "--limit has no effect here"),
        (
            ("--macs", "0.5", "--images", "{images}", "--limit", "9", "--no-compensate"),
            "--limit has",
        ),
        (("--macs", "0.5", "--images", "{images}", "--labels"), "it is for --criterion group-fish"),
        (("--macs", "0.5", "--normalise", "cumulative"), "such as those of --criterion cap"),
        (("--keep-ratio", "0.5", "--normalise", "sum"), "it is for --allocation knapsack and gl"),
        (("--keep", "0=0.5", "--floor", "0.2"), "--floor has no effect here: it is for a goal"),
        (("--keep", "0=0.5", "--allocation", "global"), "--allocation has no effect here"),
        (("--keep", "0=0.5", "--candidates", "5"), "--candidates has no effect here"),
        (("--keep", "0=0.5", "--keep", "0=0.6"), "--keep 0: two shares for one group"),
        (("--macs", "0.5", "--mean", "0.5"), "--mean has no effect here: it is for reading images"),
        (("--macs", "0.5", "--classes", "c.json"), "--classes has no effect here"),
        (("--macs", "0.5", "--threads", "2"), "--threads has no effect here: it is for measure"),
        (("--macs", "0.5", "--images", "nowhere", "--compensate"), "nowhere: no such folder"),
        (("--macs", "0.5", "--method", "abc"), "--method abc judges candidates on images"),
        (
            ("--macs", "0.5", "--evaluations", "9"),
            "--evaluations has no effect here: it is for",
        ),
        (("--macs", "0.5", "--rates", "0.3"), "--rates has no effect here: it is for --method"),
        (
            ("--macs", "0.5", "--method", "cacp", "--rates", "a", "--images", "{images}"),
            "--rates a: give numbers, such as 0.3,0.7",
        ),
        (("--macs", "0.5", "--jobs", "2"), "--jobs has no effect here: it is for --method abc"),
        (("--keep", "0=0.5", "--images", "{images}", "--method", "abc"), "for a goal"),
        (
            (*LOOKS, "--allocation", "search", "--in-order"),
            "--in-order and --allocation search both say what stays",
        ),
        (
            (*LOOKS, "--allocation", "search", "--one-by-one"),
            "--one-by-one and --allocation search both say what stays",
        ),
        ((*LOOKS, "--in-order", "--one-by-one"), "--one-by-one is an order of its own"),
        (
            (*LOOKS, "--allocation", "sensitivity", "--method", "abc"),
            "--allocation has no effect here: it is for widths that are allocated, and --method",
        ),
        (
            (*LOOKS, "--allocation", "search", "--method", "ga"),
            "--method ga chooses channels, and so does --allocation search",
        ),
        (
            (*LOOKS, "--one-by-one", "--method", "ga"),
            "--method ga chooses channels, and so does --one-by-one",
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
    code = EXIT_CODES[OTHERS.get(message, "usage")]
    assert main(["prune", str(model), *INPUT, *filled, "-o", str(out)]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not out.exists()


LOOK = ("--input", "1,3,16,16")


def test_without_a_target_the_network_alone_is_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = ("prune", str(model), "--input", "1,3,16,16", "--macs", "0.5", "-o", str(out))
    assert main([*given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["compiled"] is None
    assert found["pruned"]["predicted_speedup"] is None
    assert [path.name for path in out.iterdir()] == ["model.safetensors"]
    assert main([*given]) == 0
    assert "out/: model.safetensors" in capsys.readouterr().out
    compiled = ("compile", str(out / "model.safetensors"), "--target", "rpi4", "--runs", "0")
    assert main([*compiled, "-o", str(tmp_path / "compiled")]) == 0
    assert main([*given[:-4], "--speedup", "2"]) == EXIT_CODES["usage"]
    assert "give --target" in capsys.readouterr().err


@pytest.mark.parametrize("labelled", [True, False])
def test_sensitivity(
    labelled: bool,
    model: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plot = tmp_path / "curves.png"
    given = ("sensitivity", str(model), *LOOK, "--images", str(images), "--plot", str(plot))
    more = ("--labels",) if labelled else ()
    assert main([*given, *more, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 24
    assert result["judged"] == ("top-1" if labelled else "agreement with the original")
    curves = {curve["group"]: curve for curve in result["curves"]}
    assert len(curves) == 3
    for curve in curves.values():
        assert len(curve["removed"]) == len(curve["values"])
        assert all(0 <= value <= 1 for value in curve["values"])
        assert labelled or curve["values"][0] == 1
    with Image.open(plot) as image:
        assert image.size[0] > 600
    assert main([*given, *more]) == 0
    assert "−50%" in capsys.readouterr().out


def test_sensitivity_needs_images(
    model: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("sensitivity", str(model), *LOOK)
    assert main([*given]) == 2
    assert "give --images" in capsys.readouterr().err
    assert main([*given, "--images", str(images), "--criterion", "group-fisher"]) == 2
    assert "needs labels" in capsys.readouterr().err


def test_this_machine_as_the_target_is_measured(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speedup, "RUNS", 100)
    given = ("prune", str(model), "--target", "host", *LOOK, "--runs", "0", "--multiple", "1")
    assert main([*given, "--macs", "0.6", "-o", str(tmp_path / "out")]) == 0
    assert "measured here, model.tflite, fp32 before and after: " in capsys.readouterr().out


@pytest.mark.parametrize("method", [method.name for method in SEARCHES])
def test_every_search(
    method: str, model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--method", method, "--images", str(images), "--labels", "--multiple", "4")
    if method == "cacp":
        more = (*more, "--rates", "0.7,0.8")
    more = (*more, "--evaluations", "5", "--macs", "0.6")
    if method in ("dmcp", "meta"):
        more = (*more, "--train", str(images), "--epochs", "1", "--round-epochs", "1")
    else:
        more = (*more, "--steps", "0")
    first = pruned(capsys, model, tmp_path / "out", *more)
    work = tmp_path / "out.work"
    kept = {path: path.read_bytes() for path in work.rglob("*.jsonl")}
    again = pruned(capsys, model, tmp_path / "out", *more)
    assert first["pruned"]["widths"] == again["pruned"]["widths"]
    assert first["pruned"]["notes"] == again["pruned"]["notes"]
    assert kept == {path: path.read_bytes() for path in work.rglob("*.jsonl")}  # judged once
    (note,) = [note for note in first["pruned"]["notes"] if f"by {method}" in note]
    assert "images held out of --images" in note
    compiled = first["compiled"]
    assert compiled["after"]["macs"] <= 0.6 * compiled["before"]["macs"]
    beside = [tmp_path / f"out-{rate}" for rate in ("0.7", "0.8")] if method == "cacp" else []
    assert list(first["others"]) == [str(path) for path in beside]
    assert all((path / "model.tflite").is_file() for path in beside)
