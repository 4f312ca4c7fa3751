"""Text of files is text: what would command a terminal is written out, whoever planted it."""

import json
import os
import re
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import helper
from PIL import Image
from torch import nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cli.main import main
from shrinkc.compiler.cli.output import Run as CliRun
from shrinkc.compiler.cli.output import running, wide_console
from shrinkc.compiler.model_file.file import model_bytes, read_metadata
from shrinkc.compiler.support.progress import Terminal
from shrinkc.compiler.support.text import UNSEEN, visible

Streams = pytest.CaptureFixture[str]
PLANT = "\x1b]0;owned\x07\x1b[31m[bold]\x9b2J\u202etxt\x7f\x00"
PLANT_IN_FILES = PLANT.replace("\x00", "")  # of names of files
SGR = re.compile(r"\x1b\[[0-9;]*m")  # rich's own styles


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def pickled(folder: Path) -> list[str]:
    model = nn.Sequential()
    model.add_module("x" + PLANT.replace(".", ""), nn.Conv2d(3, 4, 3))
    path = folder / f"{PLANT_IN_FILES}.pt"
    torch.save(model, path)
    return ["inspect", str(path), "--input", "1,3,8,8"]


def state_dict(folder: Path) -> list[str]:
    torch.save({PLANT: torch.ones(2)}, folder / "m.pt")
    return ["inspect", str(folder / "m.pt")]


def unsafe(folder: Path) -> list[str]:
    torch.save({PLANT: torch.ones(2), "b": np.float64}, folder / "m.pt")
    return ["inspect", str(folder / "m.pt")]


def own_notes(folder: Path) -> list[str]:
    path = folder / "m.safetensors"
    path.write_bytes(model_bytes(capture(network().eval(), (torch.ones(1, 3, 8, 8),)), {}))
    entry = json.loads(read_metadata(path)["shrinkc"])
    entry["meta"]["captured_by"] = PLANT
    tensors = safetensors.torch.load_file(path)
    path.write_bytes(safetensors.torch.save(tensors, {"shrinkc": json.dumps(entry)}))
    return ["inspect", str(path)]


def onnx_names(folder: Path) -> list[str]:
    value = helper.make_tensor_value_info
    kind = onnx.TensorProto.FLOAT
    plant = PLANT.replace("\x00", "")
    node = helper.make_node("Nonsense" + plant, [plant], ["y" + plant], name=plant)
    graph = helper.make_graph(
        [node], plant, [value(plant, kind, [1, 3])], [value("y" + plant, kind, [1, 3])]
    )
    onnx.save(helper.make_model(graph), folder / "m.onnx")
    return ["inspect", str(folder / "m.onnx")]


def runtime_error(folder: Path) -> list[str]:
    return ["bench", onnx_names(folder)[1], "--runs", "2"]


def table(folder: Path) -> list[str]:
    shutil.copytree(str(files("shrinkc.latency_tables") / "data" / "pixel3"), folder / "t")
    meta = folder / "t" / "meta.toml"
    device = f"device = {json.dumps(PLANT.replace(chr(0x7F), ''))}"
    meta.write_text(re.sub(r"^device = .*$", lambda _: device, meta.read_text(), flags=re.M))
    return ["tables", "show", str(folder / "t")]


def damaged_table(folder: Path) -> list[str]:
    command = table(folder)
    (folder / "t" / "ops.csv").write_text(f"op,{PLANT}\n")
    return command


def class_folder(folder: Path) -> list[str]:
    torch.save(network(), folder / "m.pt")
    for name in (f"a{PLANT_IN_FILES}", "b"):
        (folder / "images" / name).mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "images" / "b" / "a.png")
    (folder / "images" / f"a{PLANT_IN_FILES}" / f"{PLANT_IN_FILES}.png").write_bytes(b"none")
    given = [str(folder / "m.pt"), "--input", "1,3,8,8", "--target", "rpi4", "--runs", "0"]
    return [*given, "-o", str(folder / "o"), "--images", str(folder / "images")]


def class_index(folder: Path) -> list[str]:
    command = class_folder(folder)
    (folder / "classes.txt").write_text(f"{PLANT_IN_FILES}\n{PLANT_IN_FILES}\n", "utf-8")
    return [*command, "--classes", str(folder / "classes.txt")]


def box(folder: Path) -> list[str]:
    command = class_folder(folder)
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text(f"{PLANT_IN_FILES} 1 1 1 1\n", "utf-8")
    return [*command, "--annotations", str(folder / "labels")]


def report(folder: Path) -> list[str]:
    told = {"artefacts": [], "model": PLANT, "target": PLANT, "precision": PLANT}
    (folder / "report.json").write_text(json.dumps(told))
    return ["compare", str(folder), str(folder)]


def plan(folder: Path) -> list[str]:
    torch.save(network(), folder / "m.pt")
    (folder / "plan.json").write_text(json.dumps({"format": 2, PLANT: 1}))
    return ["apply", str(folder / "m.pt"), str(folder)]


def word(folder: Path) -> list[str]:
    return [f"no{PLANT_IN_FILES}"]


MAKERS: tuple[Callable[[Path], list[str]], ...] = (
    *(pickled, state_dict, unsafe, own_notes, onnx_names, runtime_error, table, damaged_table),
    *(class_folder, class_index, box, report, plan, word),
)


@pytest.mark.parametrize("maker", MAKERS, ids=lambda one: one.__name__)
def test_nothing_commands_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], maker: Callable[[Path], list[str]]
) -> None:
    command = [*maker(tmp_path), "--log", str(tmp_path / "log.txt")]
    main(command)
    shown = capfd.readouterr()
    main([*command, "--json"])
    answered = capfd.readouterr()
    log = (tmp_path / "log.txt").read_text("utf-8") if maker is not word else ""
    for text in (*shown, *answered, log):
        assert not UNSEEN.search(text)
    json.loads(answered.out)


def test_styles_stay_on_a_terminal(capsys: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are rich's own; the same bytes in a text are not."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    with running(CliRun()):
        wide_console().print(f"a\x1b[32mb{PLANT}", style="bold", markup=False)
    out = capsys.readouterr().out
    assert SGR.search(out)
    assert not UNSEEN.search(SGR.sub("", out))
    assert r"a\x1b[32mb" in out


def test_bars_show_text(capsys: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    with Terminal().task(f"Reading {PLANT}[/nothing]", 1) as advance:
        advance(PLANT)
    assert "\x1b]0" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["größe 図 🙂 ─ → \u00a0", "a\tb\nc", ""])
def test_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_what_is_written_out() -> None:
    assert visible("\x1b\r\x9b\u202e\udcff\u2028") == r"\x1b\r\x9b\u202e\udcff\u2028"


def test_names_that_are_no_utf8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    """Of the model, a class and the folder of results: written out in what is made of them."""
    monkeypatch.chdir(tmp_path)
    model, images, out = (os.fsdecode(name) for name in (b"m\xff.pt", b"i\xfe", b"o\xfd"))
    torch.save(nn.Sequential(*network(), nn.Linear(4, 2)), model)
    for name in (b"a\xfc", b"b\x1b[31m"):
        folder = Path(images, os.fsdecode(name))
        folder.mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (8, 8), (index, 9, 9)).save(folder / f"{index}.png")
    given = [model, "--input", "1,3,8,8", "--target", "rpi4", "--images", images]
    assert main([*given, "--runs", "0", "-o", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == r"m\udcff.pt"
    assert Path(out, "labels.txt").read_text("utf-8") == "'a\\udcfc'\n'b\\x1b[31m'\n"
    for name in ("report.json", "report.html", "use_model.py"):
        assert not UNSEEN.search(Path(out, name).read_text("utf-8"))
    assert main(["inspect", str(Path(out, "model.safetensors"))]) == 0
    assert main(["compare", out, out, "--runs", "0"]) == 0
    assert not UNSEEN.search("".join(capsys.readouterr()))
