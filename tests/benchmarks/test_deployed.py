"""The benchmark of deployed networks: they are many and each is what it says, a network passes or
its loss is named, and results are written of whole families alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import deployed, deployed_one
from benchmarks.shared.deployed import FAMILIES, Builder, networks
from benchmarks.shared.deployed.register import listed

SMALL = ("several", "MMoE")


def test_two_hundred_networks_in_twelve_families() -> None:
    assert len(FAMILIES) == 12
    counts = {family: len(networks(family)) for family in FAMILIES}
    assert sum(counts.values()) >= 200
    assert min(counts.values()) >= 10


@pytest.mark.parametrize("family", FAMILIES)
def test_one_network_of_each_family_runs(family: str) -> None:
    model, x = next(iter(networks(family).values()))()
    with torch.no_grad():
        found = deployed_one.tensors(model(*x))
    assert found
    assert all(torch.isfinite(one).all() for one in found)


def test_a_network_says_what_it_is() -> None:
    with pytest.raises(AssertionError, match="Nameless"):

        @listed({})
        class Nameless(nn.Module):
            pass


def test_a_network_passes_every_stage(tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    deployed_one.run(*SMALL, path, with_plan=False)
    row = json.loads(path.read_text())
    assert row["captured"]
    assert row["onnx"]
    assert row["tflite"]


class Doubled(nn.Module):
    """What the file does not compute."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *x: Tensor) -> Any:
        return tuple(2 * one for one in self.model(*x))


def test_a_file_that_computes_something_else_is_seen() -> None:
    model, x = networks(SMALL[0])[SMALL[1]]()
    compiled = deployed_one.compile_files(model, x, target="rpi4", runs=0)
    errors: dict[str, str] = {}
    assert deployed_one.judged(compiled, model, x, errors)["onnx"]
    with pytest.raises(Exception, match="differs by"):
        deployed_one.judged(compiled, Doubled(model), x, errors)


def test_a_loss_is_named_by_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sorted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.svdvals(x)

    def only(_: str) -> dict[str, Builder]:
        return {"Sorted": lambda: (Sorted(), (torch.randn(1, 4, 4),))}

    monkeypatch.setattr(deployed_one, "networks", only)
    deployed_one.run("several", "Sorted", tmp_path / "row.json", with_plan=False)
    row = json.loads((tmp_path / "row.json").read_text())
    assert row["errors"]
    assert "svd" in str(row["errors"])
    assert not row["onnx"]


def test_a_family_counts_once_all_of_it_was_run() -> None:
    names = list(networks("pose"))
    rows = [{"family": "pose", "name": name} for name in names]
    assert deployed.complete([*rows, {"family": "face", "name": "SCRFD"}]) == rows
    assert deployed.complete(rows[1:]) == []


def test_the_command_lists_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pose"
    folder.mkdir()
    row = deployed_one.empty_row("pose", "HRNet") | {"errors": {"captured": "why"}}
    (folder / "HRNet.json").write_text(json.dumps(row))
    monkeypatch.setattr(sys, "argv", ["deployed", "--families", "pose", "--list"])
    deployed.main()
    assert "pose/HRNet" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["deployed", "--table", "--kept", str(tmp_path)])
    deployed.main()
    printed = capsys.readouterr().out
    assert "pose/HRNet  captured: why" in printed
    assert "| pose" in printed
