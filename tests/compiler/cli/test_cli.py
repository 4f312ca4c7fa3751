"""The command line as a user meets it: one line and an exit code for what they can cause."""

from __future__ import annotations

import json
import os
import pickle
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from noise_images import noise_images
from torch import nn

from shrinkc.compiler.cli.main import main
from shrinkc.compiler.report.html import html_report
from shrinkc.errors import EXIT_CODES, Kind

# A pickled module: torch.nn classes only, so that it loads without --trust.
MODEL = nn.Sequential(
    nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(),
    nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 16, 1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
)  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(MODEL, tmp_path / "model.pt")
    return tmp_path / "model.pt"


Streams = pytest.CaptureFixture[str]
SMALL = ("--input", "1,3,32,32", "--runs", "2")


def compile_(model: Path, out: Path, *more: str) -> int:
    return main([str(model), "--target", "rpi4", *SMALL, "-o", str(out), *more])


def one_line(streams: Streams) -> str:
    captured = streams.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("shrinkc: ")
    return lines[0]


def test_compile_writes_everything(model: Path, tmp_path: Path, capsys: Streams) -> None:
    out = tmp_path / "out"
    assert compile_(model, out, "--json") == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert captured.err == ""
    names = {"model.onnx", "model.tflite", "model.safetensors", "report.html", "report.json"}
    assert {p.name for p in out.iterdir()} == {*names, "use_model.py"}
    assert json.loads((out / "report.json").read_text())["target"] == "rpi4"
    assert report["max_relative_error"] < 1e-4
    assert 0 < report["predicted_ms_after"] <= report["predicted_ms_before"]
    assert {a["name"] for a in report["artefacts"]} == {"onnx", "tflite"}
    assert all(a["measured_ms"] > 0 for a in report["artefacts"])
    folds = [c for c in report["changes"] if c["pass"] == "fold-batch-norm"]
    assert len(folds) == 1


def test_the_page_is_made_of_the_json(model: Path, tmp_path: Path) -> None:
    assert compile_(model, tmp_path / "an out") == 0
    report = json.loads((tmp_path / "an out" / "report.json").read_text("utf-8"))
    page = (tmp_path / "an out" / "report.html").read_text("utf-8")
    assert page == html_report(report)
    typed = ("shrinkc", str(model), "--target", "rpi4", *SMALL, "-o", str(tmp_path / "an out"))
    assert shlex.split(report["command"]) == list(typed)
    assert report["predicted_ms_before_in_precision"] == report["predicted_ms_before"]
    assert report["prediction_before"]["total_ms"] == report["predicted_ms_before"]
    assert report["table"]["kind"] == "fitted"
    for file in report["artefacts"]:
        assert 1 << 16 < file["memory_bytes"] < 1 << 30
        assert file["memory_bytes_before"] > 1 << 16
        assert file["bytes_before"] > 1 << 10


def test_memory_is_not_measured_when_nothing_is(model: Path, tmp_path: Path) -> None:
    assert compile_(model, tmp_path / "out", "--runs", "0") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert [file["memory_bytes"] for file in report["artefacts"]] == [None, None]


def test_the_own_file_compiles_again(model: Path, tmp_path: Path, capsys: Streams) -> None:
    assert compile_(model, tmp_path / "a", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    own = str(tmp_path / "a" / "model.safetensors")
    again = [own, "--target", "rpi4", "--runs", "0", "-o", str(tmp_path / "b"), "--json"]
    assert main(again) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["predicted_ms_after"] == pytest.approx(first["predicted_ms_after"])


def test_the_table_is_for_people(model: Path, tmp_path: Path, capsys: Streams) -> None:
    assert compile_(model, tmp_path / "out") == 0
    shown = capsys.readouterr().out
    for expected in ("predicted on rpi4", "measured here", "largest error", "model.tflite"):
        assert expected in shown


def test_estimate(model: Path, capsys: Streams) -> None:
    assert main(["estimate", str(model), "--target", "rpi4", *SMALL[:2], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["target"] == "rpi4/tflite-xnnpack"
    assert {"name", "op", "ms", "source"} <= found["layers"][0].keys()
    total = sum(layer["ms"] for layer in found["layers"]) + found["overhead_ms"]
    assert found["total_ms"] == pytest.approx(total)


def test_estimate_on_the_host_runs_the_operators(model: Path, capsys: Streams) -> None:
    assert main(["estimate", str(model), "--target", "host", *SMALL[:2], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {layer["source"] for layer in found["layers"]} == {"measured here"}
    assert found["total_ms"] > 0


def test_inspect(model: Path, capsys: Streams) -> None:
    assert main(["inspect", str(model), "--input", "1,3,32,32", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["unsupported"] == []
    assert [s["nodes"] for s in found["linear_segments"]] == [["_3", "_4"]]
    assert [g["channels"] for g in found["channel_groups"]]
    assert {p["reason"] for p in found["protected_channels"]} == {"an output of the network"}
    assert main(["inspect", str(model), "--input", "1,3,32,32"]) == 0
    assert "stay: an output of the network" in capsys.readouterr().out


def test_inspect_prices_what_could_merge(tmp_path: Path, capsys: Streams) -> None:
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.ReLU())
    path = tmp_path / "net.pt"
    torch.save(nn.Sequential(*layers, nn.MaxPool2d(2)), path)
    given = ["inspect", str(path), "--input", "1,3,16,16"]
    assert main([*given, "--target", "rpi4", "--precision", "int8", "--json"]) == 0
    (span,) = json.loads(capsys.readouterr().out)["spans"]
    assert span["becomes"]["kernel"] == [3, 3]
    assert (span["becomes"]["in_channels"], span["becomes"]["out_channels"]) == (3, 4)
    assert 0 < span["ms_after"] < span["ms_before"]
    assert main(given) == 0
    assert "3×3 3 → 4" in capsys.readouterr().out
    assert main([*given, "--target", "no-such-board"]) == 2
    assert "no-such-board" in capsys.readouterr().err


def test_inspect_names_what_tflite_lacks(tmp_path: Path, capsys: Streams) -> None:
    path = saved(tmp_path, nn.Sequential(nn.GRU(3, 4, batch_first=True)))
    assert main(["inspect", str(path), "--input", "1,257,3", "--json"]) == 0
    (problem,) = json.loads(capsys.readouterr().out)["unsupported"]
    assert "TFLite" in problem["reason"]
    assert "257" in problem["reason"]


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_bench(model: Path, tmp_path: Path, name: str, capsys: Streams) -> None:
    assert compile_(model, tmp_path / "out", "--json") == 0
    capsys.readouterr()
    assert main(["bench", str(tmp_path / "out" / name), "--runs", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["device"] == "host"
    assert found["peak_memory_bytes"] > found["idle_memory_bytes"] > 0
    assert found["runs"] == 5
    assert found["median_ms"] > 0


def test_int8(model: Path, tmp_path: Path, capsys: Streams) -> None:
    pytest.importorskip("ai_edge_quantizer")
    images = tmp_path / "images"
    for label in ("0", "1", "2"):
        (images / label).mkdir(parents=True)
        for i in range(4):
            array = np.random.default_rng(i).random((3, 32, 32), dtype=np.float32)
            np.save(images / label / f"{i}.npy", array)
    options = ("--precision", "int8", "--images", str(images), "--json")
    assert compile_(model, tmp_path / "out", *options) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["calibration_images"]) == (6, 6)
    for artefact in report["artefacts"]:
        assert artefact["precision"] == "int8"
        assert artefact["agreement"] >= 0.8
        assert 0 < artefact["max_relative_error"] < 0.2
    assert report["max_relative_error"] < 1e-4  # that of the fp32 files before
    assert [n["precision"] for n in report["noise"]] == ["int8"] * 3
    assert all(20 < n["snr_db"] < 70 for n in report["noise"])
    assert report["notes"][0] == "int8 was calibrated on 6 images; give 32 or more"


def test_classes_in_another_order_are_noticed(tmp_path: Path, capsys: Streams) -> None:
    images = noise_images(tmp_path / "images")
    network = nn.Sequential(nn.Conv2d(3, 9, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        network[0].bias[5] = 100.0  # the answer is always 5
    path = saved(tmp_path, network)
    given = [str(path), "--target", "rpi4", "--input", "1,3,16,16", "--images", str(images)]
    given += ["--runs", "0", "-o", str(tmp_path / "out"), "--json"]
    assert main(given) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert note.startswith("the network itself is right on 0.0% of the images")
    assert "--classes" in note
    order = tmp_path / "order.json"
    order.write_text(json.dumps({str(folder): folder + 5 for folder in range(4)}))
    assert main([*given, "--classes", str(order)]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []


def test_int8_as_asked_for(model: Path, tmp_path: Path, capsys: Streams) -> None:
    pytest.importorskip("ai_edge_quantizer")
    images = noise_images(tmp_path / "images")
    options = ("--precision", "int8", "--images", str(images), "--int8-tuning", "both")
    out = tmp_path / "out"
    assert compile_(model, out, *options, "--keep-fp32", "_4", "--min-snr", "20") == 0
    report = json.loads((out / "report.json").read_text())
    assert {n["layer"]: n["precision"] for n in report["noise"]}["_4"] == "fp32"
    assert "fp32 in the int8 files: _4" in report["notes"]
    assert "equalise-channels" in {p["name"] for p in report["passes"]}
    assert "signal to noise" in capsys.readouterr().out
    assert compile_(model, tmp_path / "no", *options, "--keep-fp32", "_44") == 2
    assert "--keep-fp32 _44: no such layer in the deployed network; near it: _4" in one_line(capsys)
    assert not (tmp_path / "no").exists()


def test_unreadable_images_are_named(model: Path, tmp_path: Path, capsys: Streams) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for i in range(40):
        np.save(images / f"{i:02}.npy", np.zeros((32, 32, 3), np.uint8))
    (images / "07.npy").write_bytes(b"no image")
    assert compile_(model, tmp_path / "out", "--images", str(images), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 39
    assert any("07.npy" in note for note in report["notes"])


class Command:
    """What a hostile pickle would run."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.witness}",)


def bad_models(folder: Path) -> dict[str, Path]:
    files = {name: folder / f"{name}.pt" for name in ("empty", "text", "command", "truncated")}
    files["empty"].touch()
    files["text"].write_text("weights, I promise")
    files["command"].write_bytes(pickle.dumps(Command(folder / "witness")))
    torch.save(MODEL, files["truncated"])
    data = files["truncated"].read_bytes()
    files["truncated"].write_bytes(data[: len(data) // 2])
    files["missing"] = folder / "missing.pt"
    return files


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "command", "truncated"])
def test_bad_files(kind: str, tmp_path: Path, capsys: Streams) -> None:
    path = bad_models(tmp_path)[kind]
    code = EXIT_CODES["usage" if kind == "missing" else "unreadable"]
    assert compile_(path, tmp_path / "out") == code
    assert path.name in one_line(capsys)
    assert not (tmp_path / "witness").exists()
    assert not (tmp_path / "out").exists()


def saved(folder: Path, network: nn.Module) -> Path:
    torch.save(network, folder / "other.pt")
    return folder / "other.pt"


def test_a_model_without_layers(tmp_path: Path, capsys: Streams) -> None:
    path = saved(tmp_path, nn.Sequential(nn.Flatten(), nn.ReLU()))
    assert compile_(path, tmp_path / "out") == 2
    assert "no convolution, linear or recurrent layer" in one_line(capsys)


def test_nan_weights(tmp_path: Path, capsys: Streams) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    network[0].weight.data[0] = float("nan")
    assert compile_(saved(tmp_path, network), tmp_path / "out") == EXIT_CODES["unreadable"]
    assert "0.weight" in one_line(capsys)


OTHERS: dict[tuple[str, ...], Kind] = {
    ("--input", "1,5,32,32"): "unsupported",
    ("--images", "nowhere"): "unreadable",
}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--target", "rpi9"), "known: host, gpu, odroid-n2"),
        (("--input", "1,5,32,32"), "--input"),
        (("--input", "banana"), "--input banana"),
        (("--precision", "int4"), "'fp32', 'int8'"),
        (("--precision", "int8"), "--images"),
        (("--keep-fp32", "_0"), "give --precision int8 too"),
        (("--min-snr", "30"), "give --precision int8 too"),
        (("--int8-tuning", "bias"), "give --precision int8 too"),
        (("--opset", "7"), "--opset 7: give 13 to"),
        (("--merge", "maybe"), "'auto', 'all', 'none'"),
        (("--images", "nowhere"), "nowhere"),
        (("--no-such-option",), "--no-such-option"),
        (("--runs", "many"), "--runs"),
    ],
)
def test_wrong_arguments(
    model: Path, tmp_path: Path, capsys: Streams, arguments: tuple[str, ...], expected: str
) -> None:
    base = {"--target": "rpi4", "--input": "1,3,32,32", "-o": str(tmp_path / "out")}
    base.update({arguments[0]: arguments[1]} if len(arguments) == 2 else {})
    flat = [part for pair in base.items() for part in pair]
    extra = list(arguments) if len(arguments) == 1 else []
    assert main([str(model), *flat, *extra]) == EXIT_CODES[OTHERS.get(arguments, "usage")]
    assert expected in one_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--int8-tuning", "all"), "'none', 'bias', 'equalise', 'both'"),
        (("--min-snr", "nan"), "--min-snr nan: give decibels"),
        (("--min-snr", "1e9"), "give decibels"),
    ],
)
def test_wrong_arguments_of_int8(
    model: Path, tmp_path: Path, capsys: Streams, arguments: tuple[str, ...], expected: str
) -> None:
    assert compile_(model, tmp_path / "out", "--precision", "int8", *arguments) == 2
    assert expected in one_line(capsys)


def test_what_tflite_cannot_is_named_and_onnx_still_written(
    tmp_path: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 4, 3)\n"
        "    def forward(self, x):\n"
        "        return torch.linalg.det(self.conv(x))\n"
    )
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3)).state_dict(), "weights.pt")
    weights = torch.load("weights.pt", weights_only=True)
    torch.save({f"conv.{k[2:]}": v for k, v in weights.items()}, "weights.pt")
    arguments = ("weights.pt", "--arch", "mine:Net", "--target", "rpi4", *SMALL)
    assert main([*arguments, "-o", "out"]) == EXIT_CODES["unsupported"]
    shown, error = capsys.readouterr()
    assert "out/: model.onnx, report.html, report.json" in shown
    assert "det" in error
    assert Path("out/model.onnx").exists()
    assert not Path("out/model.tflite").exists()


def test_earlier_results_survive_a_failure(model: Path, tmp_path: Path, capsys: Streams) -> None:
    out = tmp_path / "out"
    assert compile_(model, out, "--json") == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert compile_(bad_models(tmp_path)["text"], out) == EXIT_CODES["unreadable"]
    assert compile_(model, out, "--precision", "int8") == 2
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_a_folder_that_cannot_be_written(model: Path, tmp_path: Path, capsys: Streams) -> None:
    (tmp_path / "out").write_text("a file is in the way")
    assert compile_(model, tmp_path / "out") == 2
    assert str(tmp_path / "out") in one_line(capsys)


def test_version_and_help(capsys: Streams) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("shrinkc ")
    assert main(["--help"]) == 0
    assert "estimate" in capsys.readouterr().out
    assert main([]) == 0
    assert "estimate" in capsys.readouterr().out


class TwoKinds(nn.Module):
    """Whole numbers and floats."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.out = nn.Embedding(7, 4), nn.Linear(9, 3)

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.cat((self.rows(ids), x), -1))


class Wave(nn.Module):
    """One waveform, without a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv1d(1, 4, 16, 8), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.conv(x.view(1, 1, -1)).relu().mean(-1))


@pytest.mark.parametrize(
    ("network", "inputs"),
    [(TwoKinds, ("1,6:int64", "1,6,5")), (TwoKinds, ("2,6:int32", "2,6,5")), (Wave, ("300",))],
)
def test_inputs_of_whole_numbers_and_of_one_dimension(
    network: type[nn.Module], inputs: tuple[str, ...], tmp_path: Path
) -> None:
    torch.save(network(), tmp_path / "network.pt")
    given = [word for one in inputs for word in ("--input", one)]
    words = [str(tmp_path / "network.pt"), "--target", "rpi4", "--trust", "-o", str(tmp_path / "o")]
    assert main([*words, *given]) == 0
    assert {"model.onnx", "model.tflite"} <= {p.name for p in (tmp_path / "o").iterdir()}


@pytest.mark.parametrize("text", ["1,6:int16", "1,6:", "0", ":int64", "1,a:int64"])
def test_inputs_that_are_none(text: str, tmp_path: Path, capsys: Streams) -> None:
    torch.save(Wave(), tmp_path / "network.pt")
    words = [str(tmp_path / "network.pt"), "--target", "rpi4", "--trust", "--input", text]
    assert main(words) == 2
    assert f"--input {text}: give" in one_line(capsys)
