"""--quiet, --log, and a stdout that holds answers alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from shrinkc.compiler.cli.main import main

Streams = pytest.CaptureFixture[str]
LOUD = """
import os
from torch import nn

print("importing")
os.system("echo from C")

class Net(nn.Module):
    def __init__(self):
        print("making")
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        print("made")

    def forward(self, x):
        print("running")
        return self.conv(x)
"""


@pytest.fixture
def loud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`estimate` of a network whose code prints."""
    (tmp_path / "loud.py").write_text(LOUD)
    convolution = nn.Conv2d(3, 4, 3)
    weights = {f"conv.{name}": tensor for name, tensor in convolution.state_dict().items()}
    torch.save(weights, tmp_path / "weights.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "loud", raising=False)
    given = ["estimate", "weights.pt", "--arch", "loud:Net", "--input", "1,3,16,16"]
    return [*given, "--target", "rpi4"]


def test_what_the_users_module_prints_is_not_on_stdout(loud: list[str], capsys: Streams) -> None:
    assert main([*loud, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["total_ms"] > 0
    assert "importing" in err
    assert "made" in err


def test_what_it_prints_from_c_is_not_there_either(loud: list[str]) -> None:
    command = [sys.executable, "-m", "shrinkc", *loud, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["total_ms"] > 0
    assert "from C" in done.stderr


def test_quiet_shows_nothing_but_errors(loud: list[str], capsys: Streams) -> None:
    assert main([*loud, "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["estimate", "none.pt", "--target", "rpi4", "-q"]) == 3
    assert "none.pt" in capsys.readouterr().err


def test_quiet_still_answers_programs(capsys: Streams) -> None:
    assert main(["tables", "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tables"]


def test_the_log_holds_the_command_its_steps_and_the_report(
    loud: list[str], tmp_path: Path, capsys: Streams
) -> None:
    log = tmp_path / "run.log"
    assert main([*loud, "--quiet", "--log", str(log)]) == 0
    assert main(["tables", "show", "pixl4", "--log", str(log)]) == 2
    lines = log.read_text("utf-8").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line) for line in lines)
    told = [line[20:] for line in lines]
    assert told[0] == f"shrinkc {' '.join(loud)} --quiet --log {log}"
    assert told[1] == "Estimating"
    assert re.fullmatch(r"Estimating: done in \d+\.\d s", told[2])
    assert any("total" in line for line in told)
    assert told[-1].startswith("shrinkc: unknown target 'pixl4'")
    assert "\x1b" not in log.read_text("utf-8")


def test_the_log_holds_json(tmp_path: Path, capsys: Streams) -> None:
    log = tmp_path / "run.log"
    assert main(["tables", "--json", "--log", str(log)]) == 0
    assert '"tables": [' in log.read_text("utf-8")


def test_a_log_that_cannot_be_written(tmp_path: Path, capsys: Streams) -> None:
    assert main(["tables", "--log", str(tmp_path / "no" / "run.log")]) == 2
    assert "run.log: cannot be written" in capsys.readouterr().err


def test_tables_show_is_quiet_too(capsys: Streams) -> None:
    assert main(["tables", "show", "rpi4", "--quiet"]) == 0
    assert main(["tables", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
