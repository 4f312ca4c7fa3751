"""No command opens a connection, or writes anywhere but into OUT, the cache, the user's tables and
TMPDIR."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from noise_images import noise_images
from torch import nn

from shrinkc.compiler.cli.main import app

PROGRAM = Path(__file__).parents[2] / "support" / "watched_commands.py"
ALONE = ("unshare", "--user", "--map-root-user", "--net")  # a namespace without interfaces
GIVEN = ("--target", "rpi4", "--input", "1,3,16,16", "--runs", "0")
SEEN = (*GIVEN, "--images", "images")
PROFILED = ("--on", "host", "--input", "1,3,16,16", "--widths", "1")
COMMANDS = (
    ("compile", "net.pt", *SEEN, "-o", "plain", "--precision", "int8"),
    ("compile", "net.pt", *SEEN, "-o", "planned", "--speedup", "1.2"),
    ("apply", "net.pt", "planned", *GIVEN, "-o", "applied"),
    ("prune", "net.pt", *GIVEN, "-o", "pruned", "--macs", "0.7", "--plot", "pruned.png"),
    ("shrink", "net.pt", *SEEN, "-o", "shrunk", "--speedup", "1.02", "--steps", "0"),
    ("sensitivity", "net.pt", *GIVEN[2:4], "--images", "images", "--plot", "curves.png"),
    ("estimate", "net.pt", "--target", "host", "--input", "1,3,16,16"),
    ("inspect", "net.pt", "--input", "1,3,16,16"),
    ("bench", "plain/model.onnx", "--compare", "plain/model.tflite", "--runs", "2"),
    ("compare", "plain", "planned", "--runs", "0"),
    ("profile", "net.pt", "--target", "mine", *PROFILED),
    ("calibrate", "no-such-table", "--on", "host"),
    ("tables",),
    ("tables", "show", "rpi4", "--plot", "errors.png"),
    ("cache",),
    ("cache", "clear"),
)
FAILING = {"calibrate": 2}  # a whole one takes minutes; it writes as profile does


@pytest.fixture
def place(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.Conv2d(8, 32, 1), nn.ReLU6()),
        *(nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.ReLU6(), nn.Conv2d(32, 8, 1), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    for name in ("home", "tmp", "work"):
        (tmp_path / name).mkdir()
    torch.save(net, tmp_path / "work" / "net.pt")
    noise_images(tmp_path / "work" / "images")
    return tmp_path


def watched(place: Path, commands: Sequence[Sequence[str]]) -> dict[str, Any]:
    listed = place / "commands.json"
    listed.write_text(json.dumps(commands))
    kept = {"PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH"}
    environment = {name: value for name, value in os.environ.items() if name in kept}
    environment |= {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp")}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*ALONE, sys.executable, PROGRAM, listed],
        cwd=place / "work",
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {"said": done.stderr, **json.loads(listed.with_suffix(".found").read_text())}


def namespaces() -> bool:
    if shutil.which(ALONE[0]) is None:
        return False
    return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not namespaces(), reason="needs network namespaces")


def test_every_command_is_watched() -> None:
    root: Any = typer.main.get_command(app)
    assert {words[0] for words in COMMANDS} == set(root.commands)


def test_a_connection_is_seen(place: Path) -> None:
    found = watched(place, [["connect"], ["tables"]])
    assert found["unroutable"] > 0
    assert found["connections"] == ["socket.connect ('192.0.2.1', 80)"]


def test_nothing_leaves_and_nothing_is_written_elsewhere(place: Path) -> None:
    found = watched(place, COMMANDS)
    for command, code in found["codes"].items():
        assert code == FAILING.get(command.split()[0], 0), (command, found["said"])
    assert found["connections"] == []
    assert found["unroutable"] == 0
    elsewhere = [p for p in found["written"] if not Path(p).is_relative_to(place)]
    assert [p for p in elsewhere if not p.startswith(("/dev/", "/proc/"))] == []
    home = {str(path.relative_to(place / "home")) for path in (place / "home").rglob("*")}
    ours = (".cache/shrinkc", ".local/share/shrinkc")
    assert {name for name in home if not name.startswith(ours)} <= {
        ".cache",
        ".local",
        ".local/share",
    }
    temporary = [path.name for path in (place / "tmp").iterdir()]
    assert [name for name in temporary if not name.startswith("torchinductor_")] == []
    outs = {"plain", "planned", "applied", "pruned", "shrunk"}
    works = {f"{out}.work" for out in outs}
    there = {path.name for path in (place / "work").iterdir()}
    plots = {"pruned.png", "curves.png", "errors.png"}
    assert there - outs - works == {"net.pt", "images"} | plots
    assert not [path for path in place.rglob(".*") if path.name not in (".cache", ".local")]
