"""Other programs on the machine are noticed while files are timed."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from shrinkc.compiler.cli.main import main
from shrinkc.compiler.measure import crowd
from shrinkc.compiler.measure.crowd import CrowdedMachine, watched

CORES = os.cpu_count() or 1


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Of (all cores, this process) at the start and at the end of ten seconds."""
    told: list[float] = []

    def of(values: Iterator[float]) -> Iterator[float]:
        yield from values

    clock = of(iter((0.0, 10.0)))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    own = of(iter((5.0, 15.0)))
    monkeypatch.setattr(time, "process_time", lambda: next(own))
    monkeypatch.setattr(crowd, "_busy_seconds", lambda: told.pop(0))
    return told


def test_others_are_noticed(seconds: list[float]) -> None:
    seconds += [100.0, 110.0 + 10 * CORES * (crowd.MOST + 0.05)]
    with pytest.warns(CrowdedMachine, match="other programs use"), watched():
        pass


def test_what_this_process_does_is_not_others(seconds: list[float]) -> None:
    seconds += [100.0, 110.0 + 10 * CORES * (crowd.MOST - 0.05)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with watched():
            pass


def test_where_the_system_does_not_tell_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for content in (None, "", "cpu 1 2", "cpu a b c d e f g h i"):
        path = tmp_path / "stat"
        if content is not None:
            path.write_text(content)
        monkeypatch.setattr(crowd, "STAT", path)
        assert crowd._busy_seconds() is None


@pytest.mark.skipif(not crowd.STAT.exists(), reason="Linux alone tells")
def test_the_system_counts_what_this_process_does() -> None:
    before, until = crowd._busy_seconds(), time.process_time() + 0.5
    while time.process_time() < until:
        pass
    after = crowd._busy_seconds()
    assert before is not None
    assert after is not None
    assert after - before >= 0.4


def test_the_command_says_so_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crowd, "SHORTEST", 0.0)
    monkeypatch.setattr(crowd, "MOST", -10.0)
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), tmp_path / "model.pt")
    options = ("--target", "rpi4", "--input", "1,3,16,16", "--runs", "2")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main([str(tmp_path / "model.pt"), *options, "-o", str(tmp_path / "out")]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(said) == 1
    assert said[0].startswith("shrinkc: warning: other programs use this machine's cores")
